//! What the ledger holds at the end, beside what the clients know.

use std::collections::{BTreeMap, BTreeSet};

use shared::agent_api::{DeliveryState, MessageKind, SentMessage};

use super::AGENTS;
use super::account::{Account, Did, End, Ending, Subjects};
use super::client::OPERATOR;
use crate::http;
use crate::load::events;
use crate::world::World;

/// How many messages are asked for at once.
const PAGE: usize = 500;

/// What is wrong, and how much was tried.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) faults: Vec<(String, Subjects)>,
    pub(crate) counts: String,
}

impl Found {
    fn fault(&mut self, text: String, about: impl IntoIterator<Item = u64>) {
        self.faults.push((text, about.into_iter().collect()));
    }

    /// The faults, and the history of the first of them.
    pub(crate) fn shown(&self, account: &Account) -> String {
        let lines: Vec<&str> = self
            .faults
            .iter()
            .map(|(text, _)| text.as_str())
            .take(20)
            .collect();
        let about = self.faults.iter().find(|(_, about)| !about.is_empty());
        let history = about.map_or_else(String::new, |(text, about)| {
            format!("\nhow that came, of {text:?}:\n{}", account.history(about))
        });
        format!("{} faults\n{}{history}", self.faults.len(), lines.join("\n"))
    }
}

/// The first messages in a list of what is left.
pub(crate) fn subjects(left: &[String]) -> Subjects {
    let numbers = left.iter().filter_map(|line| {
        let (kind, rest) = line.split_once(' ')?;
        let number = rest.split(' ').next()?.parse().ok()?;
        (kind != "reminder").then_some(number)
    });
    numbers.take(2).collect()
}

/// All messages, oldest first.
fn rows(world: &World, path: &str, agent: Option<&str>) -> Vec<SentMessage> {
    let mut rows: Vec<SentMessage> = Vec::new();
    loop {
        let before = rows
            .last()
            .map_or_else(String::new, |row| format!("&before={}", row.id));
        let path = format!("{path}?limit={PAGE}{before}");
        let socket = agent.map_or_else(|| world.socket(), |agent| world.door(agent));
        let page: Vec<SentMessage> = http::get(&socket, &path).unwrap().ok();
        if page.is_empty() {
            rows.reverse();
            return rows;
        }
        rows.extend(page);
    }
}

/// A turn that took something up.
type Turn = (String, u64);

/// What the clients know, put in order.
#[derive(Debug, Default)]
struct Known {
    /// By sender and key: the number and the recipient of what was accepted.
    sent: BTreeMap<(String, String), (u64, String)>,
    /// By sender, in the order in which they were accepted.
    order: BTreeMap<String, Vec<u64>>,
    /// By sender and key: who got it.
    broadcasts: BTreeMap<(String, String), BTreeSet<String>>,
    asked: BTreeMap<u64, (String, String, Ending)>,
    reminders: BTreeMap<u64, (String, String)>,
    /// By message, the turns that took it up, in their order.
    taken: BTreeMap<u64, Vec<(Turn, bool)>>,
    /// By recipient and sender, in the order in which they were first taken up.
    first: BTreeMap<(String, String), Vec<u64>>,
    ended: BTreeMap<Turn, End>,
    repeated: usize,
}

impl Known {
    fn of(account: &Account, found: &mut Found) -> Self {
        let mut known = Self::default();
        for did in account.did().iter().cloned() {
            known.take_in(did, found);
        }
        known
    }

    fn take_in(&mut self, did: Did, found: &mut Found) {
        match did {
            Did::Sent {
                from,
                to,
                key,
                id,
                again,
            } => {
                self.repeated += usize::from(again);
                let key = (from.clone(), key);
                match self.sent.get(&key) {
                    Some((first, _)) if *first != id => {
                        found.fault(
                            format!("{key:?} is message {first} and message {id}"),
                            [*first, id],
                        );
                    }
                    Some(_) => {}
                    None => {
                        self.sent.insert(key, (id, to));
                        self.order.entry(from).or_default().push(id);
                    }
                }
            }
            Did::Broadcast { from, key, count } => {
                let others = AGENTS.len() as u64 - 1;
                self.repeated += usize::from(count == 0);
                if count != others && count != 0 {
                    found.fault(format!("{key:?} went to {count} of {others} agents"), []);
                }
                self.broadcasts.insert((from, key), BTreeSet::new());
            }
            Did::Asked {
                from,
                key,
                id,
                ending,
            } => {
                self.order.entry(from.clone()).or_default().push(id);
                self.asked.insert(id, (from, key, ending));
            }
            Did::Reminded { owner, key, id } => {
                self.reminders.insert(id, (owner, key));
            }
            Did::TookUp {
                by, turn, messages, ..
            } => {
                for message in messages {
                    let turns = self.taken.entry(message.id).or_default();
                    if turns.is_empty() {
                        let pair = (by.clone(), message.from.clone());
                        self.first.entry(pair).or_default().push(message.id);
                    }
                    turns.push(((by.clone(), turn), message.redelivered));
                }
            }
            Did::Ended { by, turn, end } => {
                self.ended.insert((by, turn), end);
            }
            Did::Late { .. } | Did::Killed(_) => {}
        }
    }
}

