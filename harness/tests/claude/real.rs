//! The real program.

use std::time::Duration;

use model_server::{Reply, Rule, Usage};
use serde_json::json;
use shared::status::TurnState;
use shared::turn::TurnResult;

use crate::bee::{Bee, about, file, gone, runs};
use crate::daemon::World;

fn reported(world: &World, state: TurnState) -> bool {
    world.reported(|report| report.turn == state)
}

#[tokio::test]
async fn an_agent_fetches_its_messages_acts_and_the_turn_is_acknowledged_and_told() {
    let mut bee = Bee::real(Bee::replies()).await;
    bee.config(&json!({ "prompt": "Keep the garden.", "operator": { "name": "Ada" } }));
    bee.start();
    bee.message("water the roses");
    let turns = bee.turns(1).await;
    let world = bee.nest.daemon.world();
    assert_eq!(world.bodies(), ["I heard you"]);
    let acks: Vec<_> = world.acks.iter().map(|ack| (ack.done, ack.received)).collect();
    assert_eq!(acks, [(true, Some(1))]);
    assert!(world.inbox.is_empty() && world.leased.is_empty());
    drop(world);

    let turn = &turns[0];
    assert_eq!((turn.result, turn.error.as_deref()), (TurnResult::Ok, None));
    assert_eq!(turn.tool_calls["mcp__hive__recv"], 1);
    assert_eq!(turn.tool_calls["mcp__hive__send"], 1);
    // Three requests of a hundred tokens read and ten written each, at a price nobody knows.
    assert_eq!((turn.tokens.fresh, turn.tokens.output), (300, 30), "{turn:?}");
    assert_eq!((turn.cost_usd, turn.context), (None, Some(110)), "{turn:?}");
    assert_eq!(turn.model.as_deref(), Some("made-up"));
    let log = bee.model.log();
    assert_eq!(log.len(), 3, "{log:?}");
    assert!(
        log[0].system.contains("Keep the garden.") && log[0].system.contains("Ada"),
        "{}",
        log[0].system
    );
    let tools = &log[0].tools;
    let own = tools.iter().all(|tool| tool.starts_with("mcp__hive__"));
    assert!(own, "no tool but those of the hive: {tools:?}");
    assert!(
        log.iter()
            .all(|asked| !asked.last.contains("water the roses") || asked.last.contains("from operator"))
    );
}

#[tokio::test]
async fn the_conversation_goes_on_after_a_restart_of_the_harness() {
    let mut bee = Bee::real(Bee::replies()).await;
    bee.start();
    bee.message("the first thing");
    let first = bee.turns(1).await;
    bee.kill().await;
    bee.start();
    bee.message("the second thing");
    let turns = bee.turns(2).await;
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
    assert_eq!(turns[1].session, first[0].session);
    assert!(turns[1].session.is_some());
    let log = bee.model.log();
    assert!(log[3].all.contains("the first thing"), "{}", log[3].all);
    // What was used before is not counted again.
    assert_eq!(turns[1].tokens.total(), turns[0].tokens.total());
}

#[tokio::test]
async fn a_new_conversation_begins_when_one_is_asked_for_and_only_then() {
    let mut bee = Bee::real(Bee::replies()).await;
    bee.start();
    bee.message("the first thing");
    bee.turns(1).await;
    bee.nest.daemon.change(|world| world.conversation = Some(1));
    for count in [2, 3] {
        bee.message("another thing");
        bee.turns(count).await;
    }
    let turns = bee.turns(3).await;
    assert_ne!(turns[1].session, turns[0].session);
    assert_eq!(turns[2].session, turns[1].session);
    assert!(!bee.model.log()[3].all.contains("the first thing"));
}

#[tokio::test]
async fn a_lost_conversation_is_told_loudly_and_a_new_one_begins() {
    let mut bee = Bee::real(Bee::replies()).await;
    bee.start();
    bee.message("the first thing");
    bee.turns(1).await;
    std::fs::remove_dir_all(bee.nest.path("state/claude/projects")).unwrap();
    bee.message("the second thing");
    let turns = bee.turns(2).await;
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
    assert_ne!(turns[1].session, turns[0].session);
    let error = turns[1].error.as_deref().unwrap();
    assert!(error.contains("of 1 turns is lost, a new one begins"), "{error}");
}

#[tokio::test]
async fn a_turn_that_is_cut_short_in_a_tool_leaves_nothing_running_and_gives_its_messages_back() {
    let mut bee = Bee::real(Vec::new()).await;
    let pid = bee.nest.path("pid");
    let command = format!("echo $$ > {pid}; sleep 1000");
    bee.model.script(about([runs(&command)]));
    bee.config(&json!({ "tools": { "allow": ["Bash"] } }));
    bee.cut_short(&pid).await;
    let given_back = |world: &World| world.acks.iter().any(|ack| !ack.done && ack.received == Some(1));
    bee.until("the message given back", given_back).await;
    let world = bee.nest.daemon.world();
    assert!(
        world
            .inbox
            .iter()
            .chain(world.leased.values().flatten())
            .all(|message| message.redelivered)
    );
}

