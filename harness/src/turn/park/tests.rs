use shared::status::TurnState;

use super::super::decide;
use super::super::state::{Event, Outcome};
use super::super::testing::*;
use super::*;

fn refusal(why: Refusal) -> Event {
    Event::TurnEnded(Outcome::Refused {
        why,
        error: "no".to_owned(),
    })
}

fn completed() -> Event {
    Event::TurnEnded(Outcome::Completed)
}

fn starts(actions: &[Action]) -> bool {
    actions.contains(&Action::StartTurn)
}

#[test]
fn without_a_login_no_turn_is_taken_until_something_other_than_a_message_comes() {
    let (parked, actions) = after(in_turn(), [refusal(Refusal::Login)]);
    assert_eq!(parked.turn_state(), TurnState::NeedsLogin);
    assert_eq!(parked.turn_error.as_deref(), Some("no"));
    assert_eq!(set(&actions, Timer::Parked), Some(SLOW_RETRY));
    assert!(actions.contains(&Action::CheckLogin), "{actions:?}");

    let (still, actions) = after(parked, [waiting(2), waiting(9), waiting(1)]);
    assert_eq!(actions, []);
    let another = Event::Polled(PollResponse {
        model: Some("other".to_owned()),
        ..answer(1)
    });
    for reason in [another, Event::LoginChanged, Event::Elapsed(Timer::Parked)] {
        let (state, actions) = decide(still.clone(), reason.clone());
        assert!(starts(&actions), "{reason:?}");
        assert_eq!(state.parked, None, "{reason:?}");
    }
    let (_, actions) = decide(still, Event::Elapsed(Timer::Login));
    assert_eq!(
        actions,
        [Action::CheckLogin, Action::Set(Timer::Login, LOGIN_LOOK)]
    );
}

#[test]
fn a_limit_is_waited_for_as_long_as_the_provider_says() {
    let pause = Duration::from_secs(777);
    let limited = refusal(Refusal::RateLimited(Some(pause)));
    let (state, actions) = after(in_turn(), [limited]);
    assert_eq!(set(&actions, Timer::Parked), Some(pause));
    let (state, actions) = after(state, [waiting(5)]);
    assert_eq!(
        (state.turn_state(), starts(&actions)),
        (TurnState::RateLimited, false)
    );
    let (state, actions) = decide(state, Event::Elapsed(Timer::Parked));
    assert!(starts(&actions), "{state:?}");

    let absurd = refusal(Refusal::RateLimited(Some(Duration::MAX)));
    let (_, actions) = after(in_turn(), [absurd]);
    assert_eq!(set(&actions, Timer::Parked), Some(LONGEST_LIMIT));
}

#[test]
fn pauses_after_refusals_grow_and_start_over_after_a_turn_that_went_well() {
    let pauses = |why: Refusal| {
        let mut state = idle();
        let mut lengths = Vec::new();
        for _ in 0..7 {
            let (next, actions) = after(
                state,
                [
                    waiting(1),
                    Event::Elapsed(Timer::Parked),
                    Event::Leased,
                    refusal(why),
                ],
            );
            lengths.push(set(&actions, Timer::Parked).expect("a pause").as_secs());
            state = next;
        }
        (state, lengths)
    };
    let minutes = [1, 2, 4, 8, 16, 30, 30].map(|minutes| minutes * 60);
    assert_eq!(pauses(Refusal::RateLimited(None)).1, minutes);
    assert_eq!(pauses(Refusal::Billing).1, [1800; 7]);
    let (state, lengths) = pauses(Refusal::Overloaded);
    assert_eq!(lengths, [5, 10, 20, 40, 80, 160, 320]);
    let well = [
        waiting(1),
        Event::Elapsed(Timer::Parked),
        Event::Leased,
        Event::TakenUp(1),
        completed(),
    ];
    let (state, _) = after(state, well);
    assert_eq!((state.refusals, state.turn_error), (0, None));
}

