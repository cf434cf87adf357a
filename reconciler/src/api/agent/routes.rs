//! The endpoints of an agent's door. To add one, add a line here: router and document follow.

use shared::agent_api::{
    AckRequest, BroadcastRequest, BroadcastResponse, PollRequest, PollResponse, ProposalInfo, RecvRequest,
    RecvResponse, SendRequest, SendResponse, SentMessage, WhoAmI,
};
use shared::agent_event::{EventBatch, EventBatchAnswer};
use shared::budget::{TurnLimits, TurnUsage};
use shared::reminder::{ReminderInfo, ReminderRequest};
use shared::turn::TurnStats;
use shared::wire_error::ErrorCode::{Conflict, Exhausted, Forbidden, NotFound};

use super::{events, messages, transfers, turns};
use crate::api::endpoint::{Endpoint, delete, get, group, post};
use crate::api::{drafts, look, mail, orders};

/// The groups of endpoints.
pub(crate) const TAGS: &[(&str, &str)] = &[
    ("turns", "Report, wait for work, take it up, end it"),
    ("messages", "Write to agents and to the operator"),
    mail::QUESTIONS_TAG,
    ("reminders", "Be told something later"),
    mail::LOOSE_ENDS_TAG,
    ("config", "The config repo, and commits offered for it"),
    look::TAG,
    orders::TAG,
    drafts::TAG,
    ("daemon", "About the daemon itself"),
];

/// All of them.
pub(crate) fn endpoints() -> Vec<Endpoint<()>> {
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
        .about(
            "A turn that has not begun gets none while the agent is over its budget. Nor does one that has ended, or that \
             the newest report does not name as its lease.",
        )
        .takes::<RecvRequest>()
        .answers::<RecvResponse>()
        .refuses([Conflict, Exhausted]),
        post(
            "/v1/ack",
            super::ack,
            "ack",
            "End a turn: acknowledge its messages, or give them back",
        )
        .takes::<AckRequest>(),
        post(
            "/v1/turns",
            turns::ended,
            "turnEnded",
            "Tell of a turn that has ended",
        )
        .about("What it used and how it ended. The same turn told again is one.")
        .takes::<TurnStats>()
        .refuses([Exhausted]),
        post(
            "/v1/events",
            events::tell,
            "tellEvents",
            "Tell what happens in turns, for whoever watches",
        )
        .about("It is kept in memory, for a while. The same events told again are one.")
        .takes::<EventBatch>()
        .answers::<EventBatchAnswer>(),
        post(
            "/v1/turns/usage",
            turns::uses,
            "turnUses",
            "Tell what a turn has used so far, and learn what it may use",
        )
        .about(
            "Told before a turn begins, and again as it goes on. What was told counts, whether its end is ever told or \
             not, and never goes down. A turn that nothing is left for must not begin.",
        )
        .takes::<TurnUsage>()
        .answers::<TurnLimits>()
        .refuses([Exhausted]),
    ];
    let messages_of = [
        post("/v1/send", messages::send, "send", "Send a message")
            .about(
                "Once this is answered the message survives a crash. The sender is the agent of this socket. A message \
                 of kind `question` opens a question, one of kind `answer` that replies to it ends it.",
            )
            .takes::<SendRequest>()
            .answers::<SendResponse>()
            .refuses([Forbidden, NotFound, Conflict, Exhausted]),
        post(
            "/v1/broadcast",
            messages::broadcast,
            "broadcast",
            "Send a message to every other active agent",
        )
        .about("For managers alone. It is sent to all of them or, when this fails, to none.")
        .takes::<BroadcastRequest>()
        .answers::<BroadcastResponse>()
        .refuses([Forbidden, Exhausted]),
        get(
            "/v1/messages/sent",
            messages::sent,
            "sent",
            "What this agent sent, newest first, and where it is",
        )
        .about("A list ends early when its texts are long: ask for those before the last one.")
        .query::<messages::Sent>()
        .answers::<Vec<SentMessage>>(),
        get(
            "/v1/whoami",
            messages::whoami,
            "whoami",
            "Who this agent is, and whom it may write to",
        )
        .answers::<WhoAmI>(),
    ];
    let reminders = [
        get(
            "/v1/reminders",
            messages::reminders,
            "reminders",
            "This agent's reminders, the next first",
        )
        .answers::<Vec<ReminderInfo>>(),
        post("/v1/reminders", messages::remind, "remind", "Set a reminder")
            .about(
                "When it is due it becomes a message of kind `system` that names it. While that waits to be taken up, \
                 further times of the same reminder add no message.",
            )
            .takes::<ReminderRequest>()
            .answers::<ReminderInfo>()
            .refuses([Exhausted]),
        delete(
            "/v1/reminders/{reminder}",
            messages::forget_reminder,
            "forgetReminder",
            "Take a reminder back",
        )
        .refuses([Forbidden]),
    ];
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
        get(
            "/v1/agents/{name}/repo/bundle",
            transfers::bundle_of,
            "bundleOf",
            "A git bundle of another agent's config repo",
        )
        .about("For managers alone.")
        .answers_with("application/octet-stream", "A git bundle")
        .refuses([Forbidden]),
        post(
            "/v1/agents/{name}/proposals",
            transfers::propose_for,
            "proposeFor",
            "Offer a commit for another agent",
        )
        .about("For managers alone. The agent concerned is told. Title and reason are the commit's message.")
        .takes_stream("A git bundle with one ref, whose commit descends from `main`; at most 33554432 bytes.")
        .answers::<ProposalInfo>()
        .refuses([Forbidden, Conflict, Exhausted]),
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
        .chain(group("messages", messages_of))
        .chain(mail::questions())
        .chain(group("reminders", reminders))
        .chain(mail::loose_ends())
        .chain(group("config", config))
        .chain(look::of_agents())
        .chain(look::endpoints())
        .chain(orders::endpoints())
        .chain(drafts::endpoints())
        .chain(group("daemon", daemon))
        .collect()
}
