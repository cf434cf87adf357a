//! The only source of identifiers.

use shared::TurnId;

/// A new id for a turn.
#[expect(clippy::disallowed_methods, reason = "one of the places that make random ids")]
pub fn turn_id() -> TurnId {
    TurnId(uuid::Uuid::new_v4())
}

/// A new id for a driver's conversation.
#[expect(clippy::disallowed_methods, reason = "one of the places that make random ids")]
pub fn session_id() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// A new id for a run of the harness.
#[expect(clippy::disallowed_methods, reason = "one of the places that make random ids")]
pub fn run_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
