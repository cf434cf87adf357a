//! Plain values the planner works on. Pure: no I/O, no clock, no randomness.

pub mod base;
pub mod build;
pub mod capability;
pub mod change;
pub mod draft;
pub mod effective;
pub mod gates;
pub mod inventory;
pub mod order;
pub mod records;
pub mod step;
pub mod tag;
#[cfg(test)]
pub(crate) mod testing;
pub mod user_range;
