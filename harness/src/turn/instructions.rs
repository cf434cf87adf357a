//! Instructions of the operator, and where they are carried out.
//!
//! | Instruction | Carried out |
//! | --- | --- |
//! | cancel | at once; the messages of the turn go back, and none is taken until something new comes |
//! | compact | before the next turn, when one may run |
//! | nap | at the end of the turn; it takes the place of whatever else no turn was taken for |
//! | wake | at once; it ends whatever no turn is taken for |
//!
//! An instruction that was seen is not carried out again. One that waits for its place counts as not carried out, so that a
//! harness that comes after this one gets it too.

use std::time::Duration;

use super::decide::{interrupt, not_compacted};
use super::park;
use super::state::{Action, Command, Instructed, Interruption, Parked, Phase, Purpose, State, Timer};

/// Takes in an instruction.
pub(super) fn instructed(state: &mut State, instruction: &Instructed, actions: &mut Vec<Action>) {
    let Instructed { id, command } = instruction;
    if *id <= state.seen {
        return;
    }
    state.seen = *id;
    match command {
        Command::Cancel => {
            if let Phase::InTurn { .. } = state.phase {
                state.cancelled = true;
                interrupt(state, Interruption::Cancelled, actions);
            }
        }
        Command::Compact => state.compact = Some(*id),
        Command::Nap {
            length,
            wake_on_message,
        } => nap(state, *length, *wake_on_message, actions),
        Command::Wake => {
            state.instructed_nap = None;
            state.nap = None;
            actions.push(Action::Clear(Timer::Nap));
            park::leave(state, actions);
        }
        Command::Nothing => {}
    }
}

fn nap(state: &mut State, length: Duration, wake_on_message: bool, actions: &mut Vec<Action>) {
    park::leave(state, actions);
    state.nap = None;
    state.instructed_nap = Some(wake_on_message);
    actions.push(Action::Set(Timer::Nap, length.min(park::LONGEST_NAP)));
}

/// Between two turns: falls asleep when that was instructed.
pub(super) fn start_nap(state: &mut State, actions: &mut Vec<Action>) {
    if let Some(wake_on_message) = state.instructed_nap.take() {
        // The turn's end may have found another reason; its timers go with it, that of the nap stays.
        if !matches!(state.parked, Some(Parked::Napping { .. })) {
            park::leave(state, actions);
        }
        state.parked = Some(Parked::Napping { wake_on_message });
    }
}

/// The turn was ended by instruction: to take its messages again at once would undo that.
pub(super) fn turn_cancelled(state: &mut State, actions: &mut Vec<Action>) {
    park::forget_nap(state, actions);
    match state.purpose {
        Purpose::Messages => {
            state.turn_error = Some(
                "the operator ended the turn: its messages wait until another one comes, or hive wake"
                    .to_owned(),
            );
            state.parked = Some(Parked::Stuck { inbox: state.waited });
        }
        Purpose::Compaction => not_compacted(state, actions),
    }
}

#[cfg(test)]
mod tests;
