use shared::agent_api::{DeliveryState, SentMessage};
use shared::question::QuestionState;
use shared::reminder::{Missed, Schedule};
use shared::topic::Topic;

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + secs).expect("a time")
}

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn question(id: u64, body: &str) -> QuestionInfo {
    QuestionInfo {
        id,
        from: address("bob"),
        to: address("alice"),
        body: body.to_owned(),
        state: QuestionState::Open,
        asked_at: at(20),
        expires_at: Some(at(99)),
        default: None,
        ended_by: None,
        ended_at: None,
        answer: None,
    }
}

fn listing<T>(items: Vec<T>) -> Listing<T> {
    Listing {
        items,
        undecodable: Vec::new(),
    }
}

#[test]
fn each_says_whose_it_is_whom_it_waits_for_and_until_when_the_oldest_first() {
    let reminder = ReminderInfo {
        id: 3,
        owner: address("alice"),
        set_by: None,
        body: "water the plants".to_owned(),
        schedule: Schedule::At(at(50)),
        missed: Missed::Run,
        set_at: at(10),
        due: Some(at(50)),
        error: None,
    };
    let dead = DeadMessage {
        message: SentMessage {
            id: 4,
            from: Address::System,
            to: address("alice"),
            kind: MessageKind::System,
            topic: Some(Topic::Deployed),
            reply_to: None,
            at: at(30),
            body: "hello".to_owned(),
            state: DeliveryState::Dead,
            deliveries: 5,
        },
        reachable: true,
        readable: true,
    };
    let ends = view(Rows {
        questions: listing(vec![question(12, "red or blue?")]),
        reminders: listing(vec![reminder]),
        gates: Listing::default(),
        dead: vec![dead],
    });
    let shown: Vec<String> = ends
        .iter()
        .map(|end| {
            let waits = end
                .waits_for
                .as_ref()
                .map_or("time".to_owned(), ToString::to_string);
            format!("{} of {} waits for {waits}: {}", end.id, end.owner, end.about)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "reminder/3 of alice waits for time: water the plants",
            "question/12 of bob waits for alice: red or blue?",
            "message/4 of alice waits for operator: notice of system to alice: hello",
        ]
    );
    assert_eq!((ends[0].due, ends[1].due), (Some(at(50)), Some(at(99))));
}

#[test]
fn a_text_is_shown_by_its_beginning_in_one_line_that_is_safe_to_show() {
    let long = "é".repeat(1000);
    for (body, shown) in [
        ("\x1b[2J\u{202e}evil\nsecond", "\u{fffd}[2J\u{fffd}evil second"),
        ("  \n ", "(no text)"),
        (&long, &format!("{}…", "é".repeat(MAX_ABOUT))),
    ] {
        let rows = Rows {
            questions: listing(vec![question(1, body)]),
            ..Rows::default()
        };
        assert_eq!(view(rows)[0].about, shown);
    }
}
