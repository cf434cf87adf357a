//! Programs that misbehave.

use std::time::Duration;

use harness::control::Said;
use shared::status::TurnState;
use shared::turn::TurnResult;

use crate::bee::{Bee, gone};

#[tokio::test]
async fn a_program_that_says_nothing_is_ended_and_the_turn_counts_as_hung() {
    let mut bee =
        Bee::fake("init; trap '' INT TERM; sleep 1000 & echo $! > pid; wait; wait; sleep 1000").await;
    bee.silence = Duration::from_millis(500);
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Hung, "{turn:?}");
    gone(&bee.pid().await).await;
}

#[tokio::test]
async fn garbage_and_huge_lines_harm_nothing() {
    let noise = "echo 'not JSON'; echo '{\"type\":\"telepathy\"}'; echo '[]'; echo; printf '\\377\\376\\n'; \
                 echo '{\"type\":\"assistant\",\"message\":3}'; \
                 head -c 9000000 /dev/zero | tr '\\0' x; echo; head -c 100000 /dev/zero; echo";
    let mut bee = Bee::fake(&format!("{noise}; init; {noise}; result false done")).await;
    let turn = bee.first_turn().await;
    assert_eq!((turn.result, turn.error.as_deref()), (TurnResult::Ok, None));
}

#[tokio::test]
async fn of_two_results_the_last_counts() {
    let mut bee = Bee::fake("init; result false done; init; result true 'it broke'; exit 0").await;
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Crashed);
    assert_eq!(turn.error.as_deref(), Some("it broke"));
}

#[tokio::test]
async fn an_exit_status_of_success_without_a_result_is_a_crash_and_one_of_failure_after_it_is_none() {
    let table = [
        ("init; exit 0", TurnResult::Crashed),
        ("init; echo oops >&2; exit 3", TurnResult::Crashed),
        ("echo oops >&2; exit 1", TurnResult::Crashed),
        ("init; kill -SEGV $$", TurnResult::Crashed),
        ("init; result false done; exit 9", TurnResult::Ok),
        ("init; result false done; kill -SEGV $$", TurnResult::Ok),
    ];
    for (script, expected) in table {
        let mut bee = Bee::fake(script).await;
        let turn = bee.first_turn().await;
        assert_eq!(turn.result, expected, "{script}: {turn:?}");
        let oops = turn
            .error
            .as_ref()
            .is_some_and(|error| error.ends_with("it wrote: oops"));
        assert_eq!(oops, script.contains("oops"), "{turn:?}");
    }
}

#[tokio::test]
async fn a_program_that_lingers_after_its_result_is_ended_and_the_turn_went_well() {
    let mut bee = Bee::fake(
        "init; result false done; echo '{\"type\":\"system\",\"subtype\":\"task_updated\"}'; sleep 1000 & echo $! > pid; wait",
    )
    .await;
    bee.grace = Duration::from_millis(300);
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Ok, "{turn:?}");
    gone(&bee.pid().await).await;
}

#[tokio::test]
async fn a_process_that_holds_the_programs_output_open_holds_up_no_turn() {
    let mut bee = Bee::fake("init; result false done; sleep 1000 & echo $! > pid; exit 0").await;
    bee.start();
    bee.message("work");
    let begun = std::time::Instant::now();
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let turn = turns[0].turn.to_string();
    let pid = bee.pid().await;
    harness::leftovers::kill_marked("HIVE_TURN", &turn).unwrap();
    gone(&pid).await;
}

#[tokio::test]
async fn a_program_that_goes_on_after_a_result_is_not_cut_short() {
    let mut bee = Bee::fake("init; result false one; init; sleep 1; result false two").await;
    bee.grace = Duration::from_millis(200);
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Ok, "{turn:?}");
    assert!(turn.duration_ms >= 900, "{turn:?}");
}

#[tokio::test]
async fn another_conversation_than_the_one_it_was_told_is_stopped_at_once_and_not_kept() {
    let mut bee = Bee::fake("echo \"$how $session\" >> asked; session=another; init; sleep 1000").await;
    bee.start();
    bee.message("work");
    let turns = bee.turns(2).await;
    assert_eq!(turns[0].result, TurnResult::Crashed, "{turns:?}");
    let error = turns[0].error.as_deref().unwrap();
    assert!(
        error.contains("it runs the conversation another, not "),
        "{error}"
    );
    let asked = std::fs::read_to_string(bee.nest.path("state/asked")).unwrap();
    let mut asked = asked.lines();
    let first = asked.next().unwrap();
    assert!(first.starts_with("--session-id "), "{first}");
    assert_eq!(asked.next(), Some(first), "no other takes its place");
}

