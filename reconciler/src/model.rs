//! Plain values the planner works on. Pure: no I/O, no clock, no randomness.

pub mod build;
pub mod capability;
pub mod change;
pub mod effective;
pub mod gates;
pub mod inventory;
pub mod records;
pub mod step;