#[test]
fn two_turns_that_leave_the_messages_where_they_are_park_until_more_come() {
    let fruitless = || [waiting(3), Event::Leased, completed()];
    let (state, _) = after(idle(), fruitless());
    assert_eq!(state.parked, None);
    let (state, _) = after(state, fruitless());
    assert_eq!(state.parked, Some(Parked::Stuck { inbox: 3 }));
    assert_eq!(state.turn_state(), TurnState::Idle);
    let error = state.turn_error.clone().expect("an error");
    assert!(error.starts_with("2 turns in a row took up none of 3"), "{error}");

    let (_, actions) = after(state.clone(), [waiting(3), waiting(3)]);
    assert!(!starts(&actions));
    let (_, actions) = after(state.clone(), [waiting(4)]);
    assert!(starts(&actions));
    // One went away and one came.
    let (_, actions) = after(state.clone(), [waiting(2), waiting(3)]);
    assert!(starts(&actions));
    let new_config = Event::Polled(PollResponse {
        config: Some(digest('b')),
        ..answer(3)
    });
    let (state, actions) = after(state, [new_config]);
    assert_eq!(
        (state.parked, actions),
        (None, vec![Action::Clear(Timer::Parked), Action::Load])
    );
}

#[test]
fn a_turn_that_takes_something_up_starts_the_count_of_fruitless_ones_over() {
    let (state, _) = after(idle(), [waiting(1), Event::Leased, completed()]);
    let fruitful = [waiting(1), Event::Leased, Event::TakenUp(1), completed()];
    let (state, _) = after(state, fruitful);
    assert_eq!(state.fruitless, 0);
    let (state, _) = after(state, [waiting(1), Event::Leased, completed()]);
    assert_eq!(state.parked, None);
}

#[test]
fn a_full_conversation_is_shortened_and_the_turn_tried_once_more() {
    let (state, actions) = after(in_turn(), [refusal(Refusal::ContextFull)]);
    assert_eq!(actions.last(), Some(&Action::Compact));
    let (state, _) = decide(state, Event::Leased);
    assert_eq!(state.turn_state(), TurnState::Compacting);
    let (state, actions) = after(state, [completed(), waiting(2)]);
    assert!(starts(&actions), "{state:?}");
    // Still too long: no second try.
    let (state, actions) = after(state, [Event::Leased, refusal(Refusal::ContextFull)]);
    assert_eq!(state.parked, Some(Parked::Stuck { inbox: 2 }));
    assert!(!actions.contains(&Action::Compact), "{actions:?}");
    assert_eq!(set(&actions, Timer::Parked), Some(SLOW_RETRY));
    // A new conversation is a reason to go on.
    let new = Event::Polled(PollResponse {
        conversation: Some(1),
        ..answer(2)
    });
    assert!(starts(&decide(state, new).1));
}

#[test]
fn a_full_conversation_that_cannot_be_shortened_is_not_tried_in_a_loop() {
    for end in [
        refusal(Refusal::ContextFull),
        Event::TurnEnded(Outcome::Failed("no".to_owned())),
        Event::TurnEnded(Outcome::Interrupted),
    ] {
        let events = [
            refusal(Refusal::ContextFull),
            Event::Leased,
            end.clone(),
            waiting(2),
        ];
        let (state, actions) = after(in_turn(), events);
        assert_eq!(state.parked, Some(Parked::Stuck { inbox: 2 }), "{end:?}");
        assert_eq!(actions, [], "{end:?}");
    }
}

