use std::sync::Arc;

use super::*;
use crate::config::testing::config;
use crate::driver::tools::Offered;

fn plan(session: Option<&str>, model: Option<&str>) -> Plan {
    let config = config(&json!({ "tools": { "allow": ["Read"] } }));
    Plan {
        session: session.map(str::to_owned),
        cwd: "/state".to_owned(),
        servers: Servers {
            programs: vec![json!({ "name": "hive" })],
            remote: vec![("far".to_owned(), json!({ "name": "far" }))],
            withheld: Vec::new(),
        },
        meta: json!({}),
        model: model.map(str::to_owned),
        instructions: "Be kind.".to_owned(),
        permit: Permit::new(Arc::new(config), Offered::new()),
    }
}

fn hear(talk: &mut Talk, message: &Value) -> Vec<TurnEvent> {
    talk.hear(wire::parse(message.to_string().as_bytes()))
}

/// The only thing that is to be said now.
fn said(talk: &mut Talk) -> Value {
    let mut outbox = talk.take_outbox();
    assert_eq!(outbox.len(), 1, "{outbox:?}");
    outbox.remove(0)
}

/// Answers the latest request.
fn answer(talk: &mut Talk, result: &Value) -> Vec<TurnEvent> {
    let id = talk.number;
    hear(talk, &json!({ "id": id, "result": result }))
}

fn hello(capabilities: &Value) -> Value {
    json!({ "protocolVersion": 1, "agentCapabilities": capabilities })
}

/// A talk in which the prompt was just sent.
fn prompted() -> Talk {
    let mut talk = Talk::new(plan(None, None));
    answer(&mut talk, &hello(&json!({})));
    answer(&mut talk, &json!({ "sessionId": "s1" }));
    talk.take_outbox();
    talk
}

fn failure(talk: &Talk) -> &Failure {
    match &talk.ending {
        Some(Ending::Over(TurnEnd::Failed(failure))) => failure,
        other => panic!("{other:?}"),
    }
}

fn update(session: &str, update: &Value) -> Value {
    json!({ "method": "session/update", "params": { "sessionId": session, "update": update } })
}

#[test]
fn a_turn_is_greeting_conversation_prompt_and_its_answer() {
    let mut talk = Talk::new(plan(None, None));
    let first = said(&mut talk);
    assert_eq!(
        (&first["method"], &first["params"]["protocolVersion"]),
        (&json!("initialize"), &json!(1))
    );
    let can =
        json!({ "mcpCapabilities": { "http": true }, "promptCapabilities": { "embeddedContext": true } });
    assert_eq!(answer(&mut talk, &hello(&can)), []);
    let new = said(&mut talk);
    assert_eq!(new["method"], "session/new");
    assert_eq!(
        new["params"]["mcpServers"],
        json!([{ "name": "hive" }, { "name": "far" }])
    );
    assert_eq!(new["params"].get("sessionId"), None);
    assert_eq!(
        answer(&mut talk, &json!({ "sessionId": "s1" })),
        [TurnEvent::Session("s1".to_owned())]
    );
    let prompt = said(&mut talk);
    assert_eq!(
        (&prompt["method"], &prompt["params"]["sessionId"]),
        (&json!("session/prompt"), &json!("s1"))
    );
    assert_eq!(prompt["params"]["prompt"][0]["resource"]["text"], "Be kind.");
    let events = hear(
        &mut talk,
        &update(
            "s1",
            &json!({ "sessionUpdate": "tool_call", "name": "mcp__hive__recv", "rawInput": { "max": 3 } }),
        ),
    );
    assert_eq!(
        events,
        [TurnEvent::ToolCall {
            name: "mcp__hive__recv".to_owned(),
            input: r#"{"max":3}"#.to_owned(),
        }]
    );
    let usage =
        json!({ "inputTokens": 3, "outputTokens": 5, "cachedReadTokens": 7, "cachedWriteTokens": 11 });
    answer(&mut talk, &json!({ "stopReason": "end_turn", "usage": usage }));
    assert_eq!(talk.ending, Some(Ending::Over(TurnEnd::Completed)));
    assert_eq!((talk.used().tokens.total(), talk.used().cost_usd), (26, None));
}

