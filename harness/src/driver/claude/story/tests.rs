use serde_json::{Value, json};

use super::super::parse::parse;
use super::*;

const SESSION: &str = "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f";

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time")
}

fn story_of(purpose: Purpose, lines: &[Value]) -> Story {
    let servers = ["hive", "wiki"].map(str::to_owned).into();
    let mut story = Story::new(purpose, SESSION.to_owned(), servers);
    for line in lines {
        story.tell(parse(line.to_string().as_bytes()));
    }
    story
}

fn init() -> Value {
    json!({ "type": "system", "subtype": "init", "session_id": SESSION, "model": "big",
        "mcp_servers": [{ "name": "hive", "status": "connected" }, { "name": "wiki", "status": "connected" }] })
}

fn good() -> Value {
    json!({ "type": "result", "subtype": "success", "is_error": false, "terminal_reason": "completed", "result": "done",
        "model_usage_since_last_result": { "big": { "inputTokens": 10, "outputTokens": 5, "costUSD": 0.5 } },
        "modelUsage": { "big": { "contextWindow": 1000, "costUSD": 50.0 } } })
}

fn bad(more: &Value) -> Value {
    let mut line = json!({ "type": "result", "subtype": "success", "is_error": true, "terminal_reason": "api_error",
        "result": "it did not work", "model_usage_since_last_result": {} });
    for (name, value) in more.as_object().expect("an object") {
        line[name] = value.clone();
    }
    line
}

fn synthetic(error: &str) -> Value {
    json!({ "type": "assistant", "error": error, "message": { "model": "<synthetic>", "content": [] } })
}

/// How a turn for messages with these lines ends.
fn end(exit: Exit, lines: &[Value]) -> TurnEnd {
    let Verdict::Over(end) = story_of(Purpose::Messages, lines).judge(exit, "", now()) else {
        panic!("not over");
    };
    end
}

fn failure(exit: Exit, lines: &[Value]) -> Failure {
    match end(exit, lines) {
        TurnEnd::Failed(failure) => failure,
        other => panic!("{other:?} for {lines:?}"),
    }
}

#[test]
fn a_result_decides_and_not_the_exit_status() {
    let lines = [init(), good()];
    for exit in [
        Exit::Code(0),
        Exit::Code(1),
        Exit::Signal(15),
        Exit::Lingered,
        Exit::Interrupted,
        Exit::Silent(Duration::from_secs(1)),
    ] {
        assert_eq!(end(exit, &lines), TurnEnd::Completed, "{exit:?}");
    }
    // An exit status of success without a result is none.
    assert_eq!(failure(Exit::Code(0), &[init()]).result, TurnResult::Crashed);
}

#[test]
fn every_error_the_program_tells_of_has_its_kind() {
    let table = [
        (
            Some("authentication_failed"),
            json!({ "result": "Not logged in - Please run /login" }),
            TurnResult::Auth,
        ),
        (
            Some("authentication_failed"),
            json!({ "api_error_status": 401 }),
            TurnResult::Auth,
        ),
        (None, json!({ "api_error_status": 403 }), TurnResult::Auth),
        (
            None,
            json!({ "result": "Not logged in - Please run /login" }),
            TurnResult::Auth,
        ),
        (
            Some("billing_error"),
            json!({ "api_error_status": 400 }),
            TurnResult::Billing,
        ),
        (
            Some("rate_limit"),
            json!({ "api_error_status": 429 }),
            TurnResult::RateLimited,
        ),
        (None, json!({ "api_error_status": 429 }), TurnResult::RateLimited),
        (
            Some("server_error"),
            json!({ "api_error_status": 529 }),
            TurnResult::Overloaded,
        ),
        (
            Some("server_error"),
            json!({ "api_error_status": null }),
            TurnResult::Overloaded,
        ),
        (None, json!({ "api_error_status": 500 }), TurnResult::Overloaded),
        (
            Some("invalid_request"),
            json!({ "terminal_reason": "prompt_too_long" }),
            TurnResult::ContextFull,
        ),
        (
            None,
            json!({ "result": "Prompt is too long" }),
            TurnResult::ContextFull,
        ),
        (
            None,
            json!({ "subtype": "error_max_turns" }),
            TurnResult::LimitReached,
        ),
        (
            None,
            json!({ "subtype": "error_max_budget_usd" }),
            TurnResult::LimitReached,
        ),
        (
            Some("invalid_request"),
            json!({ "api_error_status": 400 }),
            TurnResult::Crashed,
        ),
        (None, json!({ "api_error_status": 404 }), TurnResult::Crashed),
        (
            None,
            json!({ "terminal_reason": "image_error" }),
            TurnResult::Crashed,
        ),
    ];
    for (error, result, expected) in table {
        let lines: Vec<Value> = [init()]
            .into_iter()
            .chain(error.map(synthetic))
            .chain([bad(&result)])
            .collect();
        let failure = failure(Exit::Code(1), &lines);
        assert_eq!(failure.result, expected, "{error:?} {result}");
        assert!(!failure.error.is_empty(), "{error:?} {result}");
    }
}

