//! A daemon in memory: the agent API on a unix socket, with an inbox that can be looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use camino::Utf8Path;
use shared::agent_api::{
    AckRequest, Message, MessageKind, PollRequest, PollResponse, ProposalInfo, ProposalPhase, RecvRequest,
    RecvResponse, Report, SendRequest, SendResponse,
};
use shared::agent_event::{AgentEvent, EventBatch, EventBatchAnswer};
use shared::budget::{TurnLimits, TurnUsage};
use shared::instruction::Instruction;
use shared::name::Address;
use shared::turn::TurnStats;
use shared::version::AGENT_API_HEADER;
use shared::wire_error::{ErrorCode, WireError};
use shared::{Digest, ProposalNumber, TurnId};

use crate::in_memory::{self, Known};

/// All the daemon knows. Public: tests look at it, and change it.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) inbox: Vec<Message>,
    pub(crate) leased: BTreeMap<TurnId, Vec<Message>>,
    pub(crate) acks: Vec<AckRequest>,
    pub(crate) sent: Vec<SendRequest>,
    pub(crate) duplicates: usize,
    pub(crate) polls: usize,
    pub(crate) recvs: usize,
    pub(crate) reports: Vec<Report>,
    /// Leases and acknowledgements of turns that the last report did not name.
    pub(crate) unreported: usize,
    /// Polls are not read.
    pub(crate) deaf: bool,
    pub(crate) config: Option<Digest>,
    pub(crate) paused: bool,
    pub(crate) model: Option<String>,
    pub(crate) conversation: Option<u64>,
    /// Handed out with each answer.
    pub(crate) instructions: Vec<Instruction>,
    /// What turns were.
    pub(crate) turns: Vec<TurnStats>,
    /// The daemon has no route for what turns were.
    pub(crate) no_turns: bool,
    /// What happened in turns.
    pub(crate) events: Vec<AgentEvent>,
    pub(crate) batches: usize,
    pub(crate) watched: bool,
    /// What happens in turns is answered with this status.
    pub(crate) refuse_events: Option<StatusCode>,
    /// What happens in turns is never answered.
    pub(crate) deaf_to_events: bool,
    /// So many reports of turns are answered 429, without effect.
    pub(crate) full_turns: usize,
    /// What turns have used, as told while they ran.
    pub(crate) used: Vec<TurnUsage>,
    /// What turns may use.
    pub(crate) limits: TurnLimits,
    /// Tokens that a turn may use which has used something already.
    pub(crate) later_limit: Option<u64>,
    /// The repo as a bundle.
    pub(crate) bundle: Vec<u8>,
    pub(crate) proposals: Vec<Vec<u8>>,
    pub(crate) refuse_proposals: bool,
    /// Recipients that are refused.
    pub(crate) forbidden: BTreeSet<Address>,
    /// Sends are answered 503.
    pub(crate) no_sends: bool,
    /// So many acknowledgements are answered 503, without effect.
    pub(crate) lose_acks: usize,
    /// So many leases happen, but their answers are lost.
    pub(crate) lose_leases: usize,
    /// Model and conversation as told last.
    told: Option<(Option<String>, Option<u64>)>,
    /// The last instruction that was handed out.
    told_instruction: u64,
    dedupe: BTreeMap<String, u64>,
    last_id: u64,
}

impl Known for World {
    fn tell(&self) -> String {
        format!(
            "inbox {:?}, acks {:?}, sent {:?}, last report {:?}",
            self.inbox,
            self.acks,
            self.sent,
            self.reports.last()
        )
    }
}

impl World {
    pub(crate) fn report(&self) -> &Report {
        self.reports.last().expect("a report")
    }

    /// Whether there is a report, and the last one is like this.
    pub(crate) fn reported(&self, like: impl Fn(&Report) -> bool) -> bool {
        self.reports.last().is_some_and(like)
    }

    pub(crate) fn bodies(&self) -> Vec<&str> {
        self.sent.iter().map(|sent| sent.body.as_str()).collect()
    }

    pub(crate) fn dones(&self) -> Vec<bool> {
        self.acks.iter().map(|ack| ack.done).collect()
    }

