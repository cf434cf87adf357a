//! Instructions to an agent's turn loop, which its harness carries out at the next place where that does no harm.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use jiff::SignedDuration;
use shared::AgentName;
use shared::admin_api::Acknowledged;
use shared::instruction::{Instruction, InstructionKind, InstructionRequest};
use shared::wire_error::ErrorCode;

use super::{by, known, parsed};
use crate::api::Context;
use crate::api::error::{ApiError, ApiResult};
use crate::api::peer::Peer;
use crate::broker::instructions::{Given, InstructionError};
use crate::host::HarnessLink as _;

/// The longest reason, in characters.
const MAX_REASON: usize = 1000;
/// How long the end of a turn that was seen running is of any use: until the turn has ended for sure.
const CANCEL_WITHIN: SignedDuration = SignedDuration::from_hours(25);

pub(super) async fn instruction(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(request): Json<InstructionRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let by = by(peer).await?;
    let InstructionRequest {
        kind,
        reason,
        until,
        wake_on_message,
    } = request;
    let now = context.reconciler.host().clock.now();
    let harness = context.link.state(&name);
    let report = harness.as_ref().map(|state| &state.report);
    let mut instruction = Instruction {
        id: 0,
        kind,
        turn: None,
        until: None,
        wake_on_message: false,
    };
    let mut ends_at = None;
    let done = match kind {
        InstructionKind::Cancel => {
            let running = report.filter(|report| report.turn.is_busy());
            let Some(running) = running else {
                let message = format!("{name} runs no turn that could be ended");
                return Err(ApiError::new(ErrorCode::Conflict, message).hint(format!("hive status {name}")));
            };
            instruction.turn = running.lease;
            ends_at = now.checked_add(CANCEL_WITHIN).ok();
            "ends its turn; the messages of it wait for the next one".to_owned()
        }
        InstructionKind::Compact => "shortens its conversation before its next turn".to_owned(),
        InstructionKind::Nap => {
            if until.is_some_and(|until| until <= now) {
                return Err(ApiError::new(ErrorCode::BadRequest, "a nap ends after now"));
            }
            instruction.until = until;
            instruction.wake_on_message = wake_on_message;
            ends_at = until;
            let until = until.map_or_else(
                || "it is woken".to_owned(),
                |until| until.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            );
            let message = if wake_on_message {
                " or a message comes"
            } else {
                ""
            };
            format!("takes no turns until {until}{message}")
        }
        InstructionKind::Wake => "takes turns again".to_owned(),
        InstructionKind::NewConversation => "begins a new conversation with its next turn".to_owned(),
        InstructionKind::Unknown => {
            let message = "no such instruction: cancel, compact, nap, wake or newConversation";
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    };
    let given = Given {
        instruction,
        ends_at,
        by,
        reason: crate::untrusted::line(&reason, MAX_REASON),
    };
    context.broker.instruction(&name, given, now).await?;
    let when = if report.is_some() {
        ""
    } else {
        "; it does not run now, and is told when it does"
    };
    Ok(Json(Acknowledged {
        message: format!("{name} {done}{when}"),
        changed: true,
    }))
}

impl From<InstructionError> for ApiError {
    fn from(error: InstructionError) -> Self {
        let message = error.to_string();
        match error {
            InstructionError::NoAgent(_) => Self::new(ErrorCode::NotFound, message).hint("hive status"),
            InstructionError::TooMany(name) => {
                Self::new(ErrorCode::Exhausted, message).hint(format!("hive status {name}"))
            }
            InstructionError::Ledger(error) => error.into(),
        }
    }
}
