//! Instructions as they come, made into what the turn loop understands: it knows neither clock nor turns' names.

use std::time::Duration;

use shared::TurnId;
use shared::instruction::{Instruction, InstructionKind};

use crate::turn::{Command, Instructed};

/// What an instruction means while this turn runs, which may be one that has no leases.
pub(super) fn understood(instruction: &Instruction, running: Option<TurnId>) -> Instructed {
    let Instruction {
        id,
        kind,
        turn,
        until,
        wake_on_message,
    } = instruction;
    let command = match kind {
        // The turn that was meant may be over.
        InstructionKind::Cancel if *turn == running => Command::Cancel,
        InstructionKind::Cancel => Command::Nothing,
        InstructionKind::Compact => Command::Compact,
        InstructionKind::Nap => Command::Nap {
            length: until.map_or(Duration::MAX, crate::clock::until),
            wake_on_message: *wake_on_message,
        },
        InstructionKind::Wake => Command::Wake,
        // The number of the conversation says it.
        InstructionKind::NewConversation => Command::Nothing,
        InstructionKind::Unknown => {
            tracing::warn!(
                instruction = id,
                "an instruction that this harness does not know is passed over"
            );
            Command::Nothing
        }
    };
    tracing::info!(instruction = id, kind = kind.as_str(), ?command, "instruction");
    Instructed { id: *id, command }
}
