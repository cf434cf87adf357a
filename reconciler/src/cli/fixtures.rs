//! Wire documents for the tests of rendering, as a daemon sends them.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::admin_api::{DiffEntry, Explanation, HistoryEntry};
use shared::event::Event;
use shared::gate::Gate;
use shared::plan::PlanView;
use shared::status::{AgentStatus, HiveStatus};

use super::look::Look;
use super::page::Page;

/// Now, in every test.
pub(super) const NOW: &str = "2026-01-02T12:00:00Z";

pub(super) fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

pub(super) fn look() -> Look {
    Look {
        now: now(),
        socket: None,
    }
}

/// The page as it looks without colours.
pub(super) fn plain(page: &Page) -> String {
    anstream::adapter::strip_str(page.as_ansi()).to_string()
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a wire document")
}

pub(super) fn digest(encoding: &str, digit: char) -> String {
    format!("{encoding}-{}", digit.to_string().repeat(64))
}

fn axis(value: &str, reason: &str, message: &str) -> Value {
    json!({ "value": value, "reason": reason, "message": message, "since": "2026-01-02T11:57:00Z" })
}

fn queen() -> Value {
    json!({
        "name": "queen", "uid": "00000000-0000-4000-8000-000000000001", "role": "manager",
        "sync": axis("inSync", "asDeclared", "everything is as declared"),
        "health": axis("healthy", "reporting", "the harness reports"),
        "activity": axis("idle", "nothingToDo", "nothing to do"),
        "turn": "idle", "inbox": 0,
    })
}

pub(super) fn message_json() -> Value {
    json!({
        "id": 7, "from": "alice", "to": "operator", "kind": "message", "replyTo": null,
        "at": "2026-01-02T11:57:00Z", "body": "the wiki \u{1b}[2Jis ready\nsee /wiki", "state": "delivered", "deliveries": 0,
    })
}

pub(super) fn question_json(state: &str) -> Value {
    let mut question = json!({
        "id": 41, "from": "alice", "to": "operator", "body": "red or blue?", "state": state,
        "askedAt": "2026-01-02T11:57:00Z", "expiresAt": "2026-01-02T13:00:00Z", "default": "blue",
    });
    if state != "open" {
        question["endedBy"] = "operator".into();
        question["endedAt"] = "2026-01-02T11:59:00Z".into();
        question["answer"] = "red\n\u{1b}[31mreally".into();
    }
    question
}

pub(super) fn log_json() -> Value {
    json!({
        "agent": "alice", "cut": true, "lines": ["INFO a turn begins", "the wiki \u{1b}[2Jis ready"],
        "events": [event_json(1)],
    })
}

pub(super) fn turns_json() -> Value {
    let of = |id: u64, result: &str| {
        json!({
            "id": id, "agent": "alice", "at": "2026-01-02T11:57:00Z",
            "stats": {
                "turn": "00000000-0000-4000-8000-000000000001", "startedAt": "2026-01-02T11:56:00Z",
                "durationMs": 61_250, "result": result, "model": "haiku",
                "tokens": { "fresh": 1000, "cached": 20_000, "created": 300, "output": 45 },
            },
        })
    };
    let (mut good, mut bad) = (of(8, "ok"), of(7, "crashed"));
    good["stats"]["costUsd"] = 0.0123.into();
    good["facts"] = json!({ "wokenBy": ["reminder"], "takenUp": 1 });
    bad["stats"]["wokenBy"] = json!(["agent"]);
    bad["stats"]["error"] = "it ended\u{1b}[2J without a result".into();
    json!([good, bad])
}

pub(super) fn series_json() -> Value {
    let spread = json!({ "p50": 1200, "p95": 61_250, "max": 90_000 });
    let mut alice = json!({ "agent": "alice", "since": "2025-12-26T12:00:00Z", "turns": 12, "durationMs": spread,
        "tokensPerTurn": spread, "tokens": { "fresh": 5000, "output": 120 }, "context": spread, "costUsd": 1.5, "costUnknown": 2,
        "costPerTurn": { "p50": 0.1, "p95": 0.25, "max": 0.5 }, "results": { "ok": 11, "crashed": 1 },
        "toolCalls": { "mcp__hive__recv": 12, "Re\u{1b}[2Jad": 30 }, "wokenBy": { "operator": 9, "agent": 4 },
        "sent": { "manager": 3 }, "inbox": 1, "inboxMax": 7, "lastTurnAt": "2026-01-02T11:57:00Z", "notesBytes": 4096 });
    let mut bob = json!({ "agent": "bob", "since": "2025-12-26T12:00:00Z", "turns": 1 });
    json!([alice.take(), bob.take()])
}