#[test]
fn an_interrupted_turn_is_no_failure() {
    for reason in ["aborted_streaming", "aborted_tools"] {
        let result = bad(&json!({ "subtype": "error_during_execution", "terminal_reason": reason }));
        assert_eq!(end(Exit::Interrupted, &[init(), result]), TurnEnd::Interrupted);
    }
    assert_eq!(end(Exit::Interrupted, &[init()]), TurnEnd::Interrupted);
}

#[test]
fn of_several_results_the_last_decides_and_all_are_counted() {
    let lines = [init(), good(), init(), bad(&json!({ "api_error_status": 529 }))];
    assert_eq!(failure(Exit::Code(1), &lines).result, TurnResult::Overloaded);
    let story = story_of(Purpose::Messages, &[init(), good(), init(), good()]);
    assert_eq!(
        end(Exit::Code(0), &[init(), good(), init(), good()]),
        TurnEnd::Completed
    );
    let used = story.used();
    assert_eq!((used.tokens.total(), used.cost_usd), (30, Some(1.0)));
    // What goes on after a result has none until the next.
    assert!(story.has_result());
    assert!(!story_of(Purpose::Messages, &[init(), good(), init()]).has_result());
    let quiet = json!({ "type": "system", "subtype": "task_updated" });
    assert!(story_of(Purpose::Messages, &[init(), good(), quiet]).has_result());
}

#[test]
fn a_limit_lasts_until_its_reset_unless_that_is_past() {
    let limit = |resets_at: i64| {
        json!({ "type": "rate_limit_event",
            "rate_limit_info": { "status": "rejected", "resetsAt": resets_at, "rateLimitType": "five_hour" } })
    };
    let result = bad(&json!({ "api_error_status": 429 }));
    let lines = |resets_at| [init(), limit(resets_at), synthetic("rate_limit"), result.clone()];
    let at = failure(Exit::Code(1), &lines(1_700_000_090));
    assert_eq!(at.pause, Some(Duration::from_secs(90)));
    assert_eq!(failure(Exit::Code(1), &lines(1_600_000_000)).pause, None);
    assert_eq!(failure(Exit::Code(1), &lines(i64::MAX)).pause, None);
}

#[test]
fn tokens_are_those_of_this_turn_and_an_unknown_price_stays_unknown() {
    let request = |kind: &str, usage: Value| match kind {
        "start" => {
            json!({ "type": "stream_event", "event": { "type": "message_start", "message": { "usage": usage } } })
        }
        _ => json!({ "type": "stream_event", "event": { "type": "message_delta", "usage": usage } }),
    };
    let start = request(
        "start",
        json!({ "input_tokens": 3, "cache_read_input_tokens": 90, "output_tokens": 1 }),
    );
    let delta = request("delta", json!({ "output_tokens": 40 }));
    // Cut off before a result: what the stream told, at a price that nobody knows.
    let used = story_of(
        Purpose::Messages,
        &[init(), start.clone(), delta.clone(), start.clone()],
    )
    .used();
    assert_eq!(
        (used.tokens.fresh, used.tokens.cached, used.tokens.output),
        (6, 180, 41)
    );
    assert_eq!(used.cost_usd, None);
    // With a result that counts, and the size of the conversation is that of the last request.
    let used = story_of(Purpose::Messages, &[init(), start, delta, good()]).used();
    assert_eq!((used.tokens.total(), used.cost_usd), (15, Some(0.5)));
    assert_eq!((used.context, used.window), (Some(133), Some(1000)));

    let unknown = json!({ "type": "result", "is_error": false,
        "model_usage_since_last_result": { "odd": { "inputTokens": 4, "costUSD": 1.0, "costBasis": "unknown" } } });
    let used = story_of(Purpose::Messages, &[init(), good(), unknown]).used();
    assert_eq!((used.tokens.total(), used.cost_usd), (19, None));
    let silent = json!({ "type": "result", "is_error": false, "usage": { "input_tokens": 4 } });
    let used = story_of(Purpose::Messages, &[init(), silent]).used();
    assert_eq!((used.tokens.total(), used.cost_usd), (4, None));
}

