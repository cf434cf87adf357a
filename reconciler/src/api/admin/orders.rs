//! Orders to an agent's turn loop, which its harness carries out at the next place where that does no harm.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use jiff::SignedDuration;
use shared::AgentName;
use shared::admin_api::Acknowledged;
use shared::order::{Order, OrderKind, OrderRequest};
use shared::wire_error::ErrorCode;

use super::{by, known, parsed};
use crate::api::Context;
use crate::api::error::{ApiError, ApiResult};
use crate::api::peer::Peer;
use crate::broker::orders::{Given, OrderError};
use crate::host::HarnessLink as _;

/// The longest reason, in characters.
const MAX_REASON: usize = 1000;
/// How long the end of a turn that was seen running is of any use: until the turn has ended for sure.
const CANCEL_WITHIN: SignedDuration = SignedDuration::from_hours(25);

pub(super) async fn order(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(request): Json<OrderRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let by = by(peer).await?;
    let OrderRequest {
        kind,
        reason,
        until,
        wake_on_message,
    } = request;
    let now = context.reconciler.host().clock.now();
    let harness = context.link.state(&name);
    let report = harness.as_ref().map(|state| &state.report);
    let mut order = Order {
        id: 0,
        kind,
        turn: None,
        until: None,
        wake_on_message: false,
    };
    let mut ends_at = None;
    let done = match kind {
        OrderKind::Cancel => {
            let running = report.filter(|report| report.turn.is_busy());
            let Some(running) = running else {
                let message = format!("{name} runs no turn that could be ended");
                return Err(ApiError::new(ErrorCode::Conflict, message).hint(format!("hive status {name}")));
            };
            order.turn = running.lease;
            ends_at = now.checked_add(CANCEL_WITHIN).ok();
            "ends its turn; the messages of it wait for the next one".to_owned()
        }
        OrderKind::Compact => "shortens its conversation before its next turn".to_owned(),
        OrderKind::Nap => {
            if until.is_some_and(|until| until <= now) {
                return Err(ApiError::new(ErrorCode::BadRequest, "a nap ends after now"));
            }
            order.until = until;
            order.wake_on_message = wake_on_message;
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
        OrderKind::Wake => "takes turns again".to_owned(),
        OrderKind::NewConversation => "begins a new conversation with its next turn".to_owned(),
        OrderKind::Unknown => {
            let message = "no such order: cancel, compact, nap, wake or newConversation";
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    };
    let given = Given {
        order,
        ends_at,
        by,
        reason: crate::untrusted::line(&reason, MAX_REASON),
    };
    context.broker.order(&name, given, now).await?;
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

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        let message = error.to_string();
        match error {
            OrderError::NoAgent(_) => Self::new(ErrorCode::NotFound, message).hint("hive status"),
            OrderError::TooMany(name) => {
                Self::new(ErrorCode::Exhausted, message).hint(format!("hive status {name}"))
            }
            OrderError::Ledger(error) => error.into(),
        }
    }
}