    fn check_lease(&mut self, turn: TurnId) {
        if !self.reported(|report| report.lease == Some(turn)) {
            self.unreported += 1;
        }
    }

    fn put_back(&mut self, turn: &TurnId) {
        let messages = self.leased.remove(turn).unwrap_or_default();
        let redelivered = messages.into_iter().map(|message| Message {
            redelivered: true,
            ..message
        });
        self.inbox.splice(0..0, redelivered);
    }
}

type Shared = in_memory::Shared<World>;

/// A daemon on a socket.
pub(crate) type Daemon = in_memory::Daemon<World>;

impl Daemon {
    pub(crate) fn start(socket: &Utf8Path) -> Self {
        let routes = Router::new()
            .route("/v1/poll", post(poll))
            .route("/v1/recv", post(recv))
            .route("/v1/ack", post(ack))
            .route("/v1/send", post(send))
            .route("/v1/turns", post(turns))
            .route("/v1/events", post(events))
            .route("/v1/turns/usage", post(turn_uses))
            .route("/v1/repo/bundle", get(bundle))
            .route("/v1/proposals", post(propose));
        Self::with(socket, routes)
    }

    /// Waits until a config is reported as not usable, in words that hold these.
    pub(crate) async fn until_config_error(&self, words: &str) {
        let says = |report: &Report| {
            let error = report.config_error.as_deref();
            error.is_some_and(|error| error.contains(words))
        };
        self.until("a config error", |world| world.reported(says)).await;
    }

    /// Puts a message into the inbox.
    pub(crate) fn message(&self, kind: MessageKind, from: &str, body: &str) -> u64 {
        self.change(|world| {
            world.last_id += 1;
            world.inbox.push(Message {
                id: world.last_id,
                from: from.parse().expect("address"),
                kind,
                topic: None,
                reply_to: None,
                at: "2026-01-02T03:04:05Z".parse().expect("time"),
                body: body.to_owned(),
                redelivered: false,
            });
            world.last_id
        })
    }
}

fn refused(status: StatusCode, code: ErrorCode, message: &str) -> Response {
    let error = WireError::new(code, message).with_hint("ask the operator");
    (status, Json(error)).into_response()
}

async fn poll(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(request): Json<PollRequest>,
) -> Response {
    assert_eq!(headers.get(AGENT_API_HEADER).expect("version"), "1");
    let PollRequest { report, wait_secs } = request;
    shared.wait(|world| !world.deaf).await;
    shared.change(|world| {
        world.polls += 1;
        let new_run = world.reported(|last| last.run_id != report.run_id);
        if new_run {
            // The leases of a run that is over.
            for turn in world.leased.keys().copied().collect::<Vec<_>>() {
                world.put_back(&turn);
            }
        }
        // What was broken off may be read after what was sent next.
        let overtaken = world.reported(|last| last.run_id == report.run_id && last.seq > report.seq);
        if !overtaken && world.reports.last() != Some(&report) {
            world.reports.push(report.clone());
        }
    });
    let look = |world: &World| {
        let answer = PollResponse {
            inbox: world.inbox.len() as u64,
            config: world.config.clone(),
            paused: world.paused,
            model: world.model.clone(),
            conversation: world.conversation,
            instructions: world.instructions.clone(),
            ..PollResponse::default()
        };
        let announced = (answer.model.clone(), answer.conversation);
        let news = answer.inbox > 0
            || world
                .instructions
                .last()
                .is_some_and(|instruction| instruction.id > world.told_instruction)
            || world.told != Some(announced)
            || (answer.config.is_some() && answer.config != report.config)
            || answer.paused != (report.turn == shared::status::TurnState::Paused);
        (answer, news)
    };
    let news = shared.wait(|world| look(world).1);
    let _expired = tokio::time::timeout(Duration::from_secs(wait_secs.into()), news).await;
    let answer = look(&shared.look()).0;
    let last = answer.instructions.last().map_or(0, |instruction| instruction.id);
    shared.look().told_instruction = last;
    shared.look().told = Some((answer.model.clone(), answer.conversation));
    Json(answer).into_response()
}

