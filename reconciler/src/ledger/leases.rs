//! Leases: which turn has which messages.
//!
//! What one `recv` leases is a batch, numbered from 1 within its turn. The next `recv` and the end of the turn name the
//! last batch that came in. So a batch whose answer was lost is given once more, and is never acknowledged unseen.
//!
//! A receiver that waits is noted here, and gets what is sent to it within the sender's own transaction: one sync of
//! the disk stands between both, not two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Params, Row};
use shared::agent_api::Message;
use shared::event::Level;
use shared::{AgentName, TurnId};
use tokio::sync::oneshot;

use super::Tx;
use super::error::{Fault, LedgerError};
use super::events::{self, NewEvent};
use super::sql::{At, Columns as _, execute, int, text, undecodable};

/// A turn asks for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The turn.
    pub turn: TurnId,
    /// The last batch of this turn that came in; 0 before the first. A harness that does not count has seen all.
    pub received: Option<u64>,
    /// At most this many.
    pub max: u32,
    /// When it asked.
    pub at: Timestamp,
}

/// What was leased together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its number within the turn.
    pub number: u64,
    /// In the order in which they were sent; empty when there is nothing.
    pub messages: Vec<Message>,
}

/// Someone who asked when there was nothing.
#[derive(Debug)]
struct Receiver {
    ask: Ask,
    reply: oneshot::Sender<Batch>,
}

/// Who waits for messages: of each agent the one who asked last. A wait that ends without a batch was overtaken by a
/// later one, its turn was settled, or the write that would have ended it was undone.
#[derive(Debug, Default)]
pub(crate) struct Receivers(Mutex<BTreeMap<AgentName, Receiver>>);

impl Receivers {
    /// Notes who waits.
    pub(crate) fn note(&self, agent: &AgentName, ask: Ask, reply: oneshot::Sender<Batch>) {
        self.lock().insert(agent.clone(), Receiver { ask, reply });
    }

    /// Ends the wait of an agent for a turn whose leases are settled: nobody would settle what it took.
    pub(crate) fn end(&self, agent: &AgentName, settled: Leases) {
        let mut receivers = self.lock();
        if receivers
            .get(agent)
            .is_some_and(|receiver| settled.are_of(receiver.ask.turn))
        {
            receivers.remove(agent);
        }
    }