#[tokio::test]
async fn a_turn_that_costs_more_than_it_may_is_ended_in_mid_turn_also_in_a_conversation_that_was_dear_before()
{
    let mut bee = Bee::real(Vec::new()).await;
    // Each request costs about five cents by the program's own list of prices.
    let dear = |rule: Rule| {
        let usage = Some(Usage {
            input: 1000,
            output: 100_000,
        });
        let reply = Reply { usage, ..rule.reply };
        Rule { reply, ..rule }
    };
    bee.model
        .script(vec![dear(Rule::tool("", "Bash", json!({ "command": "true" })))]);
    bee.config(&json!({ "driver": { "kind": "claude", "model": "haiku" }, "tools": { "allow": ["Bash"] } }));
    bee.nest.daemon.change(|world| world.limits.cost_usd = Some(0.12));
    bee.start();
    bee.message("work");
    // Its message is given back, and the next turn goes on with the same conversation.
    let turns = bee.turns(2).await;
    for turn in &turns[..2] {
        assert_eq!(turn.result, TurnResult::LimitReached, "{turn:?}");
        assert!(
            turn.cost_usd.is_some_and(|usd| usd > 0.12 && usd < 0.25),
            "{turn:?}"
        );
    }
    assert_eq!(turns[0].session, turns[1].session);
}