#[tokio::test]
async fn a_turn_of_a_harness_that_was_killed_is_ended_before_the_next_begins() {
    let mut bee =
        Bee::fake("init; setsid sleep 1000 > /dev/null 2>&1 & echo $! > pid; exec sleep 1000").await;
    bee.start();
    bee.message("work");
    let pid = bee.pid().await;
    bee.kill().await;
    assert!(
        std::fs::exists(format!("/proc/{pid}")).unwrap(),
        "nobody was there to end it"
    );
    bee.start();
    gone(&pid).await;
}

#[tokio::test]
async fn a_waiting_agent_is_not_silent() {
    let mut bee = Bee::fake("init; sleep 2; result false done").await;
    bee.silence = Duration::from_millis(500);
    bee.start();
    bee.message("work");
    bee.until("a lease", |world| world.reported(|report| report.lease.is_some()))
        .await;
    let turn = bee.nest.daemon.world().report().lease.unwrap();
    bee.say(&Said::Waiting { turn, waits: true }).await;
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
}

#[tokio::test]
async fn a_daemon_that_does_not_want_to_know_what_turns_were_is_fine() {
    let mut bee = Bee::fake("init; result false done").await;
    bee.nest.daemon.change(|world| world.no_turns = true);
    bee.start();
    bee.message("work");
    bee.until("two turns settled", |world| world.acks.len() == 2)
        .await;
    assert!(bee.nest.daemon.world().turns.is_empty());
}

#[tokio::test]
async fn being_told_to_end_interrupts_the_turn_and_ends_what_it_started() {
    let bee = Bee::fake("init; setsid sleep 1000 > /dev/null 2>&1 & echo $! > pid; exec sleep 1000").await;
    let program = bee.nest.path("claude");
    let harness = bee.nest.start_with(&["--claude", program.as_str()]);
    bee.message("work");
    let pid = bee.pid().await;
    let (status, log) = harness.terminated().await;
    assert!(status.success(), "{log}");
    gone(&pid).await;
    let world = bee.nest.daemon.world();
    assert_eq!((world.dones(), world.turns.len()), (vec![false], 1), "{log}");
    assert_eq!(world.turns[0].result, TurnResult::Interrupted);
}

#[tokio::test]
async fn the_program_can_be_named_by_a_variable() {
    let bee = Bee::fake("init; result false done").await;
    let mut command = tokio::process::Command::new("sh");
    command
        .args([
            "-c",
            "HIVE_CLAUDE=$1; export HIVE_CLAUDE; shift; exec \"$@\"",
            "sh",
        ])
        .arg(bee.nest.path("claude"))
        .arg(crate::world::PROGRAM)
        .args(bee.nest.args());
    let _harness = crate::world::Harness::start(command);
    bee.message("work");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
}

#[tokio::test]
async fn an_agent_that_asked_for_a_nap_sleeps_until_its_time_or_a_message() {
    let mut bee = Bee::fake("init; while [ ! -e go ]; do sleep 0.05; done; result false done").await;
    bee.start();
    bee.message("work");
    bee.until("a lease", |world| world.reported(|report| report.lease.is_some()))
        .await;
    // As the turn's MCP server does.
    let turn = bee.nest.daemon.change(|world| {
        let turn = world.report().lease.unwrap();
        let messages = std::mem::take(&mut world.inbox);
        world.leased.insert(turn, messages);
        turn
    });
    let received = Said::Received {
        turn,
        batch: 1,
        messages: 1,
    };
    let nap = Said::Nap {
        until: "2100-01-01T00:00:00Z".parse().unwrap(),
        wake_on_message: true,
    };
    for said in [received, nap] {
        bee.say(&said).await;
    }
    std::fs::write(bee.nest.path("state/go"), "").unwrap();
    bee.until("a nap", |world| {
        world.reported(|report| report.turn == TurnState::Napping)
    })
    .await;
    bee.message("wake up");
    bee.turns(2).await;
}

#[tokio::test]
async fn an_agent_whose_notes_are_too_large_is_asked_once_to_tidy_them_up() {
    let mut bee = Bee::fake("cat >> prompts; echo >> prompts; init; result false done").await;
    let notes = bee.nest.path("state/notes");
    std::fs::create_dir_all(&notes).unwrap();
    let grow = |size| {
        let file = std::fs::File::create(notes.join("all.md")).unwrap();
        file.set_len(size).unwrap();
    };
    grow(300 * 1024);
    bee.start();
    // Nobody fetches the message: it wakes two turns.
    bee.message("work");
    let turns = bee.turns(2).await;
    assert_eq!(turns[1].notes_bytes, Some(300 * 1024));
    grow(400 * 1024);
    bee.message("more work");
    bee.turns(3).await;
    let prompts = std::fs::read_to_string(bee.nest.path("state/prompts")).unwrap();
    let asked: Vec<bool> = prompts
        .lines()
        .map(|line| line.contains("tidy them up"))
        .collect();
    assert_eq!(asked[..3], [true, false, true], "{prompts}");
}
