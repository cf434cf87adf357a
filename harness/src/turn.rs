//! The turn loop as a state machine: [`decide::decide`] takes a state and an event and gives a state and actions.
//!
//! Nothing here waits, reads a clock, or touches anything outside. Times are named ([`state::Timer`]) and given as
//! lengths; whoever runs the actions keeps the clock.

pub mod decide;
mod instructions;
mod park;
pub mod state;
#[cfg(test)]
mod testing;

pub use decide::decide;
pub use state::{
    Action, Command, Compaction, Event, InForce, Instructed, Interruption, Outcome, Parked, Phase, Purpose,
    Refusal, State, Timer,
};
