//! An agent at its door, as a harness and its tools speak there; and the operator. All lose answers now and then, and
//! ask again until they have one.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::UnixStream;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use shared::TurnId;
use shared::agent_api::{BroadcastResponse, MessageKind, RecvResponse, SendResponse};
use shared::question::QuestionInfo;
use shared::reminder::ReminderInfo;
use uuid::Uuid;

use super::AGENTS;
use super::account::{Account, Did, End, Ending, Taken};
use crate::http::{self, Answer, Request};
use crate::numbers::Numbers;
use crate::world::{DEADLINE, World, within};

/// The one client that takes nothing up.
pub(crate) const OPERATOR: &str = "operator";
/// Of so many answers one is lost on purpose.
const LOST_OF: u64 = 12;
/// The most messages to the operator by one agent: what people read is dear.
const MAX_TO_OPERATOR: u64 = 100;
/// The most questions of one agent that it waits for.
const MAX_ASKED: usize = 30;

/// What clients do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// They send and take up.
    Work = 0,
    /// They only take up, and take back what nobody answers.
    Finish = 1,
    /// They end what they are at, and then end.
    Over = 2,
    /// They give up: the test has failed.
    Failed = 3,
}

impl Phase {
    pub(crate) fn of(number: u8) -> Self {
        match number {
            0 => Self::Work,
            1 => Self::Finish,
            2 => Self::Over,
            _ => Self::Failed,
        }
    }
}

/// How a turn is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    Badly,
    DiesInRecv,
    Dies,
    DiesInAck,
    /// The harness is another one, and takes the turn over.
    IsTakenOver,
}

