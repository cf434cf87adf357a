//! Loose ends: what is still open and involves somebody. A view of rows that others write; nothing is stored for it.

use jiff::Timestamp;
use rusqlite::Connection;
use shared::agent_api::MessageKind;
use shared::gate::{Gate, GateState};
use shared::loose_end::{LooseEnd, LooseEndId, LooseEndKind};
use shared::question::QuestionInfo;
use shared::reminder::ReminderInfo;
use shared::{Address, AgentName};

use super::rights::{Party, is_manager};
use super::{Broker, SendError, mail, questions, reminders};
use crate::ledger::questions::{self as asked, Involving};
use crate::ledger::sent::{self, DeadMessage};
use crate::ledger::{LedgerError, Listing, TxError, Undecodable, open_gates, reminders as set};
use crate::untrusted;

/// The most messages that are given up in one list.
const MAX_DEAD: u32 = 500;
/// The longest line about a loose end, in characters.
const MAX_ABOUT: usize = 160;

/// All that may be a loose end, as the ledger has it.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) questions: Listing<QuestionInfo>,
    pub(crate) reminders: Listing<ReminderInfo>,
    pub(crate) gates: Listing<Gate>,
    pub(crate) dead: Vec<DeadMessage>,
}

impl Rows {
    /// Those that involve this agent, or anybody.
    pub(super) fn of(db: &Connection, agent: Option<&AgentName>) -> Result<Self, LedgerError> {
        let pending = set::pending(db, agent)?;
        Ok(Self {
            questions: asked::listed(db, agent.map_or(Involving::Anybody, Involving::Agent), false)?,
            reminders: Listing {
                items: pending.items.into_iter().map(|reminder| reminder.info).collect(),
                undecodable: pending.undecodable,
            },
            gates: open_gates(db, agent)?,
            dead: sent::dead(db, agent, MAX_DEAD)?,
        })
    }
}

/// A loose end was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum LooseEndError {
    /// It is a question that cannot be taken back.
    #[error(transparent)]
    Question(#[from] SendError),
    /// It is a reminder that cannot be taken back.
    #[error(transparent)]
    Reminder(#[from] reminders::ReminderError),
    /// It is a message about which there is nothing to take note of.
    #[error(transparent)]
    Message(#[from] mail::MessageError),
    /// It is a gate.
    #[error("gate {0} is no agent's to take back: only the operator decides")]
    Gate(u64),
    /// It is a gate, and whoever asks may decide about it.
    #[error("gate {0} is decided, not taken back")]
    Decide(u64),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for LooseEndError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Question(error) => error.ledger(),
            Self::Reminder(error) => error.ledger(),
            Self::Message(error) => error.ledger(),
            Self::Ledger(error) => Some(error),
            Self::Gate(_) | Self::Decide(_) => None,
        }
    }
}

impl Broker {
    /// What is open and involves this agent, the oldest first; of a manager, and of `None`, everybody's.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn loose_ends(&self, agent: Option<&AgentName>) -> Result<Vec<LooseEnd>, LedgerError> {
        let agent = agent.cloned();
        self.ledger
            .read(move |db| {
                let of = match &agent {
                    Some(name) if is_manager(db, name)? => None,
                    of => of.as_ref(),
                };
                Ok(view(Rows::of(db, of)?))
            })
            .await
    }

    /// Takes a loose end back: whose it is may, a manager, and the operator. About gates only the operator decides.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn drop_loose_end(
        &self,
        end: LooseEndId,
        by: Address,
        at: Timestamp,
    ) -> Result<(), LooseEndError> {
        let LooseEndId { kind, number } = end;
        self.ledger
            .write(move |tx| match kind {
                LooseEndKind::Question => Ok(questions::drop_question(tx, number, &by, at)?),
                LooseEndKind::Reminder => Ok(reminders::forget(tx, number, &by, at)?),
                LooseEndKind::Gate if by == Address::Operator => Err(LooseEndError::Decide(number)),
                LooseEndKind::Gate => Err(LooseEndError::Gate(number)),
                LooseEndKind::Message => {
                    let party = Party::of(tx, &by)?;
                    Ok(mail::dismiss(tx, number, &party, at)?)
                }
            })
            .await
    }
}