/// Compares what is there with what must be.
pub(crate) fn check(world: &World, account: &Account) -> Found {
    let mut found = Found::default();
    let mut known = Known::of(account, &mut found);
    let rows = rows(world, "/v1/messages", None);
    texts(&rows, &mut known, &mut found);
    for row in &rows {
        state(row, &known, &mut found);
    }
    orders(&known, &mut found);
    questions(world, &rows, &known, &mut found);
    reminders(&rows, &known, &mut found);
    senders(world, &rows, &mut found);
    noise(world, &rows, &mut found);
    let again = known.taken.values().filter(|turns| turns.len() > 1).count();
    let dead = rows.iter().filter(|row| row.state == DeliveryState::Dead).count();
    found.counts = format!(
        "{} messages, {} questions, {} reminders; {again} handled more than once, {} sends known already, \
         {dead} questions withdrawn",
        rows.len(),
        known.asked.len(),
        known.reminders.len(),
        known.repeated
    );
    for (what, count) in [
        ("sent", known.sent.len()),
        ("asked", known.asked.len()),
        ("broadcast", known.broadcasts.len()),
        ("set as a reminder", known.reminders.len()),
        ("handled more than once", again),
        ("repeated after its answer was lost", known.repeated),
    ] {
        if count == 0 {
            found.fault(format!("nothing was {what}: this run shows nothing"), []);
        }
    }
    found
}

/// What was accepted is there once, and nothing else is.
fn texts(rows: &[SentMessage], known: &mut Known, found: &mut Found) {
    let mut missing: BTreeSet<u64> = known.sent.values().map(|(id, _)| *id).collect();
    missing.extend(known.asked.keys());
    for row in rows {
        let id = row.id;
        missing.remove(&id);
        let to = row.to.to_string();
        let key = (row.from.to_string(), row.body.clone());
        let is_known = match row.kind {
            MessageKind::Question => known.asked.contains_key(&id),
            MessageKind::Message => match known.broadcasts.get_mut(&key) {
                Some(reached) => reached.insert(to),
                None => known.sent.get(&key) == Some(&(id, to)),
            },
            // Looked at with their questions and reminders.
            MessageKind::Answer | MessageKind::System => true,
            MessageKind::Unknown => false,
        };
        if !is_known {
            found.fault(format!("nobody sent this, or it is there twice: {row:?}"), [id]);
        }
    }
    for id in missing {
        found.fault(format!("message {id} was accepted and is not there"), [id]);
    }
    for (key, reached) in &known.broadcasts {
        if reached.len() + 1 != AGENTS.len() {
            found.fault(format!("{key:?} reached only {reached:?}"), []);
        }
    }
}

/// Each message was handled, and acknowledged by the last turn that had it and by none before.
fn state(row: &SentMessage, known: &Known, found: &mut Found) {
    let id = row.id;
    let nobody_answers = matches!(
        known.asked.get(&id),
        Some((_, _, Ending::Default | Ending::Cancel))
    );
    let turns = known.taken.get(&id).map_or(&[][..], Vec::as_slice);
    let withdrawn = nobody_answers && turns.is_empty() && row.state == DeliveryState::Dead;
    if withdrawn {
        return;
    }
    if row.state != DeliveryState::Delivered {
        found.fault(format!("not delivered: {row:?}"), [id]);
        return;
    }
    if row.to.to_string() == OPERATOR {
        return;
    }
    let Some(((last, _), before)) = turns.split_last() else {
        found.fault(format!("delivered, and no turn had it: {row:?}"), [id]);
        return;
    };
    let end = |turn: &Turn| known.ended.get(turn).copied();
    if !matches!(end(last), Some(End::Acknowledged | End::Unsure)) {
        let end = end(last);
        found.fault(
            format!("lost with turn {}, which ended {end:?}: {row:?}", last.1),
            [id],
        );
    }
    for (turn, _) in before {
        if end(turn) == Some(End::Acknowledged) {
            found.fault(
                format!("given again after turn {} had acknowledged it: {row:?}", turn.1),
                [id],
            );
        }
        if turn == last {
            found.fault(format!("given twice to turn {}: {row:?}", turn.1), [id]);
        }
    }
    if turns.iter().skip(1).any(|(_, redelivered)| !redelivered) {
        found.fault(format!("given again as if for the first time: {row:?}"), [id]);
    }
}

/// Numbers rise in the order in which things were sent, and first came in.
fn orders(known: &Known, found: &mut Found) {
    let sent = known
        .order
        .iter()
        .map(|(from, ids)| (format!("sent by {from}"), ids));
    let first = known
        .first
        .iter()
        .map(|((by, from), ids)| (format!("taken up by {by} from {from}"), ids));
    for (what, ids) in sent.chain(first) {
        for pair in ids.windows(2).filter(|pair| pair[0] >= pair[1]) {
            found.fault(
                format!("{what} out of order: {} before {}", pair[0], pair[1]),
                pair.to_vec(),
            );
        }
    }
}

