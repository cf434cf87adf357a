//! Plain values the planner works on. Pure: no I/O, no clock, no randomness.

pub mod build;
pub mod effective;
