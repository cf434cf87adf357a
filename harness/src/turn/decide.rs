//! The rules of the turn loop.

use std::time::Duration;

use shared::agent_api::PollResponse;

use super::state::{
    Action, Compaction, Event, InForce, Interruption, Outcome, Parked, Phase, Purpose, State, Timer,
};
use super::{instructions, park};

/// How long a turn may still run after the harness was told to end.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long giving back the leases may take after that. The daemon gives them back by itself when the harness is gone.
pub const ABANDON: Duration = Duration::from_secs(2);

/// From here on the conversation is shortened, in percent of the model's window.
const FULL_PERCENT: u64 = 80;
/// Turns in a row that may end well without taking up a message that waits.
const MOST_FRUITLESS: u32 = 2;

const REST_FIRST: Duration = Duration::from_millis(200);
const REST_LONGEST: Duration = Duration::from_secs(30);
/// After a turn without messages: those that the daemon counts may still be leased to a run that has crashed.
const REST_LONGEST_EMPTY: Duration = Duration::from_secs(2);

/// What follows from `event` in `state`.
pub fn decide(mut state: State, event: Event) -> (State, Vec<Action>) {
    let mut actions = Vec::new();
    if state.phase == Phase::Ended {
        return (state, actions);
    }
    match event {
        Event::Loaded(config) => loaded(&mut state, config, &mut actions),
        Event::LoadFailed(error) => {
            state.load_error = Some(error);
            leave(&mut state, Phase::Loading);
            load_again_later(&mut state, &mut actions);
        }
        Event::Instructed(instruction) => instructions::instructed(&mut state, &instruction, &mut actions),
        Event::Polled(answer) => polled(&mut state, answer, &mut actions),
        Event::Leased => {
            if state.phase == Phase::Leasing {
                state.phase = Phase::InTurn { interrupted: None };
                if state.stopping {
                    // Nothing new is begun; this gives the leases back.
                    interrupt(&mut state, Interruption::Stop, &mut actions);
                } else if let Some(config) = &state.config {
                    actions.push(Action::Set(Timer::MaxTurn, config.max_turn));
                }
            }
        }
        Event::TakenUp(count) => state.taken_up = state.taken_up.saturating_add(count),
        Event::Compacting(compacting) => state.compacting = compacting,
        Event::Context { tokens, window } => context(&mut state, tokens, window),
        Event::Nap {
            length,
            wake_on_message,
        } => park::nap(&mut state, length, wake_on_message, &mut actions),
        Event::LoginChanged => {
            if state.parked == Some(Parked::NeedsLogin) {
                park::leave(&mut state, &mut actions);
            }
        }
        Event::DriverEnded => {
            if let Phase::InTurn { .. } = state.phase {
                state.phase = Phase::Settling;
                actions.push(Action::Clear(Timer::MaxTurn));
            }
        }
        Event::TurnEnded(outcome) => turn_ended(&mut state, &outcome, &mut actions),
        Event::Elapsed(timer) => elapsed(&mut state, timer, &mut actions),
        Event::StopAsked => stop_asked(&mut state, &mut actions),
    }
    at_the_boundary(&mut state, &mut actions);
    (state, actions)
}

/// Between two turns, and only there, a config is loaded, a turn begins, or the harness ends.
fn at_the_boundary(state: &mut State, actions: &mut Vec<Action>) {
    if state.phase != Phase::Idle {
        return;
    }
    instructions::start_nap(state, actions);
    if state.stopping {
        state.phase = Phase::Ended;
        actions.push(Action::Exit(0));
    } else if wants_load(state) && !state.load_resting {
        state.phase = Phase::Loading;
        actions.push(Action::Load);
    } else if wants_compaction(state) {
        begin(state, Purpose::Compaction);
        state.compact = None;
        actions.push(Action::Compact);
    } else if may_take_turn(state) {
        begin(state, Purpose::Messages);
        state.waited = state.announced.inbox;
        // What was known of the inbox is used up; the next answer says what came since.
        state.announced.inbox = 0;
        actions.push(Action::StartTurn);
    }
}

