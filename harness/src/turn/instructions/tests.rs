use shared::agent_api::PollResponse;
use shared::status::TurnState;

use super::super::state::{Event, Outcome, Refusal};
use super::super::testing::*;
use super::*;

fn instruction(id: u64, command: Command) -> Event {
    Event::Instructed(Instructed { id, command })
}

fn nap(wake_on_message: bool) -> Command {
    Command::Nap {
        length: HOUR,
        wake_on_message,
    }
}

fn ended(outcome: Outcome) -> Event {
    Event::TurnEnded(outcome)
}

#[test]
fn a_turn_that_is_ended_by_instruction_is_not_begun_again_until_something_new_comes() {
    let (state, actions) = after(in_turn(), [instruction(1, Command::Cancel)]);
    assert_eq!(actions, [Action::Interrupt(Interruption::Cancelled)]);
    assert_eq!(state.instructed(), 1);
    for end in [Outcome::Interrupted, Outcome::Failed("it broke off".into())] {
        let (state, _) = after(state.clone(), [Event::DriverEnded, ended(end)]);
        let (state, actions) = after(state, [waiting(2)]);
        assert_eq!(actions, [], "the same messages");
        assert!(
            state
                .turn_error
                .as_ref()
                .is_some_and(|why| why.contains("the operator ended"))
        );
        assert_eq!(
            after(state.clone(), [waiting(3)]).1,
            [Action::Clear(Timer::Parked), Action::StartTurn]
        );
        assert!(
            after(state, [instruction(2, Command::Wake), waiting(2)])
                .0
                .is_in_turn()
        );
    }
    let (state, _) = after(state, [Event::DriverEnded, ended(Outcome::Completed)]);
    let actions = after(state, [waiting(1)]).1;
    assert!(
        actions.contains(&Action::StartTurn),
        "it had come to its end: {actions:?}"
    );
}

#[test]
fn an_instruction_is_carried_out_once_and_a_turn_that_follows_is_not_ended() {
    let (state, _) = after(idle(), [instruction(5, Command::Cancel)]);
    let (state, actions) = after(
        state,
        [waiting(1), Event::Leased, instruction(5, Command::Cancel)],
    );
    assert_eq!((actions, state.instructed()), (vec![], 5));
    let actions = after(state, [instruction(6, Command::Cancel)]).1;
    assert_eq!(actions, [Action::Interrupt(Interruption::Cancelled)]);
}

#[test]
fn a_conversation_is_shortened_before_the_next_turn_and_until_then_the_instruction_is_not_done() {
    let (state, actions) = after(in_turn(), [instruction(3, Command::Compact)]);
    assert_eq!((actions, state.instructed()), (vec![], 2));
    // A turn that takes little of the window asks for nothing, and takes nothing back.
    let small = Event::Context {
        tokens: 1,
        window: 100,
    };
    let (state, actions) = after(state, [small, Event::DriverEnded, ended(Outcome::Completed)]);
    assert!(actions.contains(&Action::Compact), "{actions:?}");
    assert_eq!(state.instructed(), 3);
    let (state, actions) = after(
        state,
        [
            Event::Leased,
            Event::DriverEnded,
            ended(Outcome::Completed),
            waiting(1),
        ],
    );
    assert!(actions.contains(&Action::StartTurn), "once: {actions:?}");
    assert_eq!(state.instructed(), 3);
    let paused = Event::Polled(PollResponse {
        paused: true,
        config: Some(digest('a')),
        ..PollResponse::default()
    });
    let (state, actions) = after(idle(), [paused, instruction(4, Command::Compact)]);
    assert_eq!((actions, state.instructed()), (vec![], 3), "it waits");
}

#[test]
fn an_agent_naps_by_instruction_from_the_end_of_its_turn_until_it_is_woken() {
    let (state, actions) = after(in_turn(), [instruction(1, nap(false))]);
    assert_eq!(actions, [Action::Set(Timer::Nap, HOUR)]);
    let refused = Outcome::Refused {
        why: Refusal::Login,
        error: "no".into(),
    };
    for end in [Outcome::Completed, Outcome::Failed("no".into()), refused] {
        let (state, actions) = after(state.clone(), [Event::DriverEnded, ended(end)]);
        assert!(!actions.contains(&Action::Clear(Timer::Nap)), "{actions:?}");
        assert_eq!(state.turn_state(), TurnState::Napping);
        let (state, _) = after(state, [Event::Elapsed(Timer::Rest), waiting(3)]);
        assert_eq!(state.turn_state(), TurnState::Napping, "no message ends it");
        let (state, actions) = after(state, [instruction(2, Command::Wake)]);
        assert!(actions.contains(&Action::Clear(Timer::Nap)));
        assert!(state.is_in_turn(), "{actions:?}");
    }
}

#[test]
fn a_nap_ends_by_its_time_by_a_message_that_may_end_it_or_before_it_begins() {
    let (state, actions) = after(idle(), [instruction(1, nap(true))]);
    assert_eq!(actions, [Action::Set(Timer::Nap, HOUR)]);
    assert_eq!(state.turn_state(), TurnState::Napping);
    assert!(after(state.clone(), [waiting(1)]).0.is_in_turn());
    assert_eq!(
        after(state, [Event::Elapsed(Timer::Nap)]).0.turn_state(),
        TurnState::Idle
    );
    let (state, _) = after(
        in_turn(),
        [instruction(1, nap(false)), instruction(2, Command::Wake)],
    );
    let (state, _) = after(state, [Event::DriverEnded, ended(Outcome::Completed)]);
    assert_eq!(state.turn_state(), TurnState::Idle);
}

#[test]
fn waking_ends_whatever_no_turn_is_taken_for() {
    let refused = Outcome::Refused {
        why: Refusal::Login,
        error: "no".into(),
    };
    let (state, _) = after(in_turn(), [Event::DriverEnded, ended(refused)]);
    assert_eq!(state.turn_state(), TurnState::NeedsLogin);
    assert!(
        after(state, [instruction(1, Command::Wake), waiting(1)])
            .0
            .is_in_turn()
    );
}