    /// Leases to those that wait, of these agents, what there is for them now.
    pub(super) fn lease(
        &self,
        tx: &mut Tx<'_>,
        agents: &BTreeSet<AgentName>,
    ) -> Result<Vec<Handed>, LedgerError> {
        let mut handed = Vec::new();
        for agent in agents {
            let receiver = self.lock().remove(agent);
            if let Some(Receiver { ask, reply }) = receiver.filter(|receiver| !receiver.reply.is_closed()) {
                let batch = lease(tx, agent, &ask)?;
                handed.push(Handed { batch, reply });
            }
        }
        Ok(handed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentName, Receiver>> {
        // No panic can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch for someone who waits, to be handed over once it is on disk.
#[derive(Debug)]
pub(super) struct Handed {
    batch: Batch,
    reply: oneshot::Sender<Batch>,
}

impl Handed {
    /// It is on disk. Whoever has stopped waiting meanwhile is given it when it asks again.
    pub(super) fn over(self) {
        drop(self.reply.send(self.batch));
    }
}

/// Gives once more what did not come in; else leases the oldest queued messages.
pub(crate) fn lease(tx: &mut Tx<'_>, agent: &AgentName, ask: &Ask) -> Result<Batch, LedgerError> {
    let &Ask {
        turn,
        received,
        max,
        at,
    } = ask;
    if let Some(received) = received
        && let Some(lost) = lost_batch(tx, agent, ask, received)?
    {
        return Ok(lost);
    }
    let number = received.unwrap_or(0) + 1;
    let messages = readable(
        tx,
        agent,
        at,
        0,
        "SELECT * FROM messages WHERE to_addr = ?1 AND state = 'queued' ORDER BY id LIMIT ?2",
        (agent.as_str(), max),
    )?;
    for message in &messages {
        execute(
            tx,
            "UPDATE messages SET state = 'leased', turn = ?2, batch = ?3, leased_at = ?4, deliveries = deliveries + 1
             WHERE id = ?1",
            (int(message.id), text(&turn), int(number), At(at)),
        )?;
    }
    Ok(Batch { number, messages })
}

/// The first batch of a turn after the last that came in.
fn lost_batch(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    ask: &Ask,
    received: u64,
) -> Result<Option<Batch>, LedgerError> {
    let turn = text(&ask.turn);
    let number: Option<i64> = tx
        .prepare_cached(
            "SELECT min(batch) FROM messages WHERE to_addr = ?1 AND state = 'leased' AND turn = ?2 AND batch > ?3",
        )?
        .query_row((agent.as_str(), &turn, int(received)), |row| row.get(0))?;
    let Some(number) = number else {
        return Ok(None);
    };
    let messages = readable(
        tx,
        agent,
        ask.at,
        1,
        "SELECT * FROM messages WHERE to_addr = ?1 AND state = 'leased' AND turn = ?2 AND batch = ?3 ORDER BY id",
        (agent.as_str(), &turn, number),
    )?;
    Ok(Some(Batch {
        number: number.unsigned_abs(),
        messages,
    }))
}

/// The messages that these rows hold, of whose deliveries so many are the lease that is at hand. One that cannot be
/// read is dead at once, so that it blocks nothing.
fn readable(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    at: Timestamp,
    deliveries: u64,
    sql: &str,
    params: impl Params,
) -> Result<Vec<Message>, LedgerError> {
    let mut messages = Vec::new();
    let mut unreadable = Vec::new();
    {
        let mut statement = tx.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            match decode(row, deliveries) {
                Ok(message) => messages.push(message),
                Err(source) => {
                    let row_error = undecodable("messages", &["id"], row, source);
                    unreadable.push((row.get::<_, i64>("id")?, crate::error_chain(&row_error)));
                }
            }
        }
    }
    for (id, why) in unreadable {
        bury(tx, id, agent, &why, at)?;
    }
    Ok(messages)
}

/// A row, delivered so many times by the lease that is at hand.
fn decode(row: &Row<'_>, deliveries: u64) -> Result<Message, Fault> {
    Ok(Message {
        id: row.number("id")?,
        from: row.parsed("from_addr")?,
        kind: row.word("kind")?,
        topic: row.maybe_word("topic")?,
        reply_to: row.get::<_, Option<i64>>("reply_to")?.map(i64::unsigned_abs),
        at: row.time("at")?,
        body: row.get("body")?,
        redelivered: row.number("deliveries")? > deliveries,
    })
}

/// Ends the leases of a turn that ended well: those of the batches that came in. What came in later batches goes back.
/// Returns how many were acknowledged.
pub(crate) fn ack(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    turn: TurnId,
    received: Option<u64>,
) -> Result<usize, LedgerError> {
    return_unread(tx, agent, turn, received)?;
    execute(
        tx,
        "UPDATE messages SET state = 'acked' WHERE to_addr = ?1 AND state = 'leased' AND turn = ?2",
        (agent.as_str(), text(&turn)),
    )
}

/// Gives back the leases of batches that this turn never saw: nothing failed over them, and the delivery does not
/// count.
fn return_unread(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    turn: TurnId,
    received: Option<u64>,
) -> Result<usize, LedgerError> {
    let Some(received) = received else {
        return Ok(0);
    };
    let count = execute(
        tx,
        "UPDATE messages SET state = 'queued', turn = NULL, deliveries = deliveries - 1
         WHERE to_addr = ?1 AND state = 'leased' AND turn = ?2 AND batch > ?3",
        (agent.as_str(), text(&turn), int(received)),
    )?;
    if count > 0 {
        tx.wake(agent);
    }
    Ok(count)
}

/// Whose leases are settled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leases {
    /// Those of this turn, of which these batches came in.
    Of(TurnId, Option<u64>),
    /// All but those of this turn.
    AllBut(Option<TurnId>),
}

impl Leases {
    fn are_of(self, turn: TurnId) -> bool {
        match self {
            Self::Of(settled, _) => settled == turn,
            Self::AllBut(live) => live != Some(turn),
        }
    }
}

/// Gives leases back, to their old places. What was delivered `most` times is dead instead. Returns how many.
pub(crate) fn release(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    leases: Leases,
    most: u32,
    at: Timestamp,
) -> Result<usize, LedgerError> {
    let (which, turn, unread) = match leases {
        Leases::Of(turn, received) => ("turn = ?2", Some(turn), return_unread(tx, agent, turn, received)?),
        Leases::AllBut(turn) => ("turn IS NOT ?2", turn, 0),
    };
    let turn = turn.as_ref().map(text);
    let found: Vec<(i64, u32)> = tx
        .prepare_cached(&format!(
            "SELECT id, deliveries FROM messages
             WHERE to_addr = ?1 AND state = 'leased' AND {which} ORDER BY id"
        ))?
        .query_map((agent.as_str(), turn), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for &(id, deliveries) in &found {
        if deliveries >= most {
            bury(tx, id, agent, &format!("{deliveries} turns failed over it"), at)?;
        } else {
            execute(
                tx,
                "UPDATE messages SET state = 'queued', turn = NULL WHERE id = ?1",
                [id],
            )?;
            tx.wake(agent);
        }
    }
    Ok(unread + found.len())
}

/// A message that is given up. It stays in the ledger and is reported.
fn bury(tx: &mut Tx<'_>, id: i64, to: &AgentName, why: &str, at: Timestamp) -> Result<(), LedgerError> {
    execute(tx, "UPDATE messages SET state = 'dead' WHERE id = ?1", [id])?;
    events::append(
        tx,
        NewEvent {
            at,
            agent: Some(to),
            level: Level::Warning,
            kind: "messageDead",
            message: &format!("message {id} to {to} is not delivered any more: {why}"),
            data: serde_json::json!({ "message": id }),
        },
    )
}