#[test]
fn a_subagent_is_counted_but_is_not_the_conversation() {
    let request = json!({ "type": "stream_event", "parent_tool_use_id": "t",
        "event": { "type": "message_start", "message": { "usage": { "input_tokens": 500 } } } });
    let used = story_of(Purpose::Messages, &[init(), request]).used();
    assert_eq!((used.tokens.total(), used.context), (500, None));
}

#[test]
fn another_conversation_is_an_alarm_and_ends_the_turn() {
    for session in [json!("another"), json!(null)] {
        let mut other = init();
        other["session_id"] = session;
        let mut story = Story::new(Purpose::Messages, SESSION.to_owned(), Vec::new());
        let events = story.tell(parse(other.to_string().as_bytes()));
        assert!(matches!(events[0], TurnEvent::Alarm(_)), "{events:?}");
        assert_eq!((story.fault, story.began), (Some(Exit::Mismatch), false));
        let Verdict::Over(TurnEnd::Failed(failure)) = story.judge(Exit::Mismatch, "", now()) else {
            panic!("not failed");
        };
        assert_eq!(failure.result, TurnResult::Crashed);
    }
}

#[test]
fn without_the_hives_own_server_a_turn_for_messages_is_not_worth_its_price() {
    let mut broken = init();
    broken["mcp_servers"] =
        json!([{ "name": "hive", "status": "failed" }, { "name": "wiki", "status": "failed" }]);
    assert_eq!(
        story_of(Purpose::Messages, &[broken.clone()]).fault,
        Some(Exit::NoServer)
    );
    assert_eq!(story_of(Purpose::Compaction, &[broken.clone()]).fault, None);
    // One that is not even listed does not work either; another than the hive's own is no reason to stop.
    broken["mcp_servers"] = json!([{ "name": "wiki", "status": "connected" }]);
    assert_eq!(
        story_of(Purpose::Messages, &[broken.clone()]).fault,
        Some(Exit::NoServer)
    );
    for servers in [json!([{ "name": "hive", "status": "connected" }]), json!(null)] {
        broken["mcp_servers"] = servers;
        assert_eq!(story_of(Purpose::Messages, &[broken.clone()]).fault, None);
    }
    let failure = failure(Exit::NoServer, &[init()]);
    assert!(failure.error.contains("own MCP server"), "{failure:?}");
}

#[test]
fn what_became_of_each_declared_server_is_told_with_its_tools() {
    let servers = ["hive", "wiki", "web", "lost", "slow", "new"].map(str::to_owned);
    let mut story = Story::new(Purpose::Messages, SESSION.to_owned(), servers.into());
    let state = |name: &str, status: &str| json!({ "name": name, "status": status });
    let mut line = init();
    line["tools"] = json!(["Bash", "mcp__hive__recv", "mcp__wiki__look", "mcp__wiki__draw"]);
    line["mcp_servers"] = json!([
        state("hive", "connected"),
        state("wiki", "connected"),
        state("web", "needs-auth"),
        state("slow", "pending"),
        state("new", "in a word of a newer program"),
    ]);
    let events = story.tell(parse(line.to_string().as_bytes()));
    let broken = |fault: &str| ServerInTurn {
        fault: Some(fault.to_owned()),
        tools: None,
    };
    let works = ServerInTurn {
        fault: None,
        tools: Some(["draw", "look"].map(str::to_owned).into()),
    };
    let expected = [
        ("lost", broken("not listed")),
        ("web", broken("needs-auth")),
        ("wiki", works),
    ];
    let expected = expected.map(|(name, found)| (name.to_owned(), found)).into();
    assert_eq!(events.last(), Some(&TurnEvent::Servers(expected)));
    assert_eq!(story.fault, None);

    // Without a name of any server's tool it is not known which there are.
    line["tools"] = json!(["Bash"]);
    let events = story.tell(parse(line.to_string().as_bytes()));
    let Some(TurnEvent::Servers(found)) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(found["wiki"], ServerInTurn::default());
}