pub(super) fn reminder_json() -> Value {
    json!({
        "id": 7,
        "owner": "alice",
        "setBy": "operator",
        "body": "water the plants",
        "schedule": { "at": "2026-01-02T14:00:00Z" },
        "missed": "run",
        "setAt": "2026-01-02T12:00:00Z",
        "due": "2026-01-02T14:00:00Z",
    })
}

pub(super) fn loose_end_json() -> Value {
    json!({
        "id": "reminder/3", "kind": "reminder", "owner": "alice", "about": "water the plants",
        "since": "2026-01-02T11:00:00Z", "due": "2026-01-02T12:30:00Z", "error": "the inbox of alice is full",
    })
}

pub(super) fn agent_json() -> Value {
    json!({
        "name": "alice", "uid": "00000000-0000-4000-8000-000000000002", "role": "worker",
        "sync": axis("outOfSync", "proposalBuilt", "proposal 2 is built and not deployed"),
        "health": axis("healthy", "reporting", "the harness reports; 1 of 2 MCP servers is broken"),
        "activity": axis("awaitingGate", "gateOpen", "gate 3 waits for the operator"),
        "turn": "thinking",
        "waiting": [{ "what": "deploy proposal 2", "on": { "on": "gate", "gate": 3, "class": "deployWidens" } }],
        "gates": [3],
        "generations": {
            "desired": digest("system1", 'b'), "deployed": digest("system1", 'a'), "lastGood": digest("system1", 'a'),
            "runningToplevel": digest("toplevel1", 'c'), "runningConfig": digest("config1", 'd'),
            "commit": "0123456789abcdef0123456789abcdef01234567", "proposal": 1,
        },
        "mcp": {
            "web": { "health": "failed", "error": "no answer within 10 s" },
            "wiki": { "health": "healthy", "tools": ["read", "write"], "schemaTokens": 310 },
        },
        "inbox": 2,
        "notices": ["runs without a sandbox"],
        "config": {
            "agent": "alice", "uid": "00000000-0000-4000-8000-000000000002", "hive": "home",
            "prompt": "You look after the wiki.", "driver": { "kind": "claude", "model": "haiku" },
            "mcpServers": { "wiki": { "command": "/bin/wiki-mcp" } },
            "maxTurnMinutes": 60, "commit": "0123456789abcdef0123456789abcdef01234567",
        },
        "origins": { "driver": "spec", "mcpServers.wiki": "granted", "prompt": "commit", "recipients": "default" },
    })
}

pub(super) fn agent() -> AgentStatus {
    read(agent_json())
}

fn hive_of(agents: &[Value]) -> Value {
    json!({
        "hive": "home", "version": "0.1.0", "epoch": "e1", "seq": 41,
        "now": NOW, "startedAt": "2026-01-02T09:00:00Z", "lastPassAt": "2026-01-02T11:59:58Z",
        "queueDepth": 0,
        "spec": { "path": "/etc/hyperhive/hive.json", "generation": 4 },
        "agents": agents,
    })
}

pub(super) fn hive_json() -> Value {
    let mut hive = hive_of(&[queen(), agent_json()]);
    hive["gates"] = json!([3]);
    hive
}

pub(super) fn hive() -> HiveStatus {
    read(hive_json())
}

pub(super) fn calm_hive() -> HiveStatus {
    read(hive_of(&[queen()]))
}

pub(super) fn gate_json() -> Value {
    json!({
        "id": 3, "agent": "alice", "uid": "00000000-0000-4000-8000-000000000002",
        "class": "deployWidens", "askedBy": "agent", "state": "open", "digest": digest("effect1", 'e'),
        "proposal": 2, "commit": "89abcdef0123456789abcdef0123456789abcdef", "system": digest("system1", 'b'),
        "openedAt": "2026-01-02T11:57:00Z",
        "view": {
            "summary": "deploy proposal 2 of alice: 1 change widens what it can do",
            "title": "Use the search server",
            "reason": "The wiki is too large\nto read as a whole.",
            "commitDiff": "diff --git a/agent.json b/agent.json\n--- a/agent.json\n+++ b/agent.json\n@@ -1 +1 @@\n-{}\n+{\"mcpServers\":{\"search\":{\"command\":\"/bin/search\"}}}\n",
            "closureDiff": ["+ search 1.2"],
            "capabilities": [
                { "field": "prompt", "before": "Look after the wiki.", "after": "Look.", "widens": false },
                { "field": "mcpServers.search.command", "after": "/bin/search", "widens": true },
            ],
            "steps": ["write the new config", "alice reloads it between two turns"],
        },
    })
}

