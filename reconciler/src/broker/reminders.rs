//! Reminders: set, listed, taken back, and delivered when they are due.

use jiff::Timestamp;
use shared::agent_api::MessageKind;
use shared::reminder::{MAX_REMINDER_BYTES, ReminderInfo, ReminderRequest};
use shared::topic::Topic;
use shared::{Address, AgentName};

use super::rights::Party;
use super::schedule::{self, Delivery, ScheduleError};
use super::{Broker, MAX_DEDUPE_CHARS, MAX_INBOX, is_dedupe};
use crate::ledger::messages::{self, NewMessage};
use crate::ledger::reminders::{self, NewReminder, Reminder};
use crate::ledger::{LedgerError, Tx, TxError, bounded};

/// The most reminders an agent may have that are not over.
pub const MAX_REMINDERS: u64 = 200;

/// A reminder was not accepted, or cannot be taken back.
#[derive(Debug, thiserror::Error)]
pub enum ReminderError {
    /// Its schedule is none.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Its text is too long.
    #[error(
        "the reminder has {0} bytes, {MAX_REMINDER_BYTES} at most are allowed: write it to a file and name that"
    )]
    TooLarge(usize),
    /// Its dedupe id is too long or empty.
    #[error("the dedupe id {0:?} must have 1 to {MAX_DEDUPE_CHARS} characters")]
    BadDedupe(String),
    /// Its owner has enough.
    #[error("{0} has {MAX_REMINDERS} reminders: take one back before you set another")]
    TooMany(AgentName),
    /// There is none of that number.
    #[error("there is no reminder {0}: the list of loose ends shows those that are to come")]
    NotFound(u64),
    /// It is somebody else's.
    #[error("reminder {id} is not {who}'s: only who set it, a manager or the operator may take it back")]
    NotOwner {
        /// The reminder.
        id: u64,
        /// Who would take it back.
        who: Address,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for ReminderError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            _ => None,
        }
    }
}

impl Broker {
    /// Sets a reminder that an agent wants; once this returns it survives a crash.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn remind(
        &self,
        owner: &AgentName,
        request: ReminderRequest,
        at: Timestamp,
    ) -> Result<ReminderInfo, ReminderError> {
        self.set_reminder(owner, None, request, at).await
    }

    /// Sets a reminder that the operator wants an agent to have. The agent itself cannot take it back.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn remind_for_operator(
        &self,
        owner: &AgentName,
        request: ReminderRequest,
        at: Timestamp,
    ) -> Result<ReminderInfo, ReminderError> {
        let set_by = Some(Address::Operator);
        self.set_reminder(owner, set_by, request, at).await
    }

    async fn set_reminder(
        &self,
        owner: &AgentName,
        set_by: Option<Address>,
        request: ReminderRequest,
        at: Timestamp,
    ) -> Result<ReminderInfo, ReminderError> {
        let ReminderRequest {
            schedule,
            body,
            missed,
            dedupe,
        } = request;
        if body.len() > MAX_REMINDER_BYTES {
            return Err(ReminderError::TooLarge(body.len()));
        }
        if let Some(id) = dedupe.as_deref().filter(|id| !is_dedupe(id)) {
            return Err(ReminderError::BadDedupe(bounded(id, 32)));
        }
        // What the agent names so is another one.
        let dedupe = dedupe.map(|id| match &set_by {
            Some(by) => format!("{by}/{id}"),
            None => id,
        });
        let owner = owner.clone();
        self.ledger
            .write(move |tx| {
                if let Some(dedupe) = &dedupe
                    && let Some(known) = reminders::duplicate(tx, &owner, dedupe)?
                {
                    return Ok(known.info);
                }
                // On the ledger's thread: a time zone may be read from a file.
                let (due, schedule) = schedule::first_due(&schedule, at)?;
                if reminders::count(tx, &owner)? >= MAX_REMINDERS {
                    return Err(ReminderError::TooMany(owner));
                }
                let new = NewReminder {
                    owner: &owner,
                    set_by: set_by.as_ref(),
                    body: &body,
                    schedule: &schedule,
                    missed,
                    dedupe: dedupe.as_deref(),
                    due,
                    at,
                };
                let id = reminders::insert(tx, &new)?;
                Ok(existing(tx, id)?.info)
            })
            .await
    }

    /// An agent's reminders that are not over, the next first.
    ///
    /// # Errors
    /// When the ledger fails, or a row cannot be read.
    pub async fn reminders(&self, owner: &AgentName) -> Result<Vec<ReminderInfo>, LedgerError> {
        let owner = owner.clone();
        let pending = self
            .ledger
            .read(move |db| reminders::pending(db, Some(&owner)))
            .await?
            .complete()?;
        Ok(pending.into_iter().map(|reminder| reminder.info).collect())
    }

    /// Takes a reminder back: its owner may, a manager, and the operator. One that is over stays over.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn forget_reminder(&self, id: u64, by: Address, at: Timestamp) -> Result<(), ReminderError> {
        self.ledger.write(move |tx| forget(tx, id, &by, at)).await
    }
}

