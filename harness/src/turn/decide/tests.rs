use shared::status::TurnState;

use super::super::testing::{HOUR, digest, in_force, set};
use super::*;

fn answer(inbox: u64, digit: char) -> Event {
    Event::Polled(PollResponse {
        inbox,
        config: Some(digest(digit)),
        paused: false,
        ..PollResponse::default()
    })
}

/// Feeds events one after another; the actions are those of the last.
fn after(events: impl IntoIterator<Item = Event>) -> (State, Vec<Action>) {
    let start = (State::starting(), Vec::new());
    events
        .into_iter()
        .fold(start, |(state, _), event| decide(state, event))
}

fn idle() -> Vec<Event> {
    vec![Event::Loaded(in_force('a')), answer(0, 'a')]
}

fn in_turn() -> Vec<Event> {
    with(idle(), [answer(1, 'a'), Event::Leased])
}

fn with(mut events: Vec<Event>, more: impl IntoIterator<Item = Event>) -> Vec<Event> {
    events.extend(more);
    events
}

#[test]
fn what_is_reported_follows_the_phase() {
    let paused = Event::Polled(PollResponse {
        inbox: 1,
        config: None,
        paused: true,
        ..PollResponse::default()
    });
    let table = [
        (vec![], TurnState::Starting),
        (vec![Event::LoadFailed("no".into())], TurnState::Starting),
        (idle(), TurnState::Idle),
        (with(idle(), [paused.clone()]), TurnState::Paused),
        (with(idle(), [answer(1, 'a')]), TurnState::Idle),
        (in_turn(), TurnState::Thinking),
        (with(in_turn(), [paused]), TurnState::Thinking),
        (with(in_turn(), [Event::DriverEnded]), TurnState::Thinking),
        (with(in_turn(), [Event::StopAsked]), TurnState::Stopping),
        (
            with(
                in_turn(),
                [Event::DriverEnded, Event::TurnEnded(Outcome::Completed)],
            ),
            TurnState::Idle,
        ),
    ];
    for (events, expected) in table {
        let (state, _) = after(events.clone());
        assert_eq!(state.turn_state(), expected, "{events:?}");
    }
}

#[test]
fn a_turn_starts_only_with_a_message_a_usable_config_and_no_pause() {
    let unusable = InForce {
        unusable: Some("no driver".into()),
        ..in_force('a')
    };
    let paused = Event::Polled(PollResponse {
        inbox: 3,
        config: Some(digest('a')),
        paused: true,
        ..PollResponse::default()
    });
    let table = [
        (with(idle(), [answer(1, 'a')]), true),
        (with(idle(), [answer(0, 'a')]), false),
        (with(idle(), [paused]), false),
        (vec![Event::Loaded(unusable), answer(1, 'a')], false),
        (vec![answer(1, 'a')], false),
        (vec![answer(1, 'a'), Event::Loaded(in_force('a'))], true),
        (with(in_turn(), [answer(1, 'a')]), false),
    ];
    for (events, expected) in table {
        let (_, actions) = after(events.clone());
        assert_eq!(actions.contains(&Action::StartTurn), expected, "{events:?}");
    }
}

#[test]
fn a_turn_is_limited_and_ends_between_two_turns() {
    let (_, actions) = after(in_turn());
    assert_eq!(set(&actions, Timer::MaxTurn), Some(HOUR));
    let (state, actions) = after(with(
        in_turn(),
        [Event::DriverEnded, Event::TurnEnded(Outcome::Completed)],
    ));
    assert_eq!(state.phase, Phase::Idle);
    assert_eq!(actions, [Action::Clear(Timer::MaxTurn)]);
}

#[test]
fn messages_counted_during_a_turn_start_no_turn_until_the_next_answer() {
    let events = with(in_turn(), [answer(5, 'a'), Event::TurnEnded(Outcome::Completed)]);
    let (state, actions) = after(events.clone());
    assert_eq!(
        (state.phase, actions.contains(&Action::StartTurn)),
        (Phase::Idle, false)
    );
    let (_, actions) = after(with(events, [answer(5, 'a')]));
    assert_eq!(actions, [Action::StartTurn]);
}