async fn recv(State(shared): State<Shared>, Json(request): Json<RecvRequest>) -> Response {
    shared.change(|world| {
        world.recvs += 1;
        world.check_lease(request.turn);
        let count = world.inbox.len().min(request.max as usize);
        let messages: Vec<Message> = world.inbox.drain(..count).collect();
        if count > 0 {
            world.leased.insert(request.turn, messages.clone());
        }
        if world.lose_leases > 0 {
            world.lose_leases -= 1;
            return refused(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, "lost");
        }
        let batch = request.received.unwrap_or_default() + 1;
        Json(RecvResponse { batch, messages }).into_response()
    })
}

async fn ack(State(shared): State<Shared>, Json(request): Json<AckRequest>) -> Response {
    shared.change(|world| {
        if world.lose_acks > 0 {
            world.lose_acks -= 1;
            return refused(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, "later");
        }
        world.check_lease(request.turn);
        if !request.done {
            world.put_back(&request.turn);
        } else if world.leased.remove(&request.turn).is_none() {
            return refused(StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such turn");
        }
        world.acks.push(request);
        StatusCode::NO_CONTENT.into_response()
    })
}

async fn turns(State(shared): State<Shared>, Json(stats): Json<TurnStats>) -> Response {
    shared.change(|world| {
        if world.no_turns {
            return refused(StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such route");
        }
        if world.full_turns > 0 {
            world.full_turns -= 1;
            return refused(StatusCode::TOO_MANY_REQUESTS, ErrorCode::Exhausted, "wait 1 s");
        }
        world.turns.push(stats);
        StatusCode::NO_CONTENT.into_response()
    })
}

async fn events(State(shared): State<Shared>, Json(batch): Json<EventBatch>) -> Response {
    let deaf = shared.change(|world| {
        world.batches += 1;
        world.deaf_to_events
    });
    if deaf {
        return std::future::pending().await;
    }
    shared.change(|world| {
        if let Some(status) = world.refuse_events {
            return refused(status, ErrorCode::Unknown, "no");
        }
        world.events.extend(batch.events);
        let watched = world.watched;
        Json(EventBatchAnswer { watched }).into_response()
    })
}

async fn turn_uses(State(shared): State<Shared>, Json(usage): Json<TurnUsage>) -> Response {
    shared.change(|world| {
        if world.no_turns {
            return refused(StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such route");
        }
        world.used.push(usage);
        let mut limits = world.limits;
        if usage.tokens > 0 && world.later_limit.is_some() {
            limits.tokens = world.later_limit;
        }
        Json(limits).into_response()
    })
}

async fn send(State(shared): State<Shared>, Json(request): Json<SendRequest>) -> Response {
    shared.change(|world| {
        if world.no_sends {
            return refused(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, "later");
        }
        if world.forbidden.contains(&request.to) {
            return refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, "not on your list");
        }
        let dedupe = request.dedupe.clone().expect("every message carries an id");
        if let Some(id) = world.dedupe.get(&dedupe).copied() {
            world.duplicates += 1;
            return Json(SendResponse { id, duplicate: true }).into_response();
        }
        world.last_id += 1;
        let id = world.last_id;
        world.dedupe.insert(dedupe, id);
        world.sent.push(request);
        Json(SendResponse { id, duplicate: false }).into_response()
    })
}

async fn bundle(State(shared): State<Shared>) -> Response {
    shared.look().bundle.clone().into_response()
}

async fn propose(State(shared): State<Shared>, body: axum::body::Bytes) -> Response {
    shared.change(|world| {
        world.proposals.push(body.to_vec());
        if world.refuse_proposals {
            return refused(StatusCode::CONFLICT, ErrorCode::Conflict, "main has moved");
        }
        Json(ProposalInfo {
            number: ProposalNumber(world.proposals.len() as u64),
            commit: "0".repeat(40).parse().expect("commit"),
            title: "a title".into(),
            phase: ProposalPhase::Proposed,
            reason: None,
            gate: None,
            at: "2026-01-02T03:04:05Z".parse().expect("time"),
        })
        .into_response()
    })
}
