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

/// A new id for something that is sent, so that sending it again is known for a repetition.
#[expect(clippy::disallowed_methods, reason = "one of the places that make random ids")]
pub fn dedupe_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A word that nobody outside can know beforehand.
#[expect(clippy::disallowed_methods, reason = "one of the places that make random ids")]
pub fn marker() -> String {
    let mut text = uuid::Uuid::new_v4().simple().to_string();
    text.truncate(12);
    text
}