#[test]
fn a_turn_that_did_not_end_well_is_followed_by_a_growing_rest() {
    let failed = || Event::TurnEnded(Outcome::Failed("no".into()));
    let again = || [answer(1, 'a'), Event::Leased, failed()];
    let (state, actions) = after(with(in_turn(), [failed()]));
    assert_eq!(set(&actions, Timer::Rest), Some(Duration::from_millis(200)));
    // Messages do not cut the rest short.
    let (state, actions) = decide(state, answer(1, 'a'));
    assert_eq!(actions, []);
    let (_, actions) = decide(state, Event::Elapsed(Timer::Rest));
    assert_eq!(actions, [Action::StartTurn]);

    let mut events = with(in_turn(), [failed()]);
    for _ in 0..20 {
        events = with(events, [Event::Elapsed(Timer::Rest)]);
        events.extend(again());
    }
    let (_, actions) = after(events.clone());
    assert_eq!(set(&actions, Timer::Rest), Some(REST_LONGEST));
    let well = [
        Event::Elapsed(Timer::Rest),
        answer(1, 'a'),
        Event::Leased,
        Event::TurnEnded(Outcome::Completed),
    ];
    let (state, _) = after(with(events, well));
    assert_eq!((state.failures, state.resting), (0, false));
}

#[test]
fn a_turn_without_messages_is_followed_by_a_short_rest() {
    let mut events = with(idle(), [answer(1, 'a'), Event::TurnEnded(Outcome::Nothing)]);
    for _ in 0..20 {
        let more = [
            answer(1, 'a'),
            Event::Elapsed(Timer::Rest),
            Event::TurnEnded(Outcome::Nothing),
        ];
        events = with(events, more);
    }
    let (_, actions) = after(events);
    assert_eq!(set(&actions, Timer::Rest), Some(REST_LONGEST_EMPTY));
}

#[test]
fn a_new_config_is_loaded_between_two_turns() {
    let (_, actions) = after(with(idle(), [answer(0, 'b')]));
    assert_eq!(actions, [Action::Load]);
    let events = with(in_turn(), [answer(0, 'b')]);
    let (state, actions) = after(events.clone());
    assert_eq!((actions, state.config), (vec![], Some(in_force('a'))));
    let (_, actions) = after(with(events, [Event::TurnEnded(Outcome::Completed)]));
    assert_eq!(actions, [Action::Clear(Timer::MaxTurn), Action::Load]);
}

#[test]
fn a_new_config_comes_before_waiting_messages() {
    let (_, actions) = after(with(idle(), [answer(1, 'b')]));
    assert_eq!(actions, [Action::Load]);
    let (_, actions) = after(with(idle(), [answer(1, 'b'), Event::Loaded(in_force('b'))]));
    assert_eq!(actions, [Action::StartTurn]);
}

#[test]
fn a_config_that_cannot_be_loaded_leaves_the_old_one_in_force() {
    let broken = || Event::LoadFailed("bad JSON".into());
    let events = with(idle(), [answer(0, 'b'), broken()]);
    let (state, actions) = after(events.clone());
    assert_eq!(state.config, Some(in_force('a')));
    assert_eq!(state.config_error(), Some("bad JSON"));
    assert_eq!(set(&actions, Timer::Reload), Some(Duration::from_millis(200)));
    // Turns go on with the old one, and the file is not read again with every answer.
    let (state, actions) = after(with(events.clone(), [answer(1, 'b')]));
    assert_eq!(actions, [Action::StartTurn]);
    drop(state);
    let (_, actions) = after(with(events.clone(), [answer(0, 'b')]));
    assert_eq!(actions, []);
    // It is read again after a while, and at once when something else is announced.
    let (_, actions) = after(with(events.clone(), [Event::Elapsed(Timer::Reload)]));
    assert_eq!(actions, [Action::Load]);
    let (_, actions) = after(with(events.clone(), [answer(0, 'c')]));
    assert_eq!(actions, [Action::Load]);
    let repaired = [Event::Elapsed(Timer::Reload), Event::Loaded(in_force('b'))];
    let (state, _) = after(with(events, repaired));
    assert_eq!((state.config_error(), state.load_failures), (None, 0));
}

#[test]
fn a_file_other_than_announced_is_in_force_and_looked_at_again() {
    let (state, actions) = after(with(idle(), [answer(0, 'b'), Event::Loaded(in_force('c'))]));
    assert_eq!(state.config, Some(in_force('c')));
    assert!(set(&actions, Timer::Reload).is_some(), "{actions:?}");
}

#[test]
fn going_back_to_what_is_in_force_clears_the_error_of_a_broken_file() {
    let broken = Event::LoadFailed("bad JSON".into());
    let (_, actions) = after(with(idle(), [answer(0, 'b'), broken.clone(), answer(0, 'a')]));
    assert_eq!(actions, [Action::Load]);
    let back = [
        answer(0, 'b'),
        broken,
        answer(0, 'a'),
        Event::Loaded(in_force('a')),
    ];
    let (state, actions) = after(with(idle(), back));
    assert_eq!((state.config_error(), actions), (None, vec![]));
}

