//! The driver `acp`: with a real agent program and a made-up provider, and with programs that misbehave.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use model_server::{Asked, Rule};
use serde_json::{Value, json};
use shared::status::TurnState;
use shared::turn::TurnResult;

use crate::bee::{Bee, about, gone, real_program, runs};

/// A shell script that answers as a well-behaved program does; `$1` is the conversation.
const PRELUDE: &str = r#"#!/bin/sh
next() { IFS= read -r line || exit 7; id=${line#*\"id\":}; id=${id%%[,\}]*}; }
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$1" "$2"; }
update() { printf '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"%s","update":%s}}\n' "$1" "$2"; }
greet() { next; answer "$id" '{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}'; next; }
hello() { greet; answer "$id" "{\"sessionId\":\"$1\"}"; next; prompt=$id; }
finish() { answer "$prompt" '{"stopReason":"end_turn","usage":{"inputTokens":100,"outputTokens":7}}'; }
"#;

fn write(path: &Utf8Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn driver(bee: &Bee, more: &Value) {
    let program = bee.nest.path("agent");
    let mut fields = json!({ "driver": { "kind": "acp", "command": program } });
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    bee.config(&fields);
}

/// An agent whose program is this shell script.
pub(crate) async fn fake(script: &str) -> Bee {
    let bee = Bee::fake("exit 1").await;
    write(&bee.nest.path("agent"), &format!("{PRELUDE}\n{script}\n"));
    driver(&bee, &json!({}));
    bee
}

/// An agent with `claude-agent-acp`, which runs the real Claude Code.
async fn real(rules: Vec<Rule>) -> Bee {
    let bee = Bee::real(rules).await;
    let adapter = Utf8Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../checks/acp/node_modules/@agentclientprotocol/claude-agent-acp/dist/index.js");
    assert!(
        adapter.is_file(),
        "{adapter} is not there: run `npm ci --ignore-scripts` in checks/acp (`cargo xtask test` does)"
    );
    let claude: Utf8PathBuf = real_program();
    let script = format!("#!/bin/sh\nexport CLAUDE_CODE_EXECUTABLE={claude}\nexec node {adapter}\n");
    write(&bee.nest.path("agent"), &script);
    driver(&bee, &json!({}));
    bee
}

/// What was asked for the turns; the program also asks for a title of the conversation, at any time and without tools.
fn asked(bee: &Bee) -> Vec<Asked> {
    let mut log = bee.model.log();
    log.retain(|asked| !asked.tools.is_empty());
    log
}

fn reported(bee: &Bee, state: TurnState) -> bool {
    bee.nest.daemon.world().reported(|report| report.turn == state)
}

#[tokio::test]
async fn an_agent_fetches_its_messages_acts_and_goes_on_after_a_restart() {
    let mut bee = real(Bee::replies()).await;
    driver(
        &bee,
        &json!({ "prompt": "Keep the garden.", "operator": { "name": "Ada" } }),
    );
    bee.start();
    bee.message("water the roses");
    let turns = bee.turns(1).await;
    assert_eq!(
        (turns[0].result, turns[0].error.as_deref()),
        (TurnResult::Ok, None),
        "{turns:?}"
    );
    assert_eq!(bee.nest.daemon.world().bodies(), ["I heard you"]);
    assert_eq!(bee.nest.daemon.world().dones(), [true]);
    assert_eq!(
        (
            turns[0].tool_calls["mcp__hive__recv"],
            turns[0].tool_calls["mcp__hive__send"]
        ),
        (1, 1)
    );
    // Three requests of a hundred tokens read and ten written each.
    assert_eq!(
        (turns[0].tokens.fresh, turns[0].tokens.output),
        (300, 30),
        "{turns:?}"
    );
    assert_eq!(
        (turns[0].cost_usd, turns[0].context),
        (None, Some(110)),
        "{turns:?}"
    );
    let log = asked(&bee);
    assert!(
        log[0].all.contains("Keep the garden.") && log[0].all.contains("Ada"),
        "{}",
        log[0].all
    );
    let own = log[0].tools.iter().all(|tool| tool.starts_with("mcp__hive__"));
    assert!(own, "no tool but those of the hive: {:?}", log[0].tools);

    bee.kill().await;
    bee.start();
    bee.message("and the tulips");
    let turns = bee.turns(2).await;
    assert_eq!(
        (turns[1].result, turns[1].session.clone()),
        (TurnResult::Ok, turns[0].session.clone())
    );
    assert!(
        bee.model
            .log()
            .iter()
            .any(|asked| asked.last.contains("from operator")
                && asked.all.contains("water the roses")
                && asked.all.contains("tulips"))
    );
    assert_eq!(
        turns[1].tokens.total(),
        turns[0].tokens.total(),
        "what was used before is not counted again"
    );
}

#[tokio::test]
async fn what_the_program_asks_is_answered_by_the_rules() {
    let mut bee = real(Vec::new()).await;
    let (made, not) = (bee.nest.path("made"), bee.nest.path("not"));
    let then = json!({ "command": format!("mkdir {not}") });
    bee.model.script(about([
        runs(&format!("touch {made}")).times(1),
        Rule::tool("Bash completed", "Bash", then).times(1),
    ]));
    driver(&bee, &json!({ "tools": { "allow": ["Bash(touch *)"] } }));
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Ok, "{turn:?}");
    assert!(made.exists() && !not.exists());
    let refused = asked(&bee)
        .iter()
        .any(|asked| asked.last.contains("refused permission"));
    assert!(refused, "it was tried");
    assert_eq!(
        asked(&bee)[0]
            .tools
            .iter()
            .filter(|tool| !tool.starts_with("mcp__"))
            .collect::<Vec<_>>(),
        ["Bash"]
    );
}

#[tokio::test]
async fn a_missing_login_is_waited_for_and_a_lost_conversation_told() {
    let mut bee = real(vec![Rule::error(
        "",
        401,
        "authentication_error",
        "invalid x-api-key",
    )])
    .await;
    bee.start();
    bee.message("work");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Auth, "{turns:?}");
    bee.until("needs login", |world| {
        world.reported(|report| report.turn == TurnState::NeedsLogin)
    })
    .await;
    assert!(reported(&bee, TurnState::NeedsLogin));

    bee.model.script(Bee::replies());
    std::fs::remove_dir_all(bee.nest.path("state/claude/projects")).unwrap();
    driver(&bee, &json!({ "prompt": "Try again." }));
    let turns = bee.turns(2).await;
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
    assert!(
        turns[1]
            .error
            .as_deref()
            .unwrap()
            .contains("is lost, a new one begins"),
        "{turns:?}"
    );
}

#[tokio::test]
async fn a_turn_that_is_cut_short_is_cancelled_and_leaves_nothing_running() {
    let mut bee = real(Vec::new()).await;
    let pid = bee.nest.path("pid");
    bee.model
        .script(about([runs(&format!("echo $$ > {pid}; sleep 1000"))]));
    driver(&bee, &json!({ "tools": { "allow": ["Bash"] } }));
    bee.cut_short(&pid).await;
}

#[tokio::test]
async fn garbage_huge_lines_and_answers_to_nothing_harm_nothing() {
    let noise = "echo 'not JSON'; echo '{}'; echo; printf '\\377\\376\\n'; echo '{\"id\":99,\"result\":1}'; \
                 echo '{\"id\":{},\"method\":7}'; head -c 9000000 /dev/zero | tr '\\0' x; echo; \
                 head -c 100000 /dev/zero; echo";
    let mut bee = fake(&format!("{noise}; hello s1; {noise}; finish; {noise}")).await;
    let turn = bee.first_turn().await;
    assert_eq!(
        (turn.result, turn.error.as_deref()),
        (TurnResult::Ok, None),
        "{turn:?}"
    );
    assert_eq!((turn.session.as_deref(), turn.tokens.total()), (Some("s1"), 107));
}

#[tokio::test]
async fn a_program_that_ends_too_early_or_speaks_otherwise_fails_the_turn_in_words() {
    let table = [
        (
            "echo oops >&2; exit 3",
            TurnResult::Crashed,
            "ended with status 3 before the end of the turn; it wrote: oops",
        ),
        (
            "hello s1; exit 0",
            TurnResult::Crashed,
            "ended with status 0 before",
        ),
        (
            "hello s1; kill -SEGV $$",
            TurnResult::Crashed,
            "was killed by signal 11",
        ),
        (
            "next; answer 1 '{\"protocolVersion\":9}'; next",
            TurnResult::Crashed,
            "speaks version 9",
        ),
        (
            "greet; answer $id '{}'; next",
            TurnResult::Crashed,
            "without a usable id",
        ),
        (
            "hello s1; update s2 '{}'; sleep 1000",
            TurnResult::Crashed,
            "it runs the conversation s2, not s1",
        ),
        (
            "hello s1; printf '{\"id\":3,\"error\":{\"code\":-32603,\"message\":\"429 later\"}}\\n'; next",
            TurnResult::RateLimited,
            "429 later",
        ),
    ];
    for (script, result, words) in table {
        let mut bee = fake(script).await;
        bee.grace = Duration::from_millis(200);
        let turn = bee.first_turn().await;
        assert_eq!(turn.result, result, "{script}: {turn:?}");
        let error = turn.error.as_deref().unwrap_or_default();
        assert!(error.contains(words), "{script}: {error}");
    }
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_all_it_started() {
    for script in [
        "hello s1; trap '' INT TERM; sleep 1000 & echo $! > pid; wait; wait; sleep 1000",
        "sleep 1000 & echo $! > pid; wait",
    ] {
        let mut bee = fake(script).await;
        bee.silence = Duration::from_millis(500);
        let turn = bee.first_turn().await;
        assert_eq!(turn.result, TurnResult::Hung, "{turn:?}");
        gone(&bee.pid().await).await;
    }
}

#[tokio::test]
async fn a_program_that_lingers_after_its_answer_is_ended_and_the_turn_went_well() {
    let mut bee = fake("hello s1; finish; sleep 1000 & echo $! > pid; wait").await;
    bee.grace = Duration::from_millis(300);
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Ok, "{turn:?}");
    gone(&bee.pid().await).await;
}

#[tokio::test]
async fn a_program_that_asks_without_end_and_reads_nothing_is_stopped() {
    let ask = r#"{"id":"q","method":"session/request_permission","params":{"sessionId":"s1","toolCall":{},"options":[]}}"#;
    let mut bee = fake(&format!("hello s1; yes '{ask}'")).await;
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Crashed, "{turn:?}");
    let error = turn.error.as_deref().unwrap();
    assert!(error.contains("does not read the answers"), "{error}");
}

