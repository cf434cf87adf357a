use serde_json::json;

use super::*;

fn read(value: &Value) -> Line {
    parse(value.to_string().as_bytes())
}

fn result(id: &str, failed: bool, text: &str) -> ToolResult {
    ToolResult {
        id: id.to_owned(),
        failed,
        text: text.to_owned(),
    }
}

#[test]
fn what_goes_into_a_tool_and_comes_out_of_it_is_shortened() {
    let long = "é".repeat(MAX_TOOL_TEXT + 1);
    let call = json!({ "type": "assistant", "message": { "content": [{ "type": "tool_use", "input": { "a": long } }] } });
    let answer =
        json!({ "type": "user", "message": { "content": [{ "type": "tool_result", "content": long }] } });
    let (Line::Assistant(said), Line::ToolResults(results)) = (read(&call), read(&answer)) else {
        panic!("{call} {answer}");
    };
    for text in [&said.calls[0].input, &results[0].text] {
        assert_eq!(text.chars().count(), MAX_TOOL_TEXT + 1);
        assert!(text.ends_with('…'));
    }
}

#[test]
fn every_kind_of_line_is_read_for_what_matters() {
    let usage = json!({ "input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 100, "output_tokens": 7 });
    let tokens = Tokens {
        fresh: 3,
        cached: 20,
        created: 100,
        output: 7,
    };
    let used = Usage {
        tokens,
        of_subagent: false,
    };
    let table = [
        (
            json!({ "type": "system", "subtype": "init", "session_id": "s", "model": "m", "tools": ["Bash", "mcp__wiki__look", 7],
                "mcp_servers": [{ "name": "hive", "status": "connected" }, { "name": "wiki", "status": "failed" }] }),
            Line::Init(Init {
                session: Some("s".to_owned()),
                model: Some("m".to_owned()),
                servers: Some(
                    [("hive", "connected"), ("wiki", "failed")]
                        .map(|(name, state)| (name.to_owned(), state.to_owned()))
                        .into(),
                ),
                tools: Some(["mcp__wiki__look".to_owned()].into()),
            }),
        ),
        (
            json!({ "type": "assistant", "parent_tool_use_id": null, "message": { "model": "m", "content": [
                { "type": "text", "text": "hi" }, { "type": "tool_use", "id": "t1", "name": "Read", "input": { "a": 1 } }] } }),
            Line::Assistant(Assistant {
                model: Some("m".to_owned()),
                calls: vec![ToolCall {
                    id: "t1".to_owned(),
                    name: "Read".to_owned(),
                    input: "{\"a\":1}".to_owned(),
                }],
                ..Assistant::default()
            }),
        ),
        (
            json!({ "type": "assistant", "error": "rate_limit", "is_api_error_message": true,
                "message": { "model": "<synthetic>", "content": [] } }),
            Line::Assistant(Assistant {
                error: Some("rate_limit".to_owned()),
                ..Assistant::default()
            }),
        ),
        (
            json!({ "type": "user", "message": { "content": [
                { "type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": "no such file" },
                { "type": "tool_result", "is_error": true, "content": [{ "type": "text", "text": "denied" }] },
                { "type": "tool_result", "content": "fine" }] } }),
            Line::ToolResults(vec![
                result("t1", true, "no such file"),
                result("", true, "denied"),
                result("", false, "fine"),
            ]),
        ),
        (
            json!({ "type": "stream_event", "event": { "type": "message_start", "message": { "usage": usage } } }),
            Line::RequestBegan(used),
        ),
        (
            json!({ "type": "stream_event", "event": { "type": "message_delta", "usage": usage } }),
            Line::RequestEnded(used),
        ),
        (
            json!({ "type": "stream_event", "event": { "type": "content_block_delta",
                "delta": { "type": "text_delta", "text": "hel" } } }),
            Line::Text("hel".to_owned()),
        ),
        (
            json!({ "type": "stream_event", "event": { "type": "from_the_future" } }),
            Line::Alive,
        ),
        (
            json!({ "type": "system", "subtype": "api_retry", "attempt": 2, "error_status": 529, "error": "overloaded" }),
            Line::Retry {
                attempt: 2,
                error: "529 overloaded".to_owned(),
            },
        ),
        (
            json!({ "type": "rate_limit_event", "rate_limit_info": { "status": "rejected", "resetsAt": 1_700_000_000,
                "rateLimitType": "five_hour" } }),
            Line::RateLimit {
                rejected: true,
                resets_at: Some(1_700_000_000),
                kind: "five_hour".to_owned(),
            },
        ),
        (
            json!({ "type": "system", "subtype": "status", "status": "compacting" }),
            Line::Compacting,
        ),
        (
            json!({ "type": "system", "subtype": "status", "status": null, "compact_result": "success" }),
            Line::Compacted { error: None },
        ),
        (
            json!({ "type": "system", "subtype": "status", "status": null, "compact_result": "failed",
                "compact_error": "exhausted" }),
            Line::Compacted {
                error: Some("failed exhausted".to_owned()),
            },
        ),
        (
            json!({ "type": "system", "subtype": "compact_boundary",
                "compact_metadata": { "trigger": "auto", "pre_tokens": 9, "post_tokens": 4 } }),
            Line::Boundary { tokens: Some(4) },
        ),
        (
            json!({ "type": "system", "subtype": "permission_denied", "tool_name": "Bash", "message": "no rule" }),
            Line::Denied {
                what: "Bash: no rule".to_owned(),
            },
        ),
        (
            json!({ "type": "system", "subtype": "task_updated", "tasks": [] }),
            Line::Quiet,
        ),
        (
            json!({ "type": "system", "subtype": "telepathy" }),
            Line::Unknown("system/telepathy".to_owned()),
        ),
        (
            json!({ "type": "from_the_future", "x": [1, 2] }),
            Line::Unknown("from_the_future".to_owned()),
        ),
    ];
    for (line, expected) in table {
        assert_eq!(read(&line), expected, "{line}");
    }
}

#[test]
fn a_result_says_how_it_went_and_what_was_used_since_the_one_before() {
    let line = json!({
        "type": "result", "subtype": "success", "is_error": true, "terminal_reason": "api_error", "result": "no\nway",
        "api_error_status": 429, "total_cost_usd": 99.0, "num_turns": 1,
        "usage": { "input_tokens": 1, "output_tokens": 2 },
        "modelUsage": { "big": { "inputTokens": 999, "contextWindow": 200_000, "costUSD": 99.0 } },
        "model_usage_since_last_result": {
            "big": { "inputTokens": 5, "outputTokens": 6, "costUSD": 0.25 },
            "odd": { "inputTokens": 7, "costUSD": 0.5, "costBasis": "unknown" },
        },
    });
    let Line::Result(result) = read(&line) else {
        panic!("not a result");
    };
    assert!(result.is_error);
    assert_eq!(
        (result.reason.as_str(), result.api_status),
        ("api_error", Some(429))
    );
    assert_eq!(result.text, "no way");
    assert_eq!(result.windows, [("big".to_owned(), 200_000)].into());
    let models = result.models.expect("since the last");
    let costs: Vec<_> = models
        .iter()
        .map(|used| (used.tokens.total(), used.cost_usd))
        .collect();
    assert_eq!(costs, [(11, Some(0.25)), (7, None)]);
}

#[test]
fn an_error_result_without_a_text_gives_its_errors() {
    let line = json!({ "type": "result", "subtype": "error_during_execution", "is_error": true,
        "errors": ["No conversation found with session ID: x", 3, "more"] });
    let Line::Result(result) = read(&line) else {
        panic!("not a result");
    };
    assert_eq!(result.text, "No conversation found with session ID: x; more");
    assert_eq!(result.models, None);
}

#[test]
fn fields_of_another_type_are_as_if_they_were_not_there() {
    let kinds = [
        "system",
        "assistant",
        "user",
        "stream_event",
        "result",
        "rate_limit_event",
        "tool_progress",
    ];
    let odd = [
        json!(null),
        json!(true),
        json!(-3),
        json!("text"),
        json!([[1]]),
        json!({ "a": [] }),
    ];
    let fields = [
        "subtype",
        "message",
        "event",
        "usage",
        "modelUsage",
        "model_usage_since_last_result",
        "rate_limit_info",
        "mcp_servers",
        "errors",
        "is_error",
        "result",
        "compact_metadata",
        "session_id",
        "error",
        "attempt",
    ];
    for kind in kinds {
        for value in &odd {
            for field in fields {
                let mut line = json!({ "type": kind, "subtype": "init" });
                line[field] = value.clone();
                read(&line);
                line["message"] = json!({ "content": value, "usage": value, "model": value });
                line["event"] = json!({ "type": value, "delta": value, "usage": value, "message": value });
                read(&line);
            }
        }
    }
}

#[test]
fn what_is_no_object_is_named_and_shortened() {
    let long = format!("\"{}", "x".repeat(100_000));
    for text in ["", "{", "[]", "3", "Error: oh \u{1b}[31mno", long.as_str()] {
        let Line::Garbage(said) = parse(text.as_bytes()) else {
            panic!("{text:.20}");
        };
        assert!(said.chars().count() <= 201 && !said.contains('\u{1b}'), "{said}");
    }
    assert!(matches!(parse(b"\xff\xfe"), Line::Garbage(_)));
    // Deeper than anything that is meant to be read.
    let deep = format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert!(matches!(parse(deep.as_bytes()), Line::Garbage(_)));
}

#[test]
fn every_text_that_goes_on_is_bounded() {
    let huge = "y".repeat(1_000_000);
    let Line::Text(text) = read(
        &json!({ "type": "stream_event", "event": { "type": "content_block_delta",
        "delta": { "type": "text_delta", "text": huge } } }),
    ) else {
        panic!("not a text");
    };
    assert!(text.len() <= MAX_DELTA);
    let Line::Unknown(kind) = read(&json!({ "type": huge })) else {
        panic!("known");
    };
    assert!(kind.len() <= MAX_NAME + 4);
    let Line::Result(result) = read(&json!({ "type": "result", "result": huge })) else {
        panic!("not a result");
    };
    assert!(result.text.len() <= MAX_TEXT + 4);
}