#[test]
fn a_turn_that_takes_too_long_is_interrupted_once() {
    let late = || Event::Elapsed(Timer::MaxTurn);
    let (_, actions) = after(with(in_turn(), [late()]));
    assert_eq!(actions, [Action::Interrupt(Interruption::Hung)]);
    let (_, actions) = after(with(in_turn(), [late(), late()]));
    assert_eq!(actions, []);
    let (_, actions) = after(with(in_turn(), [Event::DriverEnded, late()]));
    assert_eq!(actions, []);
}

#[test]
fn being_told_to_end_ends_an_idle_harness_at_once() {
    for events in [vec![], idle(), vec![Event::LoadFailed("no".into())]] {
        let (_, actions) = after(with(events.clone(), [Event::StopAsked]));
        assert_eq!(actions, [Action::Exit(0)], "{events:?}");
    }
}

#[test]
fn being_told_to_end_gives_the_turn_time_then_interrupts_it_then_leaves() {
    let events = with(in_turn(), [Event::StopAsked]);
    let (_, actions) = after(events.clone());
    assert_eq!(actions, [Action::Set(Timer::StopGrace, STOP_GRACE)]);
    let (_, actions) = after(with(events.clone(), [Event::TurnEnded(Outcome::Completed)]));
    assert_eq!(actions, [Action::Clear(Timer::MaxTurn), Action::Exit(0)]);

    let events = with(events, [Event::Elapsed(Timer::StopGrace)]);
    let (_, actions) = after(events.clone());
    let expected = [
        Action::Interrupt(Interruption::Stop),
        Action::Set(Timer::Abandon, ABANDON),
    ];
    assert_eq!(actions, expected);
    let (_, actions) = after(with(events.clone(), [Event::TurnEnded(Outcome::Interrupted)]));
    assert!(actions.contains(&Action::Exit(0)), "{actions:?}");
    let (_, actions) = after(with(events, [Event::Elapsed(Timer::Abandon)]));
    assert_eq!(actions, [Action::Exit(0)]);
}

#[test]
fn being_told_to_end_twice_leaves_no_grace() {
    let (_, actions) = after(with(in_turn(), [Event::StopAsked, Event::StopAsked]));
    assert_eq!(actions, [Action::Set(Timer::StopGrace, Duration::ZERO)]);
}

#[test]
fn messages_leased_after_being_told_to_end_are_given_back_at_once() {
    let (_, actions) = after(with(idle(), [answer(1, 'a'), Event::StopAsked, Event::Leased]));
    assert_eq!(actions, [Action::Interrupt(Interruption::Stop)]);
}

#[test]
fn a_hung_turn_can_still_be_told_to_stop() {
    let events = [
        Event::Elapsed(Timer::MaxTurn),
        Event::StopAsked,
        Event::Elapsed(Timer::StopGrace),
    ];
    let (_, actions) = after(with(in_turn(), events));
    assert!(
        actions.contains(&Action::Interrupt(Interruption::Stop)),
        "{actions:?}"
    );
}

#[test]
fn a_driver_may_end_the_harness_and_nothing_happens_after_that() {
    let events = with(in_turn(), [Event::TurnEnded(Outcome::Exit(9))]);
    let (_, actions) = after(events.clone());
    assert!(actions.contains(&Action::Exit(9)), "{actions:?}");
    for event in [answer(1, 'b'), Event::StopAsked, Event::Elapsed(Timer::Rest)] {
        let (_, actions) = after(with(events.clone(), [event.clone()]));
        assert_eq!(actions, [], "{event:?}");
    }
}

#[test]
fn no_order_of_events_leads_to_two_turns_at_once() {
    let alphabet = || {
        [
            Event::Loaded(in_force('a')),
            Event::LoadFailed("no".into()),
            answer(1, 'a'),
            answer(1, 'b'),
            Event::Leased,
            Event::DriverEnded,
            Event::TurnEnded(Outcome::Completed),
            Event::TurnEnded(Outcome::Nothing),
            Event::Elapsed(Timer::Rest),
            Event::Elapsed(Timer::Reload),
            Event::Elapsed(Timer::MaxTurn),
            Event::StopAsked,
        ]
    };
    // All sequences of this length; whatever a task cannot send in its phase must change nothing that matters.
    let mut worlds = vec![(State::starting(), false)];
    for _ in 0..5 {
        let mut next = Vec::new();
        for (state, running) in &worlds {
            for event in alphabet() {
                if matches!(event, Event::TurnEnded(_)) && !running {
                    continue;
                }
                let ended = matches!(event, Event::TurnEnded(_));
                let (state, actions) = decide(state.clone(), event);
                let started = actions
                    .iter()
                    .filter(|action| **action == Action::StartTurn)
                    .count();
                let running = *running && !ended;
                assert!(started <= usize::from(!running), "{state:?}");
                let world = (state, running || started > 0);
                if !next.contains(&world) {
                    next.push(world);
                }
            }
        }
        worlds = next;
    }
}
