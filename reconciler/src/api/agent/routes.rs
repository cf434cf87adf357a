//! The endpoints of an agent's door. To add one, add a line here: router and document follow.

use shared::agent_api::{
    AckRequest, PollRequest, PollResponse, ProposalInfo, RecvRequest, RecvResponse, SendRequest, SendResponse,
};
use shared::wire_error::ErrorCode::{Conflict, Exhausted, Forbidden, NotFound};

use super::{AgentContext, transfers};
use crate::api::drafts;
use crate::api::endpoint::{Endpoint, get, group, post};

/// The groups of endpoints.
pub(crate) const TAGS: &[(&str, &str)] = &[
    ("turns", "Report, wait for work, take it up, end it"),
    ("messages", "Write to agents and to the operator"),
    ("config", "The config repo, and commits offered for it"),
    drafts::TAG,
    ("daemon", "About the daemon itself"),
];

/// All of them.
pub(crate) fn endpoints() -> Vec<Endpoint<AgentContext>> {
    let turns = [
        post("/v1/poll", super::poll, "poll", "Report, and wait for work")
            .about("Answered at once when there is work, else after `waitSecs`.")
            .takes::<PollRequest>()
            .answers::<PollResponse>(),
        post(
            "/v1/recv",
            super::recv,
            "recv",
            "Lease undelivered messages to a turn",
        )
        .takes::<RecvRequest>()
        .answers::<RecvResponse>(),
        post(
            "/v1/ack",
            super::ack,
            "ack",
            "End a turn: acknowledge its messages, or give them back",
        )
        .takes::<AckRequest>(),
    ];
    let messages = [post("/v1/send", super::send, "send", "Send a message")
        .about("Once this is answered the message survives a crash. The sender is the agent of this socket.")
        .takes::<SendRequest>()
        .answers::<SendResponse>()
        .refuses([Forbidden, NotFound, Exhausted])];
    let config = [
        get(
            "/v1/repo/bundle",
            transfers::bundle,
            "bundle",
            "A git bundle of `main` and the tags",
        )
        .answers_with("application/octet-stream", "A git bundle"),
        get(
            "/v1/proposals",
            super::proposals,
            "proposals",
            "This agent's proposals, newest first",
        )
        .answers::<Vec<ProposalInfo>>(),
        post("/v1/proposals", transfers::propose, "propose", "Offer a commit")
            .about("Title and reason are the commit's message.")
            .takes_stream(
                "A git bundle with one ref, whose commit descends from `main`; at most 33554432 bytes.",
            )
            .answers::<ProposalInfo>()
            .refuses([Conflict, Exhausted]),
    ];
    let daemon = [
        get("/v1/openapi.json", super::openapi, "openapi", "This document")
            .answers::<serde_json::Map<String, serde_json::Value>>(),
    ];
    group("turns", turns)
        .chain(group("messages", messages))
        .chain(group("config", config))
        .chain(drafts::endpoints())
        .chain(group("daemon", daemon))
        .collect()
}