#[test]
fn a_conversation_that_takes_most_of_the_window_is_shortened_before_anything_else() {
    let context = |tokens| Event::Context { tokens, window: 1000 };
    let end = |tokens| {
        [
            Event::TakenUp(1),
            context(tokens),
            Event::DriverEnded,
            completed(),
        ]
    };
    let (_, actions) = after(in_turn(), end(800));
    assert!(!actions.contains(&Action::Compact), "{actions:?}");
    let (state, actions) = after(in_turn(), end(801));
    assert!(actions.contains(&Action::Compact), "{actions:?}");
    // What the shortening itself says of the size asks for no second one.
    let (state, actions) = after(state, [Event::Leased, context(999), completed()]);
    assert_eq!(state.compaction, Compaction::NotWanted);
    assert!(!actions.contains(&Action::Compact), "{actions:?}");
    // Nor does one that was refused come again without a turn for messages.
    let refused = [
        Event::Leased,
        refusal(Refusal::Overloaded),
        Event::Elapsed(Timer::Parked),
    ];
    let (_, actions) = after(after(in_turn(), end(801)).0, refused);
    assert!(!actions.contains(&Action::Compact), "{actions:?}");
}

#[test]
fn nothing_is_shortened_in_a_pause_or_without_money() {
    let full = || {
        [
            Event::TakenUp(1),
            Event::Context {
                tokens: 999,
                window: 1000,
            },
        ]
    };
    for announced in [
        PollResponse {
            paused: true,
            ..answer(1)
        },
        PollResponse {
            over_budget: true,
            ..answer(1)
        },
    ] {
        let (state, _) = after(in_turn(), full());
        let (_, actions) = after(state, [Event::Polled(announced), completed()]);
        assert!(!actions.contains(&Action::Compact), "{actions:?}");
    }
}

#[test]
fn a_nap_begins_with_the_end_of_the_turn_and_ends_with_its_time_or_a_message() {
    let nap = |wake_on_message| Event::Nap {
        length: HOUR,
        wake_on_message,
    };
    let (state, actions) = after(in_turn(), [nap(true)]);
    assert_eq!(state.turn_state(), TurnState::Thinking);
    assert_eq!(set(&actions, Timer::Nap), Some(HOUR));
    let (state, _) = after(state, [Event::TakenUp(1), completed(), waiting(0)]);
    assert_eq!(state.turn_state(), TurnState::Napping);
    assert!(starts(&decide(state.clone(), waiting(1)).1));
    let (state, actions) = decide(state, Event::Elapsed(Timer::Nap));
    assert_eq!((state.turn_state(), starts(&actions)), (TurnState::Idle, false));

    let (state, _) = after(in_turn(), [nap(false), Event::TakenUp(1), completed()]);
    let (state, actions) = after(state, [waiting(1)]);
    assert_eq!(
        (state.turn_state(), starts(&actions)),
        (TurnState::Napping, false)
    );
    assert!(starts(&decide(state, Event::Elapsed(Timer::Nap)).1));
}

#[test]
fn a_nap_is_over_when_its_turn_outlasts_it_or_does_not_end_well() {
    let nap = || Event::Nap {
        length: HOUR,
        wake_on_message: false,
    };
    let outlasted = [nap(), Event::Elapsed(Timer::Nap), Event::TakenUp(1), completed()];
    assert_eq!(after(in_turn(), outlasted).0.parked, None);
    let (state, actions) = after(in_turn(), [nap(), Event::TurnEnded(Outcome::Interrupted)]);
    assert_eq!((state.nap, state.parked), (None, None));
    assert!(actions.contains(&Action::Clear(Timer::Nap)), "{actions:?}");
    // Nobody naps who is not in a turn.
    assert_eq!(decide(idle(), nap()).1, []);
}

#[test]
fn without_money_no_turn_is_taken_and_that_is_shown() {
    let broke = Event::Polled(PollResponse {
        over_budget: true,
        ..answer(3)
    });
    let (state, actions) = after(idle(), [broke]);
    assert_eq!((state.turn_state(), actions), (TurnState::OverBudget, vec![]));
    assert!(starts(&decide(state, waiting(3)).1));
}

#[test]
fn shortening_in_the_middle_of_a_turn_is_shown() {
    let (state, _) = after(in_turn(), [Event::Compacting(true)]);
    assert_eq!(state.turn_state(), TurnState::Compacting);
    let (state, _) = after(state, [Event::Compacting(false)]);
    assert_eq!(state.turn_state(), TurnState::Thinking);
}