fn begin(state: &mut State, purpose: Purpose) {
    state.phase = Phase::Leasing;
    state.purpose = purpose;
    state.taken_up = 0;
    state.compacting = false;
    state.cancelled = false;
}

/// Before the next turn, and even before a nap: the conversation is as fresh in the provider's cache as it will be.
fn wants_compaction(state: &State) -> bool {
    let wanted =
        matches!(state.compaction, Compaction::NearlyFull | Compaction::NoRoom) || state.compact.is_some();
    let awake = matches!(state.parked, None | Some(Parked::Napping { .. }));
    wanted && awake && may_run(state)
}

/// Whether any turn may run, whatever it is for.
fn may_run(state: &State) -> bool {
    let usable = state
        .config
        .as_ref()
        .is_some_and(|config| config.unusable.is_none());
    !state.resting && !state.announced.over_budget && !state.announced.paused && usable
}

/// Notes how full the model's window is at the end of a turn. After one that shortened the conversation it does not
/// matter: that asks for no second one ([`completed`], [`not_compacted`]).
fn context(state: &mut State, tokens: u64, window: u64) {
    if state.compaction != Compaction::NoRoom && window > 0 {
        state.compaction = if tokens.saturating_mul(100) > window.saturating_mul(FULL_PERCENT) {
            Compaction::NearlyFull
        } else if state.compaction == Compaction::NearlyFull {
            Compaction::NotWanted
        } else {
            state.compaction
        };
    }
}

fn wants_load(state: &State) -> bool {
    let loaded = state.config.as_ref().map(|config| &config.digest);
    state
        .announced
        .config
        .as_ref()
        // A file that was broken for a while is read again even when it is back to what is in force.
        .is_some_and(|announced| loaded != Some(announced) || state.load_error.is_some())
}

fn may_take_turn(state: &State) -> bool {
    state.announced.inbox > 0 && state.parked.is_none() && may_run(state)
}

fn loaded(state: &mut State, config: InForce, actions: &mut Vec<Action>) {
    let as_announced = state
        .announced
        .config
        .as_ref()
        .is_none_or(|announced| *announced == config.digest);
    state.config = Some(config);
    state.load_error = None;
    leave(state, Phase::Loading);
    if as_announced {
        state.load_failures = 0;
    } else {
        load_again_later(state, actions);
    }
}

/// The file is not what the daemon announced, or not readable: it is looked at again, less and less often.
fn load_again_later(state: &mut State, actions: &mut Vec<Action>) {
    state.load_resting = true;
    state.load_failures = state.load_failures.saturating_add(1);
    actions.push(Action::Set(Timer::Reload, rest(state.load_failures)));
}

fn polled(state: &mut State, answer: PollResponse, actions: &mut Vec<Action>) {
    park::polled(state, &answer, actions);
    if answer.config != state.announced.config {
        // New input: what failed before may work now.
        state.load_resting = false;
        state.load_failures = 0;
    }
    state.announced = answer;
}

fn turn_ended(state: &mut State, outcome: &Outcome, actions: &mut Vec<Action>) {
    if !matches!(
        state.phase,
        Phase::Leasing | Phase::InTurn { .. } | Phase::Settling
    ) {
        return;
    }
    actions.push(Action::Clear(Timer::MaxTurn));
    // Answers that came during the turn speak of messages it may have had; the next one is fresh.
    state.announced.inbox = 0;
    state.phase = Phase::Idle;
    state.compacting = false;
    match outcome {
        Outcome::Completed => completed(state, actions),
        Outcome::Nothing => rest_after(state, REST_LONGEST_EMPTY, actions),
        Outcome::Interrupted | Outcome::Failed(_) if state.cancelled => {
            instructions::turn_cancelled(state, actions);
        }
        Outcome::Interrupted => not_well(state, actions),
        Outcome::Failed(error) => {
            state.turn_error = Some(error.clone());
            not_well(state, actions);
        }
        Outcome::Refused { why, error } => {
            park::forget_nap(state, actions);
            state.turn_error = Some(error.clone());
            park::refused(state, *why, actions);
        }
        Outcome::Exit(status) => {
            state.phase = Phase::Ended;
            actions.push(Action::Exit(*status));
        }
    }
}

