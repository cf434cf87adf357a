//! What the harness reads: scripts, its config, the daemon's answers, an MCP server's words; and any sequence of events
//! for the turn loop. The first byte chooses.
#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use harness::mcp_probe::{MAX_TOOL_NAME, MAX_TOOLS, list_tools};
use harness::turn::{Action, Event, InForce, Outcome, Phase, Purpose, Refusal, State, Timer, decide};
use libfuzzer_sys::fuzz_target;
use shared::agent_api::{PollResponse, ProposalInfo, RecvResponse, SendResponse};
use shared::config::{ConfigFile, Overlay};
use shared::instruction::{Instruction, InstructionKind};
use shared::spec::ScriptRule;

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
    );
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    match kind {
        b'j' => documents(rest),
        b'm' => server(rest),
        b't' => turns(rest),
        _ => {}
    }
});

fn documents(bytes: &[u8]) {
    fn read<T: serde::de::DeserializeOwned + serde::Serialize>(bytes: &[u8]) {
        if let Ok(value) = serde_json::from_slice::<T>(bytes) {
            let text = serde_json::to_vec(&value).expect("what was read can be written");
            serde_json::from_slice::<T>(&text).expect("what was written can be read");
        }
    }
    read::<Vec<ScriptRule>>(bytes);
    read::<ConfigFile>(bytes);
    read::<Overlay>(bytes);
    read::<PollResponse>(bytes);
    read::<RecvResponse>(bytes);
    read::<SendResponse>(bytes);
    read::<ProposalInfo>(bytes);
}

/// A server that says this, whatever it is asked.
fn server(bytes: &[u8]) {
    let output = std::io::Cursor::new(bytes.to_vec());
    let listed = RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let listed = list_tools(tokio::io::sink(), output);
            tokio::time::timeout(Duration::from_secs(5), listed)
                .await
                .expect("it hangs at the end of the input")
        })
    });
    let Ok(tools) = listed else { return };
    assert!(tools.names.len() <= MAX_TOOLS);
    for tool in tools.names {
        assert!(tool.chars().count() <= MAX_TOOL_NAME + 1 && !tool.contains(char::is_control));
    }
}

/// Two bytes are one event.
fn turns(bytes: &[u8]) {
    let mut state = State::starting();
    let mut in_turn = false;
    let mut exits = 0;
    for pair in bytes.chunks_exact(2) {
        let event = event(pair[0], pair[1]);
        let over = matches!(event, Event::TurnEnded(_));
        let before = state.clone();
        let (after, actions) = decide(state, event);
        state = after;
        if over {
            in_turn = false;
        }
        for action in &actions {
            assert!(before.phase != Phase::Ended, "something happens after the end");
            match action {
                Action::StartTurn | Action::Compact => {
                    assert!(!in_turn, "two turns at once");
                    assert!(!state.stopping, "a turn begins although the end was asked for");
                    assert!(!state.announced.paused, "a turn begins in a pause");
                    assert!(!state.announced.over_budget, "a turn begins without money");
                    if *action == Action::StartTurn {
                        assert_eq!((state.purpose, state.parked), (Purpose::Messages, None));
                        assert!(state.waited > 0, "a turn begins without a message");
                    }
                    assert!(
                        state
                            .config
                            .as_ref()
                            .is_some_and(|config| config.unusable.is_none())
                    );
                    in_turn = true;
                }
                Action::Exit(_) => exits += 1,
                Action::Load
                | Action::CheckLogin
                | Action::Interrupt(_)
                | Action::Set(..)
                | Action::Clear(_) => {}
            }
        }
        assert!(exits <= 1, "it ends twice");
        assert_eq!(exits == 1, state.phase == Phase::Ended);
        state.turn_state();
        state.config_error();
    }
}

/// At most one, with a number that grows or was seen before.
fn instructions(with: u8) -> Vec<Instruction> {
    let kind = match with % 16 {
        1 => InstructionKind::Cancel,
        2 => InstructionKind::Compact,
        3 => InstructionKind::Nap,
        4 => InstructionKind::Wake,
        5 => InstructionKind::NewConversation,
        6 => InstructionKind::Unknown,
        _ => return Vec::new(),
    };
    vec![Instruction {
        id: u64::from(with / 16),
        kind,
        turn: None,
        until: None,
        wake_on_message: with >= 128,
    }]
}

fn event(kind: u8, with: u8) -> Event {
    let digest = |n: u8| {
        format!("config1-{}", format!("{:x}", n % 4).repeat(64))
            .parse()
            .expect("a digest")
    };
    match kind % 13 {
        0 => Event::Loaded(InForce {
            digest: digest(with),
            max_turn: Duration::from_secs(u64::from(with)),
            unusable: (with >= 192).then(|| "broken".to_owned()),
        }),
        1 => Event::LoadFailed("broken".to_owned()),
        2 => Event::Polled(PollResponse {
            inbox: u64::from(with % 3),
            config: (with >= 32).then(|| digest(with)),
            paused: with >= 192,
            model: None,
            over_budget: with % 16 == 15,
            instructions: instructions(with),
            conversation: (with % 8 == 7).then_some(1),
            login: None,
        }),
        3 => Event::Leased,
        4 => Event::DriverEnded,
        5 => Event::TurnEnded(match with % 10 {
            0 => Outcome::Nothing,
            1 => Outcome::Completed,
            2 => Outcome::Interrupted,
            3 => Outcome::Failed("failed".to_owned()),
            4 => Outcome::Exit(with),
            kind => Outcome::Refused {
                why: match kind {
                    5 => Refusal::Login,
                    6 => Refusal::RateLimited((with > 127).then(|| Duration::from_secs(u64::MAX))),
                    7 => Refusal::Overloaded,
                    8 => Refusal::Billing,
                    _ => Refusal::ContextFull,
                },
                error: "refused".to_owned(),
            },
        }),
        6 => Event::Elapsed(match with % 8 {
            0 => Timer::Rest,
            1 => Timer::Reload,
            2 => Timer::MaxTurn,
            3 => Timer::StopGrace,
            4 => Timer::Abandon,
            5 => Timer::Parked,
            6 => Timer::Login,
            _ => Timer::Nap,
        }),
        7 => Event::TakenUp(usize::from(with)),
        8 => Event::Compacting(with > 127),
        9 => Event::Context {
            tokens: u64::from(with) << (with % 64),
            window: u64::from(with / 2),
        },
        10 => Event::Nap {
            length: Duration::from_secs(u64::from(with)),
            wake_on_message: with > 127,
        },
        11 => Event::LoginChanged,
        _ => Event::StopAsked,
    }
}