#[tokio::test]
async fn a_program_that_is_killed_in_mid_turn_has_its_messages_delivered_again() {
    let mut bee = Bee::real(Vec::new()).await;
    let pid = bee.nest.path("pid");
    let command = format!("echo $PPID > {pid}; sleep 1000");
    bee.model.script(about([runs(&command).times(1)]));
    bee.config(&json!({ "tools": { "allow": ["Bash"] } }));
    bee.start();
    bee.message("work");
    let pid = file(&pid).await;
    let program = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(program, rustix::process::Signal::KILL).unwrap();
    let turns = bee.turns(2).await;
    assert_eq!(
        (turns[0].result, turns[1].result),
        (TurnResult::Crashed, TurnResult::Ok)
    );
    let error = turns[0].error.as_deref().unwrap();
    assert!(error.contains("killed by signal 9"), "{error}");
    assert_eq!(turns[1].session, turns[0].session);
    assert_eq!(bee.nest.daemon.world().dones(), [false, true]);
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_its_tool_and_its_messages_are_delivered_again() {
    let mut bee = Bee::real(Vec::new()).await;
    let pids = bee.nest.path("pids");
    let command = format!("echo $PPID $$ > {pids}; sleep 1000");
    bee.model.script(vec![
        Rule::tool("You have messages", "mcp__hive__recv", json!({})),
        Rule::tool("from operator", "Bash", json!({ "command": command })).times(1),
        Rule::text("", "done"),
    ]);
    // Long enough for the program to begin on a busy machine.
    bee.silence = Duration::from_secs(10);
    bee.config(&json!({ "tools": { "allow": ["Bash"] } }));
    bee.start();
    bee.message("work");
    let pids = file(&pids).await;
    let (program, tool) = pids.split_once(' ').unwrap();
    // A stopped process says nothing and heeds neither SIGINT nor SIGTERM.
    let stopped = rustix::process::Pid::from_raw(program.parse().unwrap()).unwrap();
    rustix::process::kill_process(stopped, rustix::process::Signal::STOP).unwrap();
    let turns = bee.turns(2).await;
    assert_eq!(
        (turns[0].result, turns[1].result),
        (TurnResult::Hung, TurnResult::Ok),
        "{turns:?}"
    );
    assert_eq!(turns[1].session, turns[0].session);
    for pid in [program, tool] {
        gone(pid).await;
    }
    let world = bee.nest.daemon.world();
    assert_eq!(world.dones(), [false, true]);
    assert!(world.inbox.is_empty() && world.leased.is_empty());
}

#[tokio::test]
async fn a_process_in_the_background_holds_up_no_turn() {
    let mut bee = Bee::real(Vec::new()).await;
    let pid = bee.nest.path("pid");
    let command = format!("setsid sleep 1000 > /dev/null 2>&1 & echo $! > {pid}");
    bee.model.script(about([runs(&command)]));
    bee.config(&json!({ "tools": { "allow": ["Bash"] } }));
    bee.start();
    bee.message("start the server");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    let pid = file(&pid).await;
    assert!(
        std::fs::exists(format!("/proc/{pid}")).unwrap(),
        "what an agent left on purpose goes on"
    );
    // It is a process of the agent all the same, and known as one.
    harness::leftovers::kill_marked("HIVE_TURN", &turns[0].turn.to_string()).unwrap();
    gone(&pid).await;
}

#[tokio::test]
async fn without_a_valid_login_the_agent_waits_and_its_messages_stay() {
    let rule = Rule::error("", 401, "authentication_error", "invalid x-api-key");
    let mut bee = Bee::real(vec![rule]).await;
    bee.start();
    bee.message("work");
    bee.until("needs login", |world| reported(world, TurnState::NeedsLogin))
        .await;
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Auth, "{turns:?}");
    {
        let world = bee.nest.daemon.world();
        assert_eq!((world.acks[0].done, world.acks[0].received), (false, Some(0)));
        assert!(
            world.inbox.len() == 1 && !world.inbox[0].redelivered,
            "{:?}",
            world.inbox
        );
        assert!(
            world
                .report()
                .turn_error
                .as_deref()
                .unwrap()
                .starts_with("needs login: ")
        );
    }
    // Another message changes nothing.
    bee.message("work more");
    assert!(
        bee.nest
            .daemon
            .never(Duration::from_secs(1), |world| world.turns.len() > 1)
            .await
    );
    // Another model is something new to try with.
    bee.model.script(Bee::replies());
    bee.nest
        .daemon
        .change(|world| world.model = Some("another".to_owned()));
    let turns = bee.turns(2).await;
    assert_eq!(
        (turns[1].result, turns[1].model.as_deref()),
        (TurnResult::Ok, Some("another"))
    );
    bee.until("idle", |world| {
        reported(world, TurnState::Idle) && world.report().turn_error.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_new_login_ends_the_wait_for_one() {
    let mut bee = Bee::real(vec![Rule::error("", 401, "authentication_error", "expired")]).await;
    // A look each second.
    bee.minute = Duration::from_secs(4);
    bee.start();
    bee.message("work");
    bee.until("needs login", |world| reported(world, TurnState::NeedsLogin))
        .await;
    bee.model.script(Bee::replies());
    // The first look is at the old one.
    assert!(
        bee.nest
            .daemon
            .never(Duration::from_millis(500), |world| world.turns.len() > 1)
            .await
    );
    std::fs::write(bee.nest.path("state/claude/.credentials.json"), "{}").unwrap();
    let turns = bee.turns(2).await;
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
}

#[tokio::test]
async fn a_limit_and_an_overload_are_waited_for_and_then_the_turn_goes_well() {
    let table = [
        (429, "rate_limit_error", TurnResult::RateLimited),
        (529, "overloaded_error", TurnResult::Overloaded),
    ];
    for (status, kind, expected) in table {
        let mut rules = vec![Rule::error("", status, kind, "not now").times(10)];
        rules.extend(Bee::replies());
        let mut bee = Bee::real(rules).await;
        // A pause of a minute takes three seconds.
        bee.minute = Duration::from_secs(3);
        bee.config(&json!({ "maxTurnMinutes": 1000 }));
        bee.start();
        bee.message("work");
        bee.until("waiting", |world| reported(world, TurnState::RateLimited))
            .await;
        let turns = bee.turns(1).await;
        assert_eq!(turns[0].result, expected, "{turns:?}");
        assert_eq!(turns[0].tokens.total(), 0, "{turns:?}");
        bee.model.script(Bee::replies());
        let turns = bee.turns(2).await;
        assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
        assert!(bee.nest.daemon.world().inbox.is_empty());
    }
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_shortened_and_the_turn_tried_again() {
    let mut bee = Bee::real(Bee::replies()).await;
    bee.start();
    bee.message("the first thing");
    bee.turns(1).await;
    // The program's own way out fails too.
    let too_long = || {
        Rule::error(
            "",
            400,
            "invalid_request_error",
            "prompt is too long: 250000 tokens > 200000 maximum",
        )
    };
    bee.model.script(vec![too_long()]);
    bee.message("the second thing");
    bee.turns(2).await;
    let mut rules = vec![Rule::text(
        "CRITICAL: Respond with TEXT ONLY",
        "<summary>We talked.</summary>",
    )];
    rules.extend(Bee::replies());
    bee.model.script(rules);
    bee.until("the message dealt with", |world| {
        world.inbox.is_empty() && world.dones().last() == Some(&true)
    })
    .await;
    let turns = bee.turns(4).await;
    let results: Vec<_> = turns.iter().map(|turn| turn.result).collect();
    assert_eq!(results[1], TurnResult::ContextFull, "{turns:?}");
    assert_eq!(turns[2].woken_by, ["compaction"], "{turns:?}");
    let compacting = bee
        .nest
        .daemon
        .world()
        .reports
        .iter()
        .any(|report| report.turn == TurnState::Compacting);
    assert!(compacting, "it was shown");
}

#[tokio::test]
async fn a_conversation_that_takes_most_of_the_window_is_shortened_after_the_turn() {
    let mut rules = vec![Rule::text(
        "CRITICAL: Respond with TEXT ONLY",
        "<summary>We talked.</summary>",
    )];
    rules.extend(Bee::replies());
    let last = rules.pop().unwrap();
    let large = Usage {
        // Of a million, which the program takes for the window of a model it does not know.
        input: 850_000,
        output: 10,
    };
    rules.push(last.with(|reply| reply.usage = Some(large)));
    let mut bee = Bee::real(rules).await;
    bee.start();
    bee.message("work");
    let turns = bee.turns(2).await;
    assert_eq!(turns[0].context, Some(850_010), "{turns:?}");
    assert_eq!(
        (turns[1].result, turns[1].woken_by.as_slice()),
        (TurnResult::Ok, ["compaction".to_owned()].as_slice())
    );
    assert_eq!(turns[1].session, turns[0].session);
    bee.until("idle", |world| reported(world, TurnState::Idle)).await;
    assert!(
        bee.nest
            .daemon
            .never(Duration::from_millis(500), |world| world.turns.len() > 2)
            .await
    );
}

#[tokio::test]
async fn an_agent_that_does_not_fetch_its_messages_is_not_run_in_a_loop() {
    let mut bee = Bee::real(vec![Rule::text("", "I would rather not.")]).await;
    bee.start();
    bee.message("work");
    bee.until("parked", |world| {
        world.reported(|report| report.turn_error.is_some())
    })
    .await;
    bee.turns(2).await;
    assert!(
        bee.nest
            .daemon
            .never(Duration::from_secs(1), |world| world.turns.len() > 2)
            .await
    );
    assert_eq!(bee.model.log().len(), 2, "two turns of one request");
    bee.model.script(Bee::replies());
    bee.message("please");
    let turns = bee.turns(3).await;
    assert_eq!(turns[2].result, TurnResult::Ok);
    bee.until("all dealt with", |world| world.inbox.is_empty()).await;
}

#[tokio::test]
async fn the_limit_of_a_subscription_is_waited_for_until_its_reset() {
    let reset = harness::clock::now().as_second() + 3000;
    let limit = Rule::error("", 429, "rate_limit_error", "limit reached").with(|reply| {
        let headers = [
            ("anthropic-ratelimit-unified-status", "rejected".to_owned()),
            ("anthropic-ratelimit-unified-reset", reset.to_string()),
            (
                "anthropic-ratelimit-unified-representative-claim",
                "five_hour".to_owned(),
            ),
        ];
        reply.headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
    });
    let mut bee = Bee::real(vec![limit]).await;
    bee.more_environment = vec![("CLAUDE_CODE_OAUTH_TOKEN", "made-up-token".into())];
    // Fifty minutes take five seconds, but a pause that only grows would take a tenth of one.
    bee.minute = Duration::from_millis(100);
    bee.config(&json!({ "maxTurnMinutes": 10000 }));
    bee.start();
    bee.message("work");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::RateLimited, "{turns:?}");
    bee.model.script(Bee::replies());
    assert!(
        bee.nest
            .daemon
            .never(Duration::from_secs(2), |world| world.turns.len() > 1)
            .await
    );
    let turns = bee.turns(2).await;
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
    assert_eq!(bee.model.log()[0].key.as_deref(), Some("Bearer made-up-token"));
}

#[tokio::test]
async fn a_declared_server_gets_what_was_declared_and_nothing_of_our_environment_in_its_place() {
    let mut bee = Bee::real(Bee::replies()).await;
    let seen = bee.nest.path("seen");
    let note = format!(
        "printf '%s %s\\n' \"$1\" \"$DECLARED\" > {seen}; exec sh {}/tests/mcp-server.sh",
        env!("CARGO_MANIFEST_DIR")
    );
    bee.config(&json!({ "mcpServers": { "nosy": {
        "command": "sh",
        "args": ["-c", note, "sh", "${ANTHROPIC_API_KEY}"],
        "env": { "DECLARED": "a ${HOME} b" },
    } } }));
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Ok, "{turn:?}");
    assert_eq!(file(&seen).await, "${ANTHROPIC_API_KEY} a ${HOME} b");
    let tools = &bee.model.log()[0].tools;
    assert!(tools.iter().any(|tool| tool == "mcp__nosy__look"), "{tools:?}");
}