fn completed(state: &mut State, actions: &mut Vec<Action>) {
    state.failures = 0;
    state.refusals = 0;
    state.turn_error = None;
    match state.purpose {
        Purpose::Compaction => {
            state.compaction = match state.compaction {
                Compaction::NoRoom => Compaction::Retrying,
                Compaction::NotWanted | Compaction::NearlyFull | Compaction::Retrying => {
                    Compaction::NotWanted
                }
            };
        }
        Purpose::Messages => {
            if state.compaction == Compaction::Retrying {
                state.compaction = Compaction::NotWanted;
            }
            if state.taken_up > 0 {
                state.fruitless = 0;
            } else {
                state.fruitless = state.fruitless.saturating_add(1);
            }
            if state.fruitless >= MOST_FRUITLESS {
                park::fruitless(state, actions);
            } else {
                park::start_nap(state);
            }
        }
    }
}

fn not_well(state: &mut State, actions: &mut Vec<Action>) {
    park::forget_nap(state, actions);
    match state.purpose {
        Purpose::Messages => rest_after(state, REST_LONGEST, actions),
        Purpose::Compaction => not_compacted(state, actions),
    }
}

/// The conversation could not be shortened. One that is only nearly full goes on; one without room cannot.
pub(super) fn not_compacted(state: &mut State, actions: &mut Vec<Action>) {
    match std::mem::take(&mut state.compaction) {
        Compaction::NoRoom => park::stuck(state, actions),
        Compaction::NotWanted | Compaction::NearlyFull | Compaction::Retrying => {
            rest_after(state, REST_LONGEST, actions);
        }
    }
}

fn rest_after(state: &mut State, longest: Duration, actions: &mut Vec<Action>) {
    state.failures = state.failures.saturating_add(1);
    state.resting = true;
    actions.push(Action::Set(Timer::Rest, rest(state.failures).min(longest)));
}

fn elapsed(state: &mut State, timer: Timer, actions: &mut Vec<Action>) {
    match timer {
        Timer::Rest => state.resting = false,
        Timer::Reload => state.load_resting = false,
        Timer::Parked => park::leave(state, actions),
        Timer::Login => park::check_login(state, actions),
        Timer::Nap => park::nap_over(state),
        Timer::MaxTurn => interrupt(state, Interruption::Hung, actions),
        Timer::StopGrace => {
            interrupt(state, Interruption::Stop, actions);
            actions.push(Action::Set(Timer::Abandon, ABANDON));
        }
        Timer::Abandon => {
            state.phase = Phase::Ended;
            actions.push(Action::Exit(0));
        }
    }
}

/// Cuts a turn short, once for each reason. Leasing and settling wait for the daemon alone, and begin nothing.
pub(super) fn interrupt(state: &mut State, why: Interruption, actions: &mut Vec<Action>) {
    if let Phase::InTurn { interrupted } = &mut state.phase
        && (interrupted.is_none() || why == Interruption::Stop)
    {
        *interrupted = Some(why);
        actions.push(Action::Interrupt(why));
    }
}

fn stop_asked(state: &mut State, actions: &mut Vec<Action>) {
    let again = std::mem::replace(&mut state.stopping, true);
    match state.phase {
        // Reading a file leaves nothing half done.
        Phase::Loading => state.phase = Phase::Idle,
        Phase::Idle | Phase::Ended => {}
        Phase::Leasing | Phase::InTurn { .. } | Phase::Settling => {
            let grace = if again { Duration::ZERO } else { STOP_GRACE };
            actions.push(Action::Set(Timer::StopGrace, grace));
        }
    }
}

fn leave(state: &mut State, phase: Phase) {
    if state.phase == phase {
        state.phase = Phase::Idle;
    }
}

/// Doubles from [`REST_FIRST`] to [`REST_LONGEST`].
fn rest(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    REST_FIRST.saturating_mul(1 << doublings).min(REST_LONGEST)
}

#[cfg(test)]
mod tests;
