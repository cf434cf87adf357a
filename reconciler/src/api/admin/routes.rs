//! The endpoints of the admin door. To add one, add a line here: router and document follow.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use shared::admin_api::{
    Acknowledged, ArchivedAgent, DecisionRequest, DestroyRequest, DiffEntry, EPOCH_HEADER, EventPage,
    Explanation, HistoryEntry, ModelRequest, OperatorMessage, OverrideRequest, RestoreRequest,
    RollbackRequest,
};
use shared::agent_api::{SendResponse, SentMessage};
use shared::agent_event::AgentEventPage;
use shared::gate::Gate;
use shared::instruction::InstructionRequest;
use shared::login::{LoginAnswer, LoginState};
use shared::plan::PlanView;
use shared::reminder::{ReminderInfo, ReminderRequest};
use shared::status::{AgentStatus, HiveStatus};
use shared::turn::{TurnInfo, TurnSeries};
use shared::wire_error::ErrorCode::{Conflict, Exhausted, Forbidden, NotFound};

use super::{OfAgent, OfGates, OfHistory, Verb, instructions, login, messages, series, turns, watch};
use crate::api::endpoint::{Endpoint, get, group, post};
use crate::api::events::EventQuery;
use crate::api::peer::Peer;
use crate::api::{Context, archive, drafts, events, look, mail, metrics};

/// The groups of endpoints.
pub(crate) const TAGS: &[(&str, &str)] = &[
    look::TAG,
    ("gates", "See what waits for a decision, and decide"),
    ("agents", "Say what is to become of an agent"),
    ("archive", "Remove agents for good, and bring them back"),
    ("messages", "Write to agents, and see what became of messages"),
    mail::QUESTIONS_TAG,
    mail::LOOSE_ENDS_TAG,
    drafts::TAG,
    ("daemon", "About the daemon itself"),
];

