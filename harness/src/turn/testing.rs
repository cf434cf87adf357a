//! What the tests of the turn loop have in common.

use std::time::Duration;

use shared::Digest;
use shared::agent_api::PollResponse;

use super::decide;
use super::state::{Action, Event, InForce, State, Timer};

/// The longest turn.
pub(super) const HOUR: Duration = Duration::from_hours(1);

pub(super) fn digest(digit: char) -> Digest {
    let hex: String = std::iter::repeat_n(digit, 64).collect();
    format!("config1-{hex}").parse().expect("digest")
}

pub(super) fn in_force(digit: char) -> InForce {
    InForce {
        digest: digest(digit),
        max_turn: HOUR,
        unusable: None,
    }
}

/// What the daemon says when so many messages wait.
pub(super) fn answer(inbox: u64) -> PollResponse {
    PollResponse {
        inbox,
        config: Some(digest('a')),
        ..PollResponse::default()
    }
}

pub(super) fn waiting(inbox: u64) -> Event {
    Event::Polled(answer(inbox))
}

/// Feeds events one after another; the actions are those of the last.
pub(super) fn after(state: State, events: impl IntoIterator<Item = Event>) -> (State, Vec<Action>) {
    let start = (state, Vec::new());
    events
        .into_iter()
        .fold(start, |(state, _), event| decide(state, event))
}

pub(super) fn idle() -> State {
    after(State::starting(), [Event::Loaded(in_force('a')), waiting(0)]).0
}

/// In a turn for two messages.
pub(super) fn in_turn() -> State {
    after(idle(), [waiting(2), Event::Leased]).0
}

/// What the timer is set to.
pub(super) fn set(actions: &[Action], timer: Timer) -> Option<Duration> {
    actions.iter().find_map(|action| match action {
        Action::Set(set, length) if *set == timer => Some(*length),
        _ => None,
    })
}