#[tokio::test]
async fn a_turn_of_a_harness_that_was_killed_is_ended_before_the_next_begins() {
    let mut bee = fake("hello s1; setsid sleep 1000 > /dev/null 2>&1 & echo $! > pid; exec sleep 1000").await;
    bee.start();
    bee.message("work");
    let pid = bee.pid().await;
    bee.kill().await;
    bee.start();
    gone(&pid).await;
}

#[tokio::test]
async fn a_conversation_that_takes_most_of_the_window_is_given_up_for_a_new_one() {
    let begin = r#"greet; case $line in *session/new*) answer "$id" "{\"sessionId\":\"s$$\"}";; *) answer "$id" '{}';; esac"#;
    let full = r#"update "s$$" '{"sessionUpdate":"usage_update","used":900,"size":1000}'"#;
    let mut bee = fake(&format!("{begin}; next; prompt=$id; {full}; finish")).await;
    bee.start();
    bee.message("work");
    let turns = bee.turns(2).await;
    assert_eq!(
        (turns[0].result, turns[0].context),
        (TurnResult::Ok, Some(900)),
        "{turns:?}"
    );
    assert_eq!(
        (turns[1].result, turns[1].woken_by.as_slice()),
        (TurnResult::Ok, ["compaction".to_owned()].as_slice())
    );
    bee.message("work more");
    let turns = bee.turns(3).await;
    assert_eq!(turns[2].result, TurnResult::Ok, "{turns:?}");
    assert!(
        turns[2].session.is_some() && turns[2].session != turns[0].session,
        "{turns:?}"
    );
}

#[tokio::test]
async fn without_its_program_an_agent_takes_no_turn_and_says_why() {
    let mut bee = fake("exit 0").await;
    std::fs::remove_file(bee.nest.path("agent")).unwrap();
    bee.start();
    bee.message("work");
    bee.until("the reason", |world| {
        world.reported(|report| {
            let error = report.config_error.as_deref();
            error.is_some_and(|error| error.starts_with("driver.command /") && error.contains("is not there"))
        })
    })
    .await;
    assert!(bee.nest.daemon.world().turns.is_empty());
}