/// All of them.
pub(crate) fn endpoints() -> Vec<Endpoint<Context>> {
    let look_of = [
        get("/v1/status", super::status, "status", "The hive at a glance").answers::<HiveStatus>(),
        get("/v1/agents/{name}", super::agent, "agent", "One agent in full").answers::<AgentStatus>(),
        get("/v1/plan", super::plan, "plan", "What would be done, and what it waits on")
            .query::<OfAgent>()
            .answers::<Vec<PlanView>>()
            .refuses([NotFound]),
        get("/v1/diff", super::diff, "diff", "What is not as declared")
            .query::<OfAgent>()
            .answers::<Vec<DiffEntry>>()
            .refuses([NotFound]),
        get("/v1/explain/{object}", super::explained, "explain", "Why something is as it is")
            .answers::<Explanation>(),
        get("/v1/history", super::history, "history", "What was carried out and decided, newest first")
            .query::<OfHistory>()
            .answers::<Vec<HistoryEntry>>()
            .refuses([NotFound]),
        get("/v1/turns", turns::list, "turns", "Turns that have ended, newest first")
            .about("What their harnesses say of them.")
            .query::<turns::Wanted>()
            .answers::<Vec<TurnInfo>>(),
        get("/v1/turns/stats", series::stats, "turnStats", "Turns over a while, added up per agent")
            .about("Agents of the hive without a turn in that time are in it, too. At most the newest 50,000 turns count.")
            .query::<series::Wanted>()
            .answers::<Vec<TurnSeries>>(),
        get(
            "/v1/agents/{name}/events",
            watch::events,
            "agentEvents",
            "What happens in an agent's turns: the newest of it, or a stream that goes on",
        )
        .about(
            "With `follow=true` the answer is a stream of server-sent events: each has epoch and position as `id` and a \
             `StreamedEvent` as `data`. It is in the daemon's memory alone, and not much of it: an event of kind `lost` \
             stands for what a reader missed. Of another epoch all there is is told.",
        )
        .query::<watch::Wanted>()
        .heeds("last-event-id", "Go on after this event; counts more than `after`")
        .tells(EPOCH_HEADER, "The stream's epoch")
        .answers::<AgentEventPage>()
        .answers_with("text/event-stream", "Server-sent events, when `follow` is asked for"),
        get("/v1/events", events::events, "events", "What happened: a page, or a stream that goes on")
            .about(
                "With `follow=true` the answer is a stream of server-sent events that does not end: each has the event's \
                 number as `id` and an `Event` as `data`; comments keep the connection alive. Numbers rise by one within \
                 an epoch; another epoch is another ledger, to be read from its beginning.",
            )
            .query::<EventQuery>()
            .heeds("last-event-id", "Go on after this event; counts more than `after`")
            .tells(EPOCH_HEADER, "The stream's epoch")
            .answers::<EventPage>()
            .answers_with("text/event-stream", "Server-sent events, when `follow` is asked for"),
    ];
    let gates = [
        get("/v1/gates", super::gates, "gates", "Gates that are open or approved, or all")
            .query::<OfGates>()
            .answers::<Vec<Gate>>(),
        get("/v1/gates/{id}", super::gate, "gate", "One gate with all that a decision needs").answers::<Gate>(),
        post("/v1/gates/{id}/decision", super::decide, "decide", "Approve or deny")
            .about("A decision is written once. It quotes the digest that was shown; when the gate has another by now, it is refused.")
            .takes::<DecisionRequest>()
            .answers::<Gate>()
            .refuses([Forbidden, Conflict]),
    ];
    let agents = [
        verb(
            Verb::Start,
            "/v1/agents/{name}/start",
            "start",
            "Start an agent, and keep it running",
        ),
        verb(
            Verb::Stop,
            "/v1/agents/{name}/stop",
            "stop",
            "Stop an agent, and keep it stopped",
        ),
        verb(
            Verb::Pause,
            "/v1/agents/{name}/pause",
            "pause",
            "Keep an agent running, but let it take no turns",
        ),
        verb(
            Verb::Restart,
            "/v1/agents/{name}/restart",
            "restart",
            "Restart an agent between two turns",
        ),
        verb(
            Verb::Rebuild,
            "/v1/agents/{name}/rebuild",
            "rebuild",
            "Build what an agent is to be once more",
        ),
        verb(
            Verb::Suspend,
            "/v1/agents/{name}/suspend",
            "suspend",
            "Leave an agent as it is: reconcile it no more",
        ),
        verb(
            Verb::Resume,
            "/v1/agents/{name}/resume",
            "resume",
            "Reconcile a suspended agent again",
        ),
        verb(
            Verb::Retry,
            "/v1/agents/{name}/retry",
            "retry",
            "Try again what failed, without waiting",
        ),
        post(
            "/v1/agents/{name}/model",
            super::model,
            "model",
            "Have another model run an agent's turns",
        )
        .takes::<ModelRequest>()
        .answers::<Acknowledged>()
        .refuses([Forbidden]),
        post(
            "/v1/agents/{name}/instructions",
            instructions::instruction,
            "instruction",
            "Instruction something of an agent's turn loop",
        )
        .about(
            "`cancel` ends the turn that runs, `compact` shortens the conversation before the next one, `nap` and `wake` end \
             and begin the taking of turns, `newConversation` begins one with the next turn. Once this is answered the \
             instruction survives a crash; it is carried out when the harness is told, which is at once when it runs.",
        )
        .takes::<InstructionRequest>()
        .answers::<Acknowledged>()
        .refuses([Forbidden, Conflict, Exhausted]),
        post(
            "/v1/agents/{name}/rollback",
            super::rollback,
            "rollback",
            "Propose what an agent had deployed before",
        )
        .takes::<RollbackRequest>()
        .answers::<Acknowledged>()
        .refuses([Forbidden, Conflict, Exhausted]),
        post(
            "/v1/agents/{name}/login",
            login::begin,
            "login",
            "Have an agent's driver log in",
        )
        .about("Its harness starts the driver's own program. A login that is under way ends.")
        .answers::<LoginState>()
        .refuses([Forbidden, Conflict]),
        get(
            "/v1/agents/{name}/login",
            login::show,
            "loginState",
            "How the login of an agent stands",
        )
        .answers::<LoginState>(),
        post(
            "/v1/agents/{name}/login/code",
            login::code,
            "loginCode",
            "Hand over the code that was shown at a login's address",
        )
        .about("It is passed on to the agent's harness and kept nowhere.")
        .takes::<LoginAnswer>()
        .answers::<LoginState>()
        .refuses([Forbidden, Conflict]),
    ];
    let archive = [
        get(
            "/v1/archive",
            archive::list,
            "archive",
            "What is kept of removed agents",
        )
        .answers::<Vec<ArchivedAgent>>(),
        post(
            "/v1/agents/{name}/destroy",
            archive::destroy,
            "destroy",
            "Remove an agent that the spec does not declare",
        )
        .takes::<DestroyRequest>()
        .answers::<Acknowledged>()
        .refuses([Forbidden, Conflict]),
        post(
            "/v1/agents/{name}/restore",
            archive::restore,
            "restore",
            "Bring a removed agent back, with its state",
        )
        .takes::<RestoreRequest>()
        .answers::<Acknowledged>()
        .refuses([Forbidden, Conflict]),
    ];
    let mail_of = [
        post(
            "/v1/agents/{name}/messages",
            super::message,
            "message",
            "Send an agent a message",
        )
        .about("Once this is answered the message survives a crash.")
        .takes::<OperatorMessage>()
        .answers::<SendResponse>()
        .refuses([Exhausted]),
        post(
            "/v1/agents/{name}/reminders",
            messages::remind,
            "remind",
            "Have an agent told something later",
        )
        .about(
            "It is a loose end of the agent's until it is over; `DELETE /v1/loose-ends/reminder/{number}` takes it back, and \
             the agent itself cannot.",
        )
        .takes::<ReminderRequest>()
        .answers::<ReminderInfo>()
        .refuses([Exhausted]),
        get(
            "/v1/messages",
            messages::search,
            "messages",
            "Messages of the whole hive, newest first, and where they are",
        )
        .about("A list ends early when its texts are long: ask for those before the last one.")
        .query::<messages::Wanted>()
        .answers::<Vec<SentMessage>>(),
        post(
            "/v1/messages/{message}/requeue",
            messages::requeue,
            "requeue",
            "Queue a message again that is not delivered any more",
        )
        .answers::<SentMessage>()
        .refuses([Forbidden, Conflict, Exhausted]),
    ];
    let daemon = [
        get(
            "/v1/export",
            super::export,
            "export",
            "Everything that plans are made from, for a fault report",
        )
        .about("Its form is that of this version of the daemon, for `hive replay` of the same version.")
        .answers::<serde_json::Map<String, serde_json::Value>>(),
        get(
            "/v1/metrics",
            metrics::metrics,
            "metrics",
            "The daemon's metrics for Prometheus",
        )
        .answers_with(metrics::MEDIA_TYPE, "Prometheus' text format"),
        get("/v1/openapi.json", super::openapi, "openapi", "This document")
            .answers::<serde_json::Map<String, serde_json::Value>>(),
    ];
    group("look", look_of)
        .chain(look::endpoints())
        .chain(group("gates", gates))
        .chain(group("agents", agents))
        .chain(group("archive", archive))
        .chain(group("messages", mail_of))
        .chain(mail::questions())
        .chain(mail::loose_ends())
        .chain(drafts::endpoints())
        .chain(group("daemon", daemon))
        .collect()
}

/// The endpoint of an order that an operator gives an agent.
fn verb(verb: Verb, path: &'static str, id: &'static str, summary: &'static str) -> Endpoint<Context> {
    let handler =
        move |context: State<Context>,
              peer: ConnectInfo<Peer>,
              name: Path<String>,
              request: Json<OverrideRequest>| super::change(verb, context, peer, name, request);
    post(path, handler, id, summary)
        .takes::<OverrideRequest>()
        .answers::<Acknowledged>()
        .refuses([Forbidden])
}