pub(crate) struct Client<'a> {
    name: String,
    socket: Utf8PathBuf,
    account: &'a Account,
    numbers: Numbers,
    /// How many things it has sent.
    sent: u64,
    to_operator: u64,
    run: u64,
    reports: u64,
    turns: u64,
    /// The last turn that did not end well. The one after it does, so that no message fails too often.
    failed: Option<u64>,
    was_well: bool,
    /// Its questions that nobody will answer.
    to_cancel: Vec<u64>,
    asked: BTreeSet<u64>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(world: &World, account: &'a Account, name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            socket: if name == OPERATOR {
                world.socket()
            } else {
                world.door(name)
            },
            account,
            numbers: Numbers::from_seed(seed),
            sent: 0,
            to_operator: 0,
            run: 0,
            reports: 0,
            turns: 0,
            failed: None,
            was_well: true,
            to_cancel: Vec::new(),
            asked: BTreeSet::new(),
        }
    }

    /// Works until it is over.
    pub(crate) fn live(&mut self) {
        if self.name == OPERATOR {
            return self.operate();
        }
        loop {
            match self.account.phase() {
                Phase::Work => self.step(),
                Phase::Finish => {
                    self.cancel();
                    self.turn(Fate::Well);
                }
                Phase::Over | Phase::Failed => return,
            }
        }
    }

    fn operate(&mut self) {
        loop {
            match self.account.phase() {
                Phase::Work => {
                    let to = self.anybody();
                    let key = self.key("m");
                    let message = json!({ "body": key, "dedupe": key });
                    let path = format!("/v1/agents/{to}/messages");
                    let Some(answer) = self.post(&path, &message) else {
                        return;
                    };
                    self.note_sent(to, key, &answer.ok());
                }
                Phase::Finish => {
                    let _over = within(DEADLINE, || (self.account.phase() != Phase::Finish).then_some(()));
                }
                Phase::Over | Phase::Failed => return,
            }
        }
    }

    fn step(&mut self) {
        match self.numbers.below(20) {
            0..9 => self.send(),
            9..11 => self.ask(),
            11 => self.cancel(),
            12 => self.remind(),
            13 if self.name == AGENTS[0] => self.broadcast(),
            _ => {
                let fate = if self.was_well { self.fate() } else { Fate::Well };
                self.turn(fate);
            }
        }
    }

    fn fate(&mut self) -> Fate {
        match self.numbers.below(12) {
            0 => Fate::Badly,
            1 => Fate::DiesInRecv,
            2 => Fate::Dies,
            3 => Fate::DiesInAck,
            4 => Fate::IsTakenOver,
            _ => Fate::Well,
        }
    }

    /// Text and dedupe id of the next thing that is sent.
    fn key(&mut self, what: &str) -> String {
        self.sent += 1;
        format!("{what} {} {}", self.name, self.sent)
    }

    fn anybody(&mut self) -> &'static str {
        let others = AGENTS.into_iter().filter(|agent| *agent != self.name);
        let others: Vec<_> = others.collect();
        others[usize::try_from(self.numbers.below(others.len() as u64)).unwrap()]
    }

    fn send(&mut self) {
        let to_operator = self.to_operator < MAX_TO_OPERATOR && self.numbers.below(10) == 0;
        let to = if to_operator { OPERATOR } else { self.anybody() };
        self.to_operator += u64::from(to_operator);
        let key = self.key("m");
        let message = json!({ "to": to, "kind": "message", "body": key, "dedupe": key });
        self.send_as(to, key, &message);
    }

    fn send_as(&mut self, to: &str, key: String, message: &Value) {
        if let Some(answer) = self.post("/v1/send", message) {
            self.note_sent(to, key, &answer.ok());
        }
    }

    fn note_sent(&self, to: &str, key: String, answer: &SendResponse) {
        let (from, to) = (self.name.clone(), to.to_owned());
        let SendResponse { id, duplicate: again } = *answer;
        self.account.note(Did::Sent {
            from,
            to,
            key,
            id,
            again,
        });
    }

    fn broadcast(&mut self) {
        let key = self.key("all");
        let message = json!({ "body": key, "dedupe": key });
        if let Some(answer) = self.post("/v1/broadcast", &message) {
            let answer: BroadcastResponse = answer.ok();
            let (from, count) = (self.name.clone(), answer.count);
            self.account.note(Did::Broadcast { from, key, count });
        }
    }

    fn ask(&mut self) {
        if self.asked.len() >= MAX_ASKED {
            return;
        }
        let endings = [Ending::Message, Ending::Route, Ending::Default, Ending::Cancel];
        let ending = endings[usize::try_from(self.numbers.below(4)).unwrap()];
        let to = self.anybody();
        let key = self.key(&format!("{ending:?}"));
        let mut question = json!({ "to": to, "body": key, "dedupe": key });
        if ending == Ending::Default {
            question["ttlSecs"] = 1.into();
            question["default"] = format!("default of {key}").into();
        }
        let Some(answer) = self.post("/v1/questions", &question) else {
            return;
        };
        let QuestionInfo { id, .. } = answer.ok();
        self.asked.insert(id);
        if ending == Ending::Cancel {
            self.to_cancel.push(id);
        }
        let from = self.name.clone();
        self.account.note(Did::Asked {
            from,
            key,
            id,
            ending,
        });
    }

    fn cancel(&mut self) {
        for id in std::mem::take(&mut self.to_cancel) {
            // Another try is told that it was done.
            self.until_answered("DELETE", &format!("/v1/questions/{id}"), None, &[200, 409]);
        }
    }

    fn remind(&mut self) {
        let key = self.key("reminder");
        let reminder = json!({ "schedule": { "afterSecs": 1 }, "body": key, "dedupe": key });
        if let Some(answer) = self.post("/v1/reminders", &reminder) {
            let ReminderInfo { id, .. } = answer.ok();
            let owner = self.name.clone();
            self.account.note(Did::Reminded { owner, key, id });
        }
    }

    fn turn(&mut self, fate: Fate) {
        self.turns += 1;
        let turn = self.turns;
        if self.report(Some(turn)).is_none() {
            return;
        }
        let mut received = 0;
        for _ in 0..=self.numbers.below(3) {
            self.recv(turn, &mut received);
        }
        // What an earlier run has to say of its turn says nothing of this one.
        if let Some(late) = self.failed.filter(|_| received > 0 && self.numbers.below(4) == 0) {
            self.until_answered("POST", "/v1/ack", Some(&ack(&self.name, late, true, 1)), &[204]);
            self.account.note(Did::Late {
                by: self.name.clone(),
                turn: late,
            });
        }
        let end = match fate {
            Fate::Well => self.ack(turn, true, received),
            Fate::Badly => self.ack(turn, false, received),
            Fate::IsTakenOver => {
                self.another_run();
                if self.report(Some(turn)).is_none() {
                    return;
                }
                self.recv(turn, &mut received);
                self.ack(turn, true, received)
            }
            Fate::Dies => Some(End::Died),
            Fate::DiesInRecv => {
                self.hang_up("/v1/recv", &recv(&self.name, turn, received, 3, 0));
                Some(End::Died)
            }
            Fate::DiesInAck => {
                self.hang_up("/v1/ack", &ack(&self.name, turn, true, received));
                Some(End::Unsure)
            }
        };
        let Some(end) = end else { return };
        self.account.note(Did::Ended {
            by: self.name.clone(),
            turn,
            end,
        });
        if matches!(end, End::Died | End::Unsure) {
            self.another_run();
        }
        self.was_well = end == End::Acknowledged;
        if !self.was_well {
            self.failed = Some(turn);
        }
        let _over = self.report(None);
    }

    fn another_run(&mut self) {
        self.run += 1;
        self.reports = 0;
    }

    fn report(&mut self, lease: Option<u64>) -> Option<Answer> {
        self.reports += 1;
        let state = if lease.is_some() { "thinking" } else { "idle" };
        let report = json!({
            "version": "1",
            "runId": format!("{} {}", self.name, self.run),
            "seq": self.reports,
            "lease": lease.map(|turn| turn_id(&self.name, turn)),
            "turn": state,
        });
        self.post("/v1/poll", &json!({ "report": report, "waitSecs": 0 }))
    }

    fn recv(&mut self, turn: u64, received: &mut u64) {
        let wait = u64::from(self.numbers.below(12) == 0);
        let request = recv(&self.name, turn, *received, 1 + self.numbers.below(5), wait);
        let Some(answer) = self.post("/v1/recv", &request) else {
            return;
        };
        let RecvResponse { batch, messages } = answer.ok();
        if messages.is_empty() {
            return;
        }
        *received = batch;
        let taken = messages.iter().map(|message| Taken {
            id: message.id,
            from: message.from.to_string(),
            redelivered: message.redelivered,
        });
        let (by, taken) = (self.name.clone(), taken.collect());
        self.account.note(Did::TookUp {
            by,
            turn,
            batch,
            messages: taken,
        });
        for message in messages {
            let from = message.from.to_string();
            self.handle(message.id, &from, message.kind, message.reply_to, &message.body);
        }
    }

    /// Does what a message asks for. When it comes again that is the same.
    fn handle(&mut self, id: u64, from: &str, kind: MessageKind, reply_to: Option<u64>, body: &str) {
        let is = |ending: Ending| body.starts_with(&format!("{ending:?} "));
        match kind {
            MessageKind::Question if is(Ending::Message) => {
                let key = format!("answer {id}");
                let answer =
                    json!({ "to": from, "kind": "answer", "replyTo": id, "body": key, "dedupe": key });
                self.send_as(from, key, &answer);
            }
            MessageKind::Question if is(Ending::Route) => {
                let answer = json!({ "body": format!("answer {id}") });
                let path = format!("/v1/questions/{id}/answer");
                self.until_answered("POST", &path, Some(&answer), &[200, 409]);
            }
            MessageKind::Answer => {
                self.asked.remove(&reply_to.expect("an answer to something"));
            }
            MessageKind::Message if body.starts_with("m ") && from != OPERATOR && id.is_multiple_of(3) => {
                let key = format!("re {id}");
                let reply =
                    json!({ "to": from, "kind": "message", "replyTo": id, "body": key, "dedupe": key });
                self.send_as(from, key, &reply);
            }
            _ => {}
        }
    }

    fn ack(&mut self, turn: u64, done: bool, received: u64) -> Option<End> {
        let ack = ack(&self.name, turn, done, received);
        self.until_answered("POST", "/v1/ack", Some(&ack), &[204])?;
        Some(if done { End::Acknowledged } else { End::GivenBack })
    }

    fn post(&mut self, path: &str, body: &Value) -> Option<Answer> {
        self.until_answered("POST", path, Some(body), &[200])
    }

    fn hang_up(&self, path: &str, body: &Value) {
        self.account.request();
        hang_up(&self.socket, &request("POST", path, body.to_string().as_bytes()));
    }

    /// Asks until it is answered, with one of these; `None` when the test has failed.
    fn until_answered(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        expected: &[u16],
    ) -> Option<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request(method, path, body.as_bytes());
        let mut last = String::new();
        let answer = within(2 * DEADLINE, || {
            if self.account.phase() == Phase::Failed {
                return Some(None);
            }
            self.account.request();
            if self.numbers.below(LOST_OF) == 0 {
                hang_up(&self.socket, &request);
                return None;
            }
            match http::send(&self.socket, &request) {
                Ok(answer) if expected.contains(&answer.status) => Some(Some(answer)),
                // Full, or more than it may send.
                Ok(answer) if answer.status == 429 => {
                    last = answer.text();
                    None
                }
                Ok(answer) => panic!(
                    "{} {method} {path} {body}: {} {}",
                    self.name,
                    answer.status,
                    answer.text()
                ),
                Err(error) => {
                    last = error.to_string();
                    None
                }
            }
        });
        answer.unwrap_or_else(|| panic!("{} is never answered: {method} {path}: {last}", self.name))
    }
}