/// Each question has ended in its way, and its asker was told once.
fn questions(world: &World, rows: &[SentMessage], known: &Known, found: &mut Found) {
    let states = world.messages("SELECT id, state FROM questions");
    let states: BTreeMap<&str, &str> = states.iter().filter_map(|line| line.split_once(' ')).collect();
    let asked: BTreeMap<u64, &SentMessage> = rows.iter().map(|row| (row.id, row)).collect();
    for (id, (from, key, ending)) in &known.asked {
        let to = asked.get(id).map_or_else(String::new, |row| row.to.to_string());
        let (state, by, answer) = match ending {
            Ending::Message | Ending::Route => ("answered", to, format!("answer {id}")),
            Ending::Default => ("expired", "system".to_owned(), format!("default of {key}")),
            Ending::Cancel => ("cancelled", from.clone(), format!("[cancelled by {from}]")),
        };
        let told: Vec<_> = rows
            .iter()
            .filter(|row| row.kind == MessageKind::Answer && row.reply_to == Some(*id))
            .map(|row| (row.from.to_string(), row.to.to_string(), row.body.clone()))
            .collect();
        let found_state = states.get(id.to_string().as_str()).copied();
        if found_state != Some(state) || told != [(by, from.clone(), answer)] {
            found.fault(
                format!("question {id}, {ending:?}, is {found_state:?}, its asker was told {told:?}"),
                [*id],
            );
        }
    }
    if states.len() != known.asked.len() {
        found.fault(
            format!("{} questions, {} were asked", states.len(), known.asked.len()),
            [],
        );
    }
}

/// Each reminder came once.
fn reminders(rows: &[SentMessage], known: &Known, found: &mut Found) {
    let system: Vec<&SentMessage> = rows
        .iter()
        .filter(|row| row.kind == MessageKind::System)
        .collect();
    for (id, (owner, key)) in &known.reminders {
        let begin = format!("reminder {id}, due ");
        let came = system.iter().filter(|row| row.body.starts_with(&begin));
        let came: Vec<_> = came.map(|row| (row.id, row.to.to_string(), &row.body)).collect();
        let right =
            matches!(&came[..], [(_, to, body)] if to == owner && body.ends_with(&format!(": {key}")));
        if !right {
            found.fault(
                format!("reminder {id} of {owner} came as {came:?}"),
                came.iter().map(|row| row.0),
            );
        }
    }
    let came = system
        .iter()
        .filter(|row| row.body.starts_with("reminder "))
        .count();
    if came != known.reminders.len() {
        found.fault(
            format!("{came} reminders came, {} were set", known.reminders.len()),
            [],
        );
    }
}

/// Each sender is shown what the operator is.
fn senders(world: &World, rows: &[SentMessage], found: &mut Found) {
    for agent in AGENTS {
        let shown = self::rows(world, "/v1/messages/sent", Some(agent));
        let sent = rows.iter().filter(|row| row.from.to_string() == agent);
        let differ = shown.iter().zip(sent.clone()).find(|(shown, sent)| shown != sent);
        if let Some((shown, sent)) = differ {
            found.fault(format!("{agent} is shown {shown:?} for {sent:?}"), [sent.id]);
        }
        if shown.len() != sent.clone().count() {
            found.fault(
                format!("{agent} is shown {} of {} messages", shown.len(), sent.count()),
                [],
            );
        }
    }
}

/// Events say what happened and nothing else: no message given up, no row that cannot be read, one event for each message
/// to the operator.
fn noise(world: &World, rows: &[SentMessage], found: &mut Found) {
    let events = events(world);
    for pair in events.windows(2).filter(|pair| pair[0].seq + 1 != pair[1].seq) {
        found.fault(format!("a gap in the events after {}", pair[0].seq), []);
    }
    for event in events
        .iter()
        .filter(|event| matches!(event.kind.as_str(), "messageDead" | "undecodable"))
    {
        found.fault(
            format!("{}: {}", event.kind, event.message),
            event.data["message"].as_u64(),
        );
    }
    let mut to_operator: Vec<u64> = rows
        .iter()
        .filter(|row| row.to.to_string() == OPERATOR)
        .map(|row| row.id)
        .collect();
    for event in events.iter().filter(|event| event.kind == "messageToOperator") {
        let id = event.data["message"].as_u64().unwrap_or_default();
        let index = to_operator.iter().position(|known| *known == id);
        match index {
            Some(index) => drop(to_operator.remove(index)),
            None => found.fault(format!("told twice, or of nothing: {}", event.message), [id]),
        }
    }
    for id in to_operator {
        found.fault(format!("the operator was not told of message {id}"), [id]);
    }
}