/// Takes a reminder back.
pub(super) fn forget(tx: &mut Tx<'_>, id: u64, by: &Address, at: Timestamp) -> Result<(), ReminderError> {
    let party = Party::of(tx, by)?;
    match reminders::get(tx, id) {
        Ok(None) => return Err(ReminderError::NotFound(id)),
        Ok(Some(reminder)) if !party.may_end(reminder.info.author()) => {
            let who = by.clone();
            return Err(ReminderError::NotOwner { id, who });
        }
        // What cannot be read has no owner that can be told; who is over all may still be rid of it.
        Err(LedgerError::Undecodable(_)) if party.over_all => {}
        Ok(Some(_)) => {}
        Err(error) => return Err(error.into()),
    }
    reminders::end(tx, id, at)?;
    Ok(())
}

fn existing(tx: &Tx<'_>, id: u64) -> Result<Reminder, ReminderError> {
    reminders::get(tx, id)?.ok_or(ReminderError::NotFound(id))
}

/// Delivers a reminder that is due, and says when it comes next, in one transaction.
pub(super) fn deliver(tx: &mut Tx<'_>, reminder: &Reminder, now: Timestamp) -> Result<(), LedgerError> {
    let ReminderInfo {
        id,
        owner,
        set_by,
        body,
        schedule,
        missed,
        due,
        error,
        ..
    } = &reminder.info;
    let (Some(due), Address::Agent(name)) = (*due, owner) else {
        return reminders::end(tx, *id, now);
    };
    let which = match set_by {
        Some(by) => format!("reminder {id} of the {by}, due {due}"),
        None => format!("reminder {id}, due {due}"),
    };
    let next = schedule::next_due(schedule, due, now);
    let text = match schedule::delivery(*missed, due, error.is_some(), now) {
        Delivery::Give => format!("{which}: {body}"),
        Delivery::GiveLate => format!("{which}, late: {body}"),
        Delivery::TellMissed => format!("{which}, was missed and does not come: {body}"),
        Delivery::Skip => {
            reminders::note_missed(tx, reminder, due, now)?;
            return move_on(tx, *id, next, None, now);
        }
    };
    // One that the agent has not taken up yet stands for those after it: a sleeping agent wakes to one message, and
    // its inbox has room for others.
    if let Some(before) = reminder.message
        && messages::is_queued(tx, before)?
    {
        return move_on(tx, *id, next, None, now);
    }
    if !messages::is_reachable(tx, name)? {
        let error = format!("{name} gets no mail");
        return reminders::fail(tx, *id, &error, Some(schedule::try_again(due, now)));
    }
    if !messages::has_room(tx, owner, MAX_INBOX)? {
        let error = format!("the inbox of {name} is full ({MAX_INBOX} undelivered messages)");
        return reminders::fail(tx, *id, &error, Some(schedule::try_again(due, now)));
    }
    let message = NewMessage {
        from: &Address::System,
        to: owner,
        kind: MessageKind::System,
        topic: Some(Topic::Reminder),
        body: &text,
        reply_to: None,
        dedupe: Some(&reminders::dedupe(*id, due)),
        at: now,
    };
    let sent = messages::insert(tx, &message)?;
    move_on(tx, *id, next, Some(sent), now)
}

/// What was due is dealt with. Without a next time that can be told the reminder stays, and says why.
fn move_on(
    tx: &Tx<'_>,
    id: u64,
    next: Result<Option<Timestamp>, ScheduleError>,
    message: Option<u64>,
    now: Timestamp,
) -> Result<(), LedgerError> {
    match next {
        Ok(next) => reminders::advance(tx, id, next, message, now),
        Err(error) => reminders::fail(tx, id, &error.to_string(), None),
    }
}