/// The loose ends in these rows, the oldest first. A row that cannot be read is one too.
pub(crate) fn view(rows: Rows) -> Vec<LooseEnd> {
    let Rows {
        questions,
        reminders,
        gates,
        dead,
    } = rows;
    let mut ends: Vec<LooseEnd> = questions.items.iter().map(of_question).collect();
    ends.extend(
        questions
            .undecodable
            .iter()
            .map(|row| unreadable(LooseEndKind::Question, row)),
    );
    ends.extend(reminders.items.iter().map(of_reminder));
    ends.extend(
        reminders
            .undecodable
            .iter()
            .map(|row| unreadable(LooseEndKind::Reminder, row)),
    );
    let open = gates.items.iter().filter(|gate| gate.state == GateState::Open);
    ends.extend(open.map(of_gate));
    ends.extend(
        gates
            .undecodable
            .iter()
            .map(|row| unreadable(LooseEndKind::Gate, row)),
    );
    ends.extend(dead.iter().map(of_message));
    ends.sort_by(|a, b| (a.since, a.kind, &a.id).cmp(&(b.since, b.kind, &b.id)));
    ends
}

fn named(kind: LooseEndKind, number: u64) -> String {
    LooseEndId { kind, number }.to_string()
}

/// The beginning of a text, in one line that is safe to show.
fn about(text: &str) -> String {
    let line = untrusted::line(text, MAX_ABOUT);
    if line.is_empty() {
        "(no text)".to_owned()
    } else {
        line
    }
}

fn of_question(question: &QuestionInfo) -> LooseEnd {
    LooseEnd {
        id: named(LooseEndKind::Question, question.id),
        kind: LooseEndKind::Question,
        owner: question.from.clone(),
        waits_for: Some(question.to.clone()),
        about: about(&question.body),
        since: question.asked_at,
        due: question.expires_at,
        error: None,
    }
}

fn of_reminder(reminder: &ReminderInfo) -> LooseEnd {
    LooseEnd {
        id: named(LooseEndKind::Reminder, reminder.id),
        kind: LooseEndKind::Reminder,
        owner: reminder.author().clone(),
        waits_for: None,
        about: match &reminder.set_by {
            Some(_) => about(&format!("for {}: {}", reminder.owner, reminder.body)),
            None => about(&reminder.body),
        },
        since: reminder.set_at,
        due: reminder.due,
        error: reminder.error.clone(),
    }
}

fn of_gate(gate: &Gate) -> LooseEnd {
    LooseEnd {
        id: named(LooseEndKind::Gate, gate.id.0),
        kind: LooseEndKind::Gate,
        owner: Address::Operator,
        waits_for: Some(Address::Operator),
        about: about(&gate.view.summary),
        since: gate.opened_at,
        due: None,
        error: None,
    }
}

fn of_message(dead: &DeadMessage) -> LooseEnd {
    let message = &dead.message;
    let why = if !dead.readable {
        "it cannot be read".to_owned()
    } else if dead.reachable {
        format!("{} turns failed over it", message.deliveries)
    } else {
        format!("there is no agent {} any more", message.to)
    };
    let kind = match message.kind {
        MessageKind::Question => "question",
        MessageKind::Answer => "answer",
        MessageKind::System => "notice",
        MessageKind::Message | MessageKind::Unknown => "message",
    };
    LooseEnd {
        id: named(LooseEndKind::Message, message.id),
        kind: LooseEndKind::Message,
        owner: mail::owner(message).clone(),
        waits_for: (dead.readable && dead.reachable).then_some(Address::Operator),
        about: format!(
            "{kind} of {} to {}: {}",
            message.from,
            message.to,
            about(&message.body)
        ),
        since: message.at,
        due: None,
        error: Some(why),
    }
}

/// A row that cannot be read is nobody's but the operator's.
fn unreadable(kind: LooseEndKind, row: &Undecodable) -> LooseEnd {
    LooseEnd {
        id: named(kind, row.key.parse().unwrap_or_default()),
        kind,
        owner: Address::Operator,
        waits_for: Some(Address::Operator),
        about: format!("a {} that cannot be read", kind.as_str()),
        since: Timestamp::UNIX_EPOCH,
        due: None,
        error: Some(crate::error_chain(row)),
    }
}

#[cfg(test)]
mod tests;
