//! Errors at the edge: the whole chain goes to the log, one sentence and the next command go to the peer.

use axum::Json;
use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use shared::wire_error::{ErrorCode, WireError};

use crate::broker::loose_ends::LooseEndError;
use crate::broker::reminders::ReminderError;
use crate::broker::{BroadcastError, MessageError, RecvError, SendError, questions};
use crate::control::PassError;
use crate::control::command::CommandError;
use crate::host::HostError;
use crate::ledger::{DecideError, LedgerError};
use crate::model::draft::Refusal;

/// An error on its way out.
#[derive(Debug)]
pub struct ApiError(pub WireError);

/// The longest refusal of the framework that is passed on, in bytes.
const MAX_REASON: usize = 4096;

/// What handlers return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error of a kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(WireError::new(code, message))
    }

    /// With the next command to run.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self(self.0.with_hint(hint))
    }

    fn internal(error: &dyn std::error::Error) -> Self {
        let message = crate::error_chain(error);
        tracing::error!(error = message, "a request failed");
        Self::new(ErrorCode::Internal, message).hint("the daemon's log has more")
    }
}

/// The status that goes with a kind of error.
pub fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal | ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (status(self.0.code), Json(self.0)).into_response()
    }
}

/// Refusals that the framework makes before a handler runs (no such method, a body that is no JSON, a path that is no
/// UTF-8) get the one shape that all errors have. Their status stays.
pub async fn in_one_shape(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if !is_error || is_json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        _ if status.is_client_error() => ErrorCode::BadRequest,
        _ => ErrorCode::Internal,
    };
    let text = to_bytes(body, MAX_REASON).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let message = match (text.trim(), status.canonical_reason()) {
        ("", reason) => reason.unwrap_or("the request is refused").to_owned(),
        (text, _) => text.to_owned(),
    };
    let answer = Json(WireError::new(code, message)).into_response();
    // What else was said stays true, such as which methods are allowed.
    for (name, value) in answer.headers() {
        parts.headers.insert(name, value.clone());
    }
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, answer.into_body())
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        let Some(fault) = error.fault() else {
            return Self::internal(&error);
        };
        tracing::debug!(error = crate::error_chain(&error), "a request failed");
        let message = format!("nothing was stored: {} below the ledger", fault.as_str());
        Self::new(ErrorCode::Unavailable, message)
            .hint("hive status says where, and what to do; then try again")
    }
}

impl From<PassError> for ApiError {
    fn from(error: PassError) -> Self {
        Self::internal(&error)
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        match &error {
            HostError::Refused { .. } | HostError::WantsHosts { .. } => {
                Self::new(ErrorCode::BadRequest, error.chain())
            }
            HostError::Moved { .. } => Self::new(ErrorCode::Conflict, error.chain()),
            HostError::Io { .. } | HostError::Failed { .. } => Self::internal(&error),
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        match error {
            CommandError::NoAgent(_) => Self::new(ErrorCode::NotFound, message).hint("hive status"),
            CommandError::Unfit { .. } => Self::new(ErrorCode::Conflict, message).hint("hive status"),
            CommandError::NotManager(_) | CommandError::Never { .. } => {
                Self::new(ErrorCode::Forbidden, message).hint("ask the operator")
            }
            CommandError::Overruled { .. } => {
                Self::new(ErrorCode::Conflict, message).hint("ask the operator")
            }
            CommandError::NoModel(_) => Self::new(ErrorCode::BadRequest, message),
            CommandError::Ambiguous { .. } => Self::new(ErrorCode::Conflict, message).hint("hive archive"),
            CommandError::TooManyProposals { .. } => Self::new(ErrorCode::Exhausted, message),
            CommandError::Draft(refusal) => refused(&refusal, message),
            CommandError::NoSpec => Self::new(ErrorCode::Unavailable, message).hint("hive status"),
            CommandError::NotCanonical(error) => Self::internal(&error),
            CommandError::Host(error) => error.into(),
            CommandError::Ledger(error) => error.into(),
        }
    }
}

fn refused(refusal: &Refusal, message: String) -> ApiError {
    let code = match refusal {
        Refusal::NotManager(_) | Refusal::NotYours { .. } => ErrorCode::Forbidden,
        Refusal::NoDraft(_) | Refusal::NoFile(_) => ErrorCode::NotFound,
        Refusal::Taken { .. } | Refusal::BeingSpawned(_) | Refusal::DeniedBefore { .. } => {
            ErrorCode::Conflict
        }
        Refusal::Full { .. } | Refusal::TooManyDrafts { .. } | Refusal::TooManyBundles => {
            ErrorCode::Exhausted
        }
        Refusal::TooManyFiles | Refusal::TooLarge | Refusal::FileTooLarge => ErrorCode::TooLarge,
        Refusal::Collision { .. } => ErrorCode::BadRequest,
        Refusal::NoRepo(_) => ErrorCode::Unavailable,
    };
    ApiError::new(code, message)
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        let message = error.to_string();
        match error {
            SendError::TooLarge { .. } => Self::new(ErrorCode::TooLarge, message),
            SendError::UnknownRecipient(_) => Self::new(ErrorCode::NotFound, message),
            SendError::Forbidden { .. } => {
                Self::new(ErrorCode::Forbidden, message).hint("its `recipients` name whom it may write to")
            }
            SendError::InboxFull { .. } => Self::new(ErrorCode::Exhausted, message),
            SendError::BadDedupe { .. }
            | SendError::ToSystem
            | SendError::BadKind { .. }
            | SendError::AskedItself(_) => Self::new(ErrorCode::BadRequest, message),
            SendError::Question(refusal) => question(&refusal, message),
            SendError::Ledger(error) => error.into(),
        }
    }
}

