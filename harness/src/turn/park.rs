//! Why no turn is taken for a while, and what ends that.
//!
//! | Parked | Ends with |
//! | --- | --- |
//! | needs login | another login, another announcement, [`SLOW_RETRY`] |
//! | refused | its pause, another announcement |
//! | stuck | one message more, another announcement; without room in the conversation, [`SLOW_RETRY`] too |
//! | napping | its time; a message, if the agent said so |
//!
//! An announcement is what the daemon says besides the count of messages. None of these costs a turn as long as no
//! message waits.

use std::time::Duration;

use shared::agent_api::PollResponse;

use super::decide::not_compacted;
use super::state::{Action, Compaction, Parked, Purpose, Refusal, State, Timer};

/// After this long even what only a person can mend is tried again.
pub(super) const SLOW_RETRY: Duration = Duration::from_mins(15);
/// Between two looks at the login.
const LOGIN_LOOK: Duration = Duration::from_secs(15);
/// Pauses after refusals double from the first to the longest.
const LIMITED: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(30));
const OVERLOADED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));
/// The longest pause a provider may ask for: its longest limit is a week.
const LONGEST_LIMIT: Duration = Duration::from_hours(8 * 24);
/// The longest nap.
pub(super) const LONGEST_NAP: Duration = Duration::from_hours(366 * 24);

/// Parks after a refusal, or makes room for another try.
pub(super) fn refused(state: &mut State, why: Refusal, actions: &mut Vec<Action>) {
    if why == Refusal::ContextFull {
        return no_room(state, actions);
    }
    if state.compaction == Compaction::NearlyFull {
        // Without a message nothing but the end of a turn may ask for a call of the model.
        state.compaction = Compaction::NotWanted;
    }
    state.refusals = state.refusals.saturating_add(1);
    let refusals = state.refusals;
    let (parked, length) = match why {
        Refusal::Login => {
            actions.push(Action::CheckLogin);
            actions.push(Action::Set(Timer::Login, LOGIN_LOOK));
            (Parked::NeedsLogin, SLOW_RETRY)
        }
        Refusal::RateLimited(Some(pause)) if pause > Duration::ZERO => {
            (Parked::Refused, pause.min(LONGEST_LIMIT))
        }
        Refusal::RateLimited(_) => (Parked::Refused, growing(LIMITED, refusals)),
        Refusal::Overloaded => (Parked::Refused, growing(OVERLOADED, refusals)),
        Refusal::Billing | Refusal::ContextFull => (Parked::Refused, LIMITED.1),
    };
    state.parked = Some(parked);
    actions.push(Action::Set(Timer::Parked, length));
}

/// The conversation is too long: it is shortened and the turn tried again, but only once.
fn no_room(state: &mut State, actions: &mut Vec<Action>) {
    match (state.purpose, state.compaction) {
        (Purpose::Messages, Compaction::NotWanted | Compaction::NearlyFull) => {
            state.compaction = Compaction::NoRoom;
        }
        (Purpose::Messages, Compaction::NoRoom | Compaction::Retrying) => {
            state.compaction = Compaction::NotWanted;
            stuck(state, actions);
        }
        (Purpose::Compaction, _) => not_compacted(state, actions),
    }
}

/// Parks: only something new helps.
pub(super) fn stuck(state: &mut State, actions: &mut Vec<Action>) {
    state.parked = Some(Parked::Stuck { inbox: state.waited });
    actions.push(Action::Set(Timer::Parked, SLOW_RETRY));
}

/// Parks because turn after turn leaves the messages where they are.
pub(super) fn fruitless(state: &mut State, actions: &mut Vec<Action>) {
    forget_nap(state, actions);
    state.turn_error = Some(format!(
        "{} turns in a row took up none of {} waiting messages: no more are taken until another message comes or the \
         config changes; see the agent's log for what it does instead of receiving",
        state.fruitless, state.waited
    ));
    state.parked = Some(Parked::Stuck { inbox: state.waited });
}

/// Takes in what an answer says about a state that no turn is taken in.
pub(super) fn polled(state: &mut State, answer: &PollResponse, actions: &mut Vec<Action>) {
    let announcement = |answer: &PollResponse| PollResponse {
        inbox: 0,
        ..answer.clone()
    };
    let news = announcement(answer) != announcement(&state.announced);
    let over = match &mut state.parked {
        None => false,
        Some(Parked::NeedsLogin | Parked::Refused) => news,
        Some(Parked::Stuck { inbox }) => {
            let more = answer.inbox > *inbox;
            // Messages that went away meanwhile must come again to count.
            *inbox = answer.inbox.min(*inbox);
            more || news
        }
        Some(Parked::Napping { wake_on_message }) => *wake_on_message && answer.inbox > 0,
    };
    if over {
        leave(state, actions);
    }
}

/// Takes turns again.
pub(super) fn leave(state: &mut State, actions: &mut Vec<Action>) {
    match state.parked.take() {
        Some(Parked::NeedsLogin) => {
            actions.push(Action::Clear(Timer::Parked));
            actions.push(Action::Clear(Timer::Login));
        }
        Some(Parked::Refused | Parked::Stuck { .. }) => actions.push(Action::Clear(Timer::Parked)),
        Some(Parked::Napping { .. }) => actions.push(Action::Clear(Timer::Nap)),
        None => {}
    }
    state.fruitless = 0;
}

/// Looks at the login, and again later.
pub(super) fn check_login(state: &State, actions: &mut Vec<Action>) {
    if state.parked == Some(Parked::NeedsLogin) {
        actions.push(Action::CheckLogin);
        actions.push(Action::Set(Timer::Login, LOGIN_LOOK));
    }
}

/// Notes the wish for a nap; its time runs from now.
pub(super) fn nap(state: &mut State, length: Duration, wake_on_message: bool, actions: &mut Vec<Action>) {
    if state.is_in_turn() && state.purpose == Purpose::Messages {
        state.nap = Some(wake_on_message);
        actions.push(Action::Set(Timer::Nap, length.min(LONGEST_NAP)));
    }
}

/// Begins the nap the agent wished for, if it did.
pub(super) fn start_nap(state: &mut State) {
    if let Some(wake_on_message) = state.nap.take() {
        state.parked = Some(Parked::Napping { wake_on_message });
    }
}

/// A turn that did not end well is no reason to sleep.
pub(super) fn forget_nap(state: &mut State, actions: &mut Vec<Action>) {
    if state.nap.take().is_some() {
        actions.push(Action::Clear(Timer::Nap));
    }
}

/// The nap's time is over, whether it has begun or not.
pub(super) fn nap_over(state: &mut State) {
    state.nap = None;
    state.instructed_nap = None;
    if let Some(Parked::Napping { .. }) = state.parked {
        state.parked = None;
    }
}

/// The first length, doubled with each time after the first, up to the longest.
fn growing((first, longest): (Duration, Duration), times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(longest)
}

#[cfg(test)]
mod tests;