#[test]
fn a_conversation_goes_on_in_the_best_way_the_program_has() {
    for (can, method, alarms) in [
        (
            json!({ "loadSession": true, "sessionCapabilities": { "resume": {} } }),
            "session/resume",
            0,
        ),
        (json!({ "loadSession": true }), "session/load", 0),
        (json!({}), "session/new", 1),
        (json!(null), "session/new", 1),
    ] {
        let mut talk = Talk::new(plan(Some("s1"), None));
        talk.take_outbox();
        let events = answer(&mut talk, &hello(&can));
        let alarm = |event: &&TurnEvent| matches!(event, TurnEvent::Alarm(_));
        assert_eq!(events.iter().filter(alarm).count(), alarms, "{events:?}");
        let request = said(&mut talk);
        assert_eq!(request["method"], method);
        if alarms == 0 {
            assert_eq!(request["params"]["sessionId"], "s1");
            // What it tells of the past is not of this turn.
            let past =
                json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "x" } });
            assert_eq!(hear(&mut talk, &update("s1", &past)), []);
            // An answer need not name the conversation.
            answer(&mut talk, &json!({}));
            assert_eq!(talk.session.as_deref(), Some("s1"));
        }
    }
}

#[test]
fn servers_that_are_withheld_are_told_and_not_named_to_the_program() {
    let mut plan = plan(None, None);
    plan.servers.withheld = vec![("kept".to_owned(), "secret")];
    let mut talk = Talk::new(plan);
    talk.take_outbox();
    let can_http = json!({ "mcpCapabilities": { "http": true } });
    let events = answer(&mut talk, &hello(&can_http));
    let [TurnEvent::Servers(found)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((found.len(), found["kept"].fault.as_deref()), (1, Some("secret")));
    assert_eq!(
        said(&mut talk)["params"]["mcpServers"],
        json!([{ "name": "hive" }, { "name": "far" }])
    );
}

#[test]
fn servers_that_the_program_cannot_reach_are_told() {
    let mut talk = Talk::new(plan(None, None));
    talk.take_outbox();
    let events = answer(&mut talk, &hello(&json!({})));
    let [TurnEvent::Servers(found)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert!(
        found["far"]
            .fault
            .as_deref()
            .is_some_and(|fault| fault.contains("HTTP"))
    );
    assert_eq!(
        said(&mut talk)["params"]["mcpServers"],
        json!([{ "name": "hive" }])
    );
}

#[test]
fn another_conversation_than_the_one_it_was_told_ends_the_turn() {
    let mut talk = Talk::new(plan(Some("s1"), None));
    answer(&mut talk, &hello(&json!({ "loadSession": true })));
    let events = answer(&mut talk, &json!({ "sessionId": "s2" }));
    assert!(
        matches!(events.as_slice(), [TurnEvent::Alarm(text)] if text.contains("s2, not s1")),
        "{events:?}"
    );
    assert_eq!(failure(&talk).result, TurnResult::Crashed);
    assert_eq!(talk.session, None, "it is not kept");

    let mut talk = prompted();
    let events = hear(&mut talk, &update("s2", &json!({ "sessionUpdate": "plan" })));
    assert!(matches!(events.as_slice(), [TurnEvent::Alarm(_)]), "{events:?}");
    assert_eq!(failure(&talk).result, TurnResult::Crashed);
    assert_eq!(
        hear(&mut talk, &update("s1", &json!({}))),
        [],
        "nothing counts after the end"
    );
}

#[test]
fn a_program_of_another_version_or_without_an_id_is_no_use() {
    for result in [
        json!({ "protocolVersion": 2 }),
        json!({}),
        json!(null),
        json!({ "protocolVersion": "1" }),
    ] {
        let mut talk = Talk::new(plan(None, None));
        answer(&mut talk, &result);
        assert!(failure(&talk).error.contains("version"), "{result}");
    }
    for id in [
        json!(null),
        json!(7),
        json!(""),
        json!("a\nb"),
        json!("x".repeat(257)),
    ] {
        let mut talk = Talk::new(plan(None, None));
        answer(&mut talk, &hello(&json!({})));
        answer(&mut talk, &json!({ "sessionId": id }));
        assert!(failure(&talk).error.contains("usable id"), "{id}");
    }
}

#[test]
fn a_conversation_that_is_gone_is_lost_and_other_errors_are_failures() {
    let table = [
        (json!({ "code": -32002, "message": "Resource not found" }), None),
        (
            json!({ "code": -32603, "message": "No conversation found with id s1" }),
            None,
        ),
        (
            json!({ "code": -32000, "message": "Authentication required" }),
            Some(TurnResult::Auth),
        ),
        (
            json!({ "code": -32603, "message": "disk full" }),
            Some(TurnResult::Crashed),
        ),
    ];
    for (error, expected) in table {
        let mut talk = Talk::new(plan(Some("s1"), None));
        answer(&mut talk, &hello(&json!({ "loadSession": true })));
        let id = talk.number;
        hear(&mut talk, &json!({ "id": id, "error": error }));
        match expected {
            None => assert!(matches!(talk.ending, Some(Ending::Lost(_))), "{error}"),
            Some(result) => assert_eq!(failure(&talk).result, result, "{error}"),
        }
    }
}

#[test]
fn every_error_and_every_reason_to_stop_has_its_kind() {
    let of_kind = |kind: &str| json!({ "code": -32603, "message": "x", "data": { "errorKind": kind } });
    let saying = |text: &str| json!({ "code": -32603, "message": text });
    for (error, expected) in [
        (
            json!({ "code": -32000, "message": "Authentication required" }),
            TurnResult::Auth,
        ),
        (of_kind("rate_limit"), TurnResult::RateLimited),
        (of_kind("server_error"), TurnResult::Overloaded),
        (of_kind("billing_error"), TurnResult::Billing),
        (
            saying("Internal error: Prompt is too long"),
            TurnResult::ContextFull,
        ),
        (saying("429 Too Many Requests"), TurnResult::RateLimited),
        (saying("invalid x-api-key: Unauthorized"), TurnResult::Auth),
        (saying("no idea"), TurnResult::Crashed),
        (json!(7), TurnResult::Crashed),
    ] {
        let mut talk = prompted();
        let id = talk.number;
        hear(&mut talk, &json!({ "id": id, "error": error }));
        assert_eq!(failure(&talk).result, expected, "{error}");
    }
    for (reason, expected) in [
        ("max_tokens", TurnResult::LimitReached),
        ("max_turn_requests", TurnResult::LimitReached),
        ("refusal", TurnResult::Crashed),
        ("tired\u{1b}", TurnResult::Crashed),
        ("", TurnResult::Crashed),
    ] {
        let mut talk = prompted();
        answer(&mut talk, &json!({ "stopReason": reason }));
        assert_eq!(failure(&talk).result, expected, "{reason}");
        assert!(!failure(&talk).error.contains('\u{1b}'));
    }
    let mut talk = prompted();
    answer(&mut talk, &json!({ "stopReason": "cancelled" }));
    assert_eq!(talk.ending, Some(Ending::Over(TurnEnd::Interrupted)));
}

#[test]
fn questions_are_answered_at_once_and_what_is_not_known_is_refused() {
    let mut talk = prompted();
    let question = |tool: &str| {
        let options =
            json!([{ "optionId": "y", "kind": "allow_once" }, { "optionId": "n", "kind": "reject_once" }]);
        json!({ "id": "q", "method": "session/request_permission", "params": {
            "sessionId": "s1", "toolCall": { "name": tool }, "options": options } })
    };
    assert_eq!(hear(&mut talk, &question("Read")), []);
    assert_eq!(said(&mut talk)["result"]["outcome"]["optionId"], "y");
    let events = hear(&mut talk, &question("Write"));
    assert_eq!(said(&mut talk)["result"]["outcome"]["optionId"], "n");
    assert!(
        matches!(events.as_slice(), [TurnEvent::ToolResult { failed: true, .. }]),
        "{events:?}"
    );
    hear(
        &mut talk,
        &json!({ "id": 1, "method": "fs/read_text_file", "params": { "path": "/etc/passwd" } }),
    );
    assert_eq!(said(&mut talk)["error"]["code"], -32601);

    assert!(talk.cancel());
    assert_eq!(said(&mut talk)["method"], "session/cancel");
    hear(&mut talk, &question("Read"));
    assert_eq!(said(&mut talk)["result"]["outcome"]["outcome"], "cancelled");
    let id = talk.number;
    hear(
        &mut talk,
        &json!({ "id": id, "error": { "code": -32603, "message": "aborted" } }),
    );
    assert_eq!(talk.ending, Some(Ending::Over(TurnEnd::Interrupted)));
}

#[test]
fn before_the_prompt_there_is_nothing_to_cancel() {
    let mut talk = Talk::new(plan(None, None));
    talk.take_outbox();
    assert!(!talk.cancel());
    assert_eq!(talk.take_outbox(), [json!(null); 0]);
}

#[test]
fn garbage_and_answers_to_nothing_change_nothing() {
    let mut talk = prompted();
    for line in [
        "x",
        "{}",
        "[1]",
        r#"{"id":99,"result":{"stopReason":"end_turn"}}"#,
        r#"{"id":"2","result":{}}"#,
    ] {
        let events = talk.hear(wire::parse(line.as_bytes()));
        assert!(
            matches!(events.as_slice(), [TurnEvent::Unknown(_)]),
            "{line}: {events:?}"
        );
    }
    for params in [
        json!(null),
        json!({ "sessionId": "s1" }),
        json!({ "sessionId": "s1", "update": 3 }),
    ] {
        let alone = hear(
            &mut prompted(),
            &json!({ "method": "session/update", "params": params }),
        );
        assert_eq!(alone.len(), 1, "{params}: {alone:?}");
    }
    assert_eq!(talk.ending, None);
    assert_eq!(talk.take_outbox().len(), 0);
}

#[test]
fn a_program_that_tells_no_tokens_has_read_its_context_at_least() {
    let mut talk = prompted();
    for used in [500, 900, 20] {
        hear(
            &mut talk,
            &update(
                "s1",
                &json!({ "sessionUpdate": "usage_update", "used": used, "size": 1000 }),
            ),
        );
    }
    answer(&mut talk, &json!({ "stopReason": "end_turn" }));
    let used = talk.used();
    assert_eq!(
        (used.tokens.total(), used.context, used.window),
        (900, Some(20), Some(1000))
    );
}

#[test]
fn a_model_is_set_where_the_program_offers_it() {
    let options = json!([
        { "id": "mode", "category": "mode", "options": [{ "value": "big" }] },
        { "id": "llm", "category": "model", "currentValue": "small", "options": [
            { "value": "small" }, { "name": "more", "options": [{ "value": "big" }] }] },
    ]);
    for (model, set, notices) in [("big", true, 0), ("small", false, 0), ("huge", false, 1)] {
        let mut talk = Talk::new(plan(None, Some(model)));
        answer(&mut talk, &hello(&json!({})));
        talk.take_outbox();
        let events = answer(&mut talk, &json!({ "sessionId": "s1", "configOptions": options }));
        let notice = |event: &&TurnEvent| matches!(event, TurnEvent::Notice(_));
        assert_eq!(events.iter().filter(notice).count(), notices, "{events:?}");
        let mut request = said(&mut talk);
        if set {
            assert_eq!(request["method"], "session/set_config_option");
            assert_eq!(
                (&request["params"]["configId"], &request["params"]["value"]),
                (&json!("llm"), &json!("big"))
            );
            // A model that cannot be set is no reason to leave messages unread.
            let id = talk.number;
            hear(
                &mut talk,
                &json!({ "id": id, "error": { "code": 1, "message": "no" } }),
            );
            request = said(&mut talk);
        }
        assert_eq!(request["method"], "session/prompt");
    }
}