fn request<'a>(method: &'a str, path: &'a str, body: &'a [u8]) -> Request<'a> {
    let headers: &[_] = if body.is_empty() {
        &[]
    } else {
        &[("content-type", "application/json")]
    };
    Request {
        method,
        path,
        headers,
        body,
    }
}

/// Sends a request and hangs up: whether it is carried out is not known.
fn hang_up(socket: &Utf8Path, request: &Request<'_>) {
    let Request {
        method, path, body, ..
    } = request;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: hive\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // A daemon that is away carries nothing out.
    if let Ok(mut stream) = UnixStream::connect(socket) {
        let _lost = stream.write_all(&[head.as_bytes(), body].concat());
    }
}

fn turn_id(agent: &str, turn: u64) -> TurnId {
    let index = AGENTS.iter().position(|known| *known == agent).unwrap();
    TurnId(Uuid::from_u128(((index as u128) << 64) | u128::from(turn)))
}

fn recv(agent: &str, turn: u64, received: u64, max: u64, wait: u64) -> Value {
    json!({ "turn": turn_id(agent, turn), "max": max, "waitSecs": wait, "received": received })
}

fn ack(agent: &str, turn: u64, done: bool, received: u64) -> Value {
    json!({ "turn": turn_id(agent, turn), "done": done, "received": received })
}