#[test]
fn a_conversation_that_is_not_there_and_one_that_is_there_already_are_told_apart() {
    let unknown = bad(&json!({ "subtype": "error_during_execution", "result": null,
        "errors": ["No conversation found with session ID: x"] }));
    let judge =
        |lines: &[Value], errors| story_of(Purpose::Messages, lines).judge(Exit::Code(1), errors, now());
    let verdict = judge(std::slice::from_ref(&unknown), "");
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
    let verdict = judge(&[], "No conversation found with session ID: x");
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
    assert_eq!(
        judge(&[], "Error: Session ID x is already in use."),
        Verdict::InUse
    );
    // Once the conversation runs, these are only words.
    let words = bad(&json!({ "result": "the wiki says: already in use" }));
    assert!(matches!(
        judge(&[init(), words], "already in use"),
        Verdict::Over(_)
    ));
}

#[test]
fn a_shortening_counts_only_when_it_is_said_to_have_worked() {
    let result = json!({ "type": "result", "is_error": false, "num_turns": 0, "result": "Compacted" });
    let status = |result: &str| json!({ "type": "system", "subtype": "status", "compact_result": result, "compact_error": "exhausted" });
    let judge = |lines: &[Value]| story_of(Purpose::Compaction, lines).judge(Exit::Code(0), "", now());
    let worked = judge(&[status("success"), init(), result.clone()]);
    assert_eq!(worked, Verdict::Over(TurnEnd::Completed));
    assert_eq!(
        judge(&[init(), result.clone()]),
        Verdict::Over(TurnEnd::Completed),
        "nothing to do"
    );
    let Verdict::Over(TurnEnd::Failed(failure)) = judge(&[status("failed"), init(), result]) else {
        panic!("it worked");
    };
    assert_eq!(failure.result, TurnResult::ContextFull);
    assert!(failure.error.contains("exhausted"), "{failure:?}");
    let boundary =
        json!({ "type": "system", "subtype": "compact_boundary", "compact_metadata": { "post_tokens": 77 } });
    assert_eq!(
        story_of(Purpose::Compaction, &[init(), boundary]).used().context,
        Some(77)
    );
}

#[test]
fn a_program_that_breaks_off_is_told_with_its_last_words() {
    let judge = |exit| story_of(Purpose::Messages, &[init()]).judge(exit, "segmentation fault", now());
    let Verdict::Over(TurnEnd::Failed(failure)) = judge(Exit::Signal(11)) else {
        panic!("not failed");
    };
    assert_eq!(
        failure.error,
        "the driver's program was killed by signal 11 before the turn's result; it wrote: segmentation fault"
    );
    let Verdict::Over(TurnEnd::Failed(failure)) = judge(Exit::OutOfMemory) else {
        panic!("not failed");
    };
    assert_eq!(failure.result, TurnResult::OutOfMemory);
    let Verdict::Over(TurnEnd::Failed(failure)) = judge(Exit::Silent(Duration::from_secs(900))) else {
        panic!("not failed");
    };
    assert_eq!(
        (failure.result, failure.error.as_str()),
        (TurnResult::Hung, "the driver said nothing for 900 s")
    );
}

#[test]
fn no_line_makes_a_story_fail() {
    let lines = [
        json!({ "type": "result" }),
        json!({ "type": "system", "subtype": "status" }),
        json!({ "type": "stream_event" }),
        json!({ "type": "stream_event", "event": { "type": "message_start", "message": { "usage": { "input_tokens": u64::MAX } } } }),
        json!({ "type": "stream_event", "event": { "type": "message_start", "message": { "usage": { "input_tokens": u64::MAX } } } }),
        json!({ "type": "assistant" }),
        json!([]),
    ];
    let story = story_of(Purpose::Messages, &lines);
    assert_eq!(story.used().tokens.total(), u64::MAX);
    story.judge(Exit::Code(0), "", now());
}

#[test]
fn the_answer_of_a_tool_is_named_after_its_call() {
    let call = |id: &str, name: &str| {
        json!({ "type": "assistant", "message": { "content": [
            { "type": "tool_use", "id": id, "name": name, "input": { "path": "a" } }] } })
    };
    let answer = json!({ "type": "user", "message": { "content": [
        { "type": "tool_result", "tool_use_id": "t1", "content": "fine" },
        { "type": "tool_result", "tool_use_id": "t9", "is_error": true, "content": "what?" }] } });
    let mut story = story_of(
        Purpose::Messages,
        &[init(), call("t1", "Read"), call("t2", "Write")],
    );
    let told = story.tell(parse(answer.to_string().as_bytes()));
    let result = |name: Option<&str>, failed, text: &str| TurnEvent::ToolResult {
        name: name.map(str::to_owned),
        failed,
        text: text.to_owned(),
    };
    assert_eq!(
        told,
        [result(Some("Read"), false, "fine"), result(None, true, "what?")]
    );
}