fn question(refusal: &questions::Refusal, message: String) -> ApiError {
    use questions::Refusal;
    let code = match refusal {
        Refusal::NotFound(_) => ErrorCode::NotFound,
        Refusal::NotAsked { .. } | Refusal::NotAsker { .. } => ErrorCode::Forbidden,
        Refusal::Ended { .. } | Refusal::DedupeTaken(_) => ErrorCode::Conflict,
        Refusal::TooMany(_) => ErrorCode::Exhausted,
        Refusal::DefaultTooLarge(_) => ErrorCode::TooLarge,
        Refusal::OtherAsker { .. } | Refusal::BadTerm(_) | Refusal::DefaultWithoutTerm => {
            ErrorCode::BadRequest
        }
    };
    ApiError::new(code, message)
}

impl From<ReminderError> for ApiError {
    fn from(error: ReminderError) -> Self {
        let message = error.to_string();
        let code = match error {
            ReminderError::NotFound(_) => ErrorCode::NotFound,
            ReminderError::NotOwner { .. } => ErrorCode::Forbidden,
            ReminderError::TooMany(_) => ErrorCode::Exhausted,
            ReminderError::TooLarge(_) => ErrorCode::TooLarge,
            ReminderError::Schedule(_) | ReminderError::BadDedupe(_) => ErrorCode::BadRequest,
            ReminderError::Ledger(error) => return error.into(),
        };
        Self::new(code, message)
    }
}

impl From<RecvError> for ApiError {
    fn from(error: RecvError) -> Self {
        let message = error.to_string();
        match error {
            RecvError::NoSuchTurn { .. } => Self::new(ErrorCode::Conflict, message),
            RecvError::Ledger(error) => error.into(),
        }
    }
}

impl From<MessageError> for ApiError {
    fn from(error: MessageError) -> Self {
        let message = error.to_string();
        let code = match error {
            MessageError::NotFound(_) => ErrorCode::NotFound,
            MessageError::NotYours { .. } => ErrorCode::Forbidden,
            MessageError::InboxFull { .. } => ErrorCode::Exhausted,
            MessageError::NotDead { .. }
            | MessageError::Unreadable(_)
            | MessageError::Settled(_)
            | MessageError::Gone { .. } => ErrorCode::Conflict,
            MessageError::Ledger(error) => return error.into(),
        };
        Self::new(code, message)
    }
}

impl From<BroadcastError> for ApiError {
    fn from(error: BroadcastError) -> Self {
        let message = error.to_string();
        let code = match error {
            BroadcastError::NotManager(_) => ErrorCode::Forbidden,
            BroadcastError::TooLarge(_) => ErrorCode::TooLarge,
            BroadcastError::BadDedupe(_) => ErrorCode::BadRequest,
            BroadcastError::Ledger(error) => return error.into(),
        };
        Self::new(code, message)
    }
}

impl From<LooseEndError> for ApiError {
    fn from(error: LooseEndError) -> Self {
        let message = error.to_string();
        match error {
            LooseEndError::Question(error) => error.into(),
            LooseEndError::Reminder(error) => error.into(),
            LooseEndError::Message(error) => error.into(),
            LooseEndError::Gate(_) => Self::new(ErrorCode::Forbidden, message),
            LooseEndError::Decide(gate) => {
                Self::new(ErrorCode::Conflict, message).hint(format!("hive gate deny {gate}"))
            }
            LooseEndError::Ledger(error) => error.into(),
        }
    }
}

impl From<DecideError> for ApiError {
    fn from(error: DecideError) -> Self {
        let message = error.to_string();
        match error {
            DecideError::NotFound(_) => Self::new(ErrorCode::NotFound, message).hint("hive gate list"),
            DecideError::NotOpen { gate, .. } | DecideError::Moved { gate, .. } => {
                Self::new(ErrorCode::Conflict, message).hint(format!("hive gate show {gate}"))
            }
            DecideError::Ledger(error) => error.into(),
        }
    }
}