pub(super) fn gate() -> Gate {
    read(gate_json())
}

pub(super) fn decided_gate_json(approve: bool) -> Value {
    let mut gate = gate_json();
    gate["state"] = if approve { "approved" } else { "denied" }.into();
    gate["decision"] = json!({
        "approve": approve, "by": "unix:root", "at": "2026-01-02T11:59:00Z", "reason": "fine",
        "digest": digest("effect1", 'e'),
    });
    gate
}

pub(super) fn decided_gate() -> Gate {
    read(decided_gate_json(true))
}

pub(super) fn plans_json() -> Value {
    json!([
        { "agent": "queen", "digest": digest("plan1", '1'), "summary": "nothing to do", "steps": [], "waiting": [] },
        {
            "agent": "alice", "digest": digest("plan1", '2'), "summary": "2 steps",
            "steps": [
                { "agent": "alice", "kind": "tag", "summary": "write tag proposal/2", "effect": "additive" },
                { "agent": "alice", "kind": "deploy", "summary": "deploy proposal 2", "effect": "runsAgentCode",
                  "gateClass": "deployWidens", "gate": 3 },
            ],
            "waiting": [{ "what": "deploy proposal 2", "on": { "on": "gate", "gate": 3, "class": "deployWidens" } }],
        },
        {
            "agent": "bob", "digest": digest("plan1", '3'), "summary": "1 step",
            "steps": [
                { "agent": "bob", "kind": "archive", "summary": "archive the state of bob", "effect": "destructive",
                  "gateClass": "archive", "gate": 4 },
            ],
            "waiting": [],
        },
        {
            "agent": "carol", "digest": digest("plan1", '4'), "summary": "blocked", "steps": [],
            "waiting": [
                { "what": "start", "on": { "on": "backoff", "until": "2026-01-02T12:00:30Z", "attempts": 3,
                  "error": "no sandbox" } },
                { "what": "build", "on": { "on": "terminal", "error": "agent.json: unknown field `modle`" } },
            ],
        },
    ])
}

pub(super) fn plans() -> Vec<PlanView> {
    read(plans_json())
}

pub(super) fn diff_json() -> Value {
    json!([
        { "agent": "alice", "fact": "config", "desired": "config1-ddd", "observed": "config1-ccc", "known": true },
        { "agent": "alice", "fact": "tag deployed/1", "desired": "0123456789", "known": true },
        { "agent": "bob", "fact": "running", "desired": "stopped", "known": false },
        { "fact": "spec", "desired": "generation 4", "observed": "generation 3", "known": true },
    ])
}

pub(super) fn diff() -> Vec<DiffEntry> {
    read(diff_json())
}

pub(super) fn event_json(seq: u64) -> Value {
    json!({
        "seq": seq, "at": "2026-01-02T11:57:00Z", "agent": "alice", "level": "alert",
        "kind": "gateOpened", "message": format!("gate {seq} is open"),
    })
}

pub(super) fn event(seq: u64) -> Event {
    read(event_json(seq))
}

pub(super) fn explanation_json() -> Value {
    json!({
        "object": "alice",
        "chain": [
            { "text": "alice is out of sync: deploy proposal 2", "since": "2026-01-02T11:57:00Z" },
            { "text": "deploy proposal 2 waits on gate 3 (deployWidens)" },
            { "text": "gate 3 is open: nobody has decided yet", "since": "2026-01-02T11:57:00Z" },
        ],
        "waiting": [{ "what": "deploy proposal 2", "on": { "on": "gate", "gate": 3, "class": "deployWidens" },
                      "hint": "hive gate show 3" }],
        "recent": [event_json(41)],
        "next": ["hive gate show 3"],
    })
}

pub(super) fn explanation() -> Explanation {
    read(explanation_json())
}

pub(super) fn history_json() -> Value {
    json!([
        { "at": "2026-01-02T11:59:00Z", "agent": "alice", "kind": "decision", "summary": "approved by unix:root",
          "digest": digest("effect1", 'e'), "gate": 3 },
        { "at": "2026-01-01T09:00:00Z", "kind": "spec", "summary": "generation 4: alice changed" },
    ])
}

pub(super) fn history() -> Vec<HistoryEntry> {
    read(history_json())
}
