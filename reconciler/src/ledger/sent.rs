//! Messages as those see them who sent them, and as the operator looks for them.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use shared::agent_api::{DeliveryState, MessageKind, SentMessage};
use shared::event::Level;
use shared::{Address, AgentName};

use super::Tx;
use super::error::{Fault, LedgerError};
use super::events::{self, NewEvent};
use super::messages::EARLIER;
use super::sql::{At, Columns as _, execute, int, undecodable};

/// The most text in one list, in bytes; the first message is always there.
const MAX_LISTED_BYTES: usize = 4 * 1024 * 1024;

/// What somebody looks for. All that is given must fit.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Sent by this agent or to it.
    pub agent: Option<AgentName>,
    /// The sender.
    pub from: Option<Address>,
    /// The recipient.
    pub to: Option<Address>,
    /// Where it is.
    pub state: Option<DeliveryState>,
    /// What its text has in it, in any case of letters.
    pub text: Option<String>,
    /// Only messages with a lower number.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: u32,
}

/// A message that is not delivered any more, and that nobody has dismissed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadMessage {
    /// As its sender sees it.
    pub(crate) message: SentMessage,
    /// Whether its recipient can get mail.
    pub(crate) reachable: bool,
    /// Whether it can be read at all.
    pub(crate) readable: bool,
}

/// What an agent sent, newest first.
pub(crate) fn by(
    db: &Connection,
    agent: &AgentName,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<SentMessage>, LedgerError> {
    // The numbers are found in an index alone; only those that are shown are read.
    let sql = format!(
        "SELECT * FROM messages WHERE id IN (
             SELECT id FROM messages WHERE from_addr = ?1 AND id < ?2 AND id > {EARLIER} ORDER BY id DESC LIMIT ?3)
         ORDER BY id DESC"
    );
    let params = [
        Value::from(agent.as_str().to_owned()),
        int(before.unwrap_or(u64::MAX)).into(),
        i64::from(limit).into(),
    ];
    read(db, &sql, params.into(), limit, |_| true)
}

/// Messages that fit, newest first.
pub(crate) fn search(db: &Connection, search: &Search) -> Result<Vec<SentMessage>, LedgerError> {
    let mut params = vec![Value::from(int(search.before.unwrap_or(u64::MAX)))];
    let mut conditions = vec!["id < ?1".to_owned()];
    let mut also = |condition: &str, value: String| {
        params.push(value.into());
        conditions.push(condition.replace("{}", &format!("?{}", params.len())));
    };
    if let Some(agent) = &search.agent {
        also("(from_addr = {} OR to_addr = {})", agent.to_string());
    }
    if let Some(from) = &search.from {
        also("from_addr = {}", from.to_string());
    }
    if let Some(to) = &search.to {
        also("to_addr = {}", to.to_string());
    }
    if let Some(state) = search.state {
        also("state = {}", stored(state).to_owned());
    }
    let sql = format!(
        "SELECT * FROM messages WHERE {} ORDER BY id DESC",
        conditions.join(" AND ")
    );
    let wanted = search.text.as_deref().map(str::to_lowercase);
    read(db, &sql, params, search.limit, |body| {
        wanted
            .as_ref()
            .is_none_or(|wanted| body.to_lowercase().contains(wanted))
    })
}

fn read(
    db: &Connection,
    sql: &str,
    params: Vec<Value>,
    limit: u32,
    fits: impl Fn(&str) -> bool,
) -> Result<Vec<SentMessage>, LedgerError> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(params))?;
    while let Some(row) = rows.next()? {
        if found.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            break;
        }
        let message = shown(row)?;
        if !fits(&message.body) {
            continue;
        }
        bytes += message.body.len();
        if bytes > MAX_LISTED_BYTES && !found.is_empty() {
            break;
        }
        found.push(message);
    }
    Ok(found)
}

/// One message.
pub(crate) fn get(db: &Connection, id: u64) -> Result<Option<SentMessage>, LedgerError> {
    let found = read(
        db,
        "SELECT * FROM messages WHERE id = ?1",
        vec![int(id).into()],
        1,
        |_| true,
    )?;
    Ok(found.into_iter().next())
}

/// Messages that are given up: of one agent, to it or from it, or of all; oldest first.
pub(crate) fn dead(
    db: &Connection,
    agent: Option<&AgentName>,
    most: u32,
) -> Result<Vec<DeadMessage>, LedgerError> {
    let sql = format!(
        "SELECT *, EXISTS (SELECT 1 FROM agents a WHERE a.name = to_addr
                 AND a.life NOT IN ('archived', 'draft', 'givenUp')) AS reachable FROM messages
         WHERE state = 'dead' AND dismissed_at IS NULL
             AND (?1 IS NULL OR ((from_addr = ?1 OR to_addr = ?1) AND id > {EARLIER}))
         ORDER BY id LIMIT ?2"
    );
    let mut found = Vec::new();
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query((agent.map(AgentName::as_str), most))?;
    while let Some(row) = rows.next()? {
        found.push(DeadMessage {
            message: shown(row)?,
            reachable: row.get("reachable")?,
            readable: decode(row).is_ok(),
        });
    }
    Ok(found)
}

/// Queues a message once more that was given up. Its earlier deliveries count as one.
pub(crate) fn requeue(
    tx: &mut Tx<'_>,
    message: &SentMessage,
    by: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE messages SET state = 'queued', turn = NULL, dismissed_at = NULL, deliveries = min(deliveries, 1)
         WHERE id = ?1 AND state = 'dead'",
        [int(message.id)],
    )?;
    let agent = match &message.to {
        Address::Agent(agent) => Some(agent),
        Address::Operator | Address::System => None,
    };
    if let Some(agent) = agent {
        tx.wake(agent);
    }
    events::append(
        tx,
        NewEvent {
            at,
            agent,
            level: Level::Info,
            kind: "messageRequeued",
            message: &format!("message {} to {} is queued again ({by})", message.id, message.to),
            data: serde_json::json!({ "message": message.id }),
        },
    )
}

/// Whoever has to know has taken note that a message is not delivered.
pub(crate) fn dismiss(tx: &Tx<'_>, id: u64, at: Timestamp) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE messages SET dismissed_at = ?2 WHERE id = ?1 AND state = 'dead' AND dismissed_at IS NULL",
        (int(id), At(at)),
    )
    .map(drop)
}

/// A row that cannot be read is shown as what it is: nobody looking for a message must miss it.
fn shown(row: &Row<'_>) -> Result<SentMessage, LedgerError> {
    let source = match decode(row) {
        Ok(message) => return Ok(message),
        Err(source) => source,
    };
    let id = row.get::<_, i64>("id")?.unsigned_abs();
    let why = crate::error_chain(&undecodable("messages", &["id"], row, source));
    Ok(SentMessage {
        id,
        from: row.parsed("from_addr").unwrap_or(Address::System),
        to: row.parsed("to_addr").unwrap_or(Address::System),
        kind: MessageKind::Unknown,
        topic: None,
        reply_to: None,
        at: row.time("at").unwrap_or(Timestamp::UNIX_EPOCH),
        body: format!("[{why}]"),
        state: row
            .get::<_, String>("state")
            .map_or(DeliveryState::Unknown, |word| state(&word)),
        deliveries: row.number("deliveries").unwrap_or_default(),
    })
}

fn decode(row: &Row<'_>) -> Result<SentMessage, Fault> {
    Ok(SentMessage {
        id: row.number("id")?,
        from: row.parsed("from_addr")?,
        to: row.parsed("to_addr")?,
        kind: row.word("kind")?,
        topic: row.maybe_word("topic")?,
        reply_to: row.get::<_, Option<i64>>("reply_to")?.map(i64::unsigned_abs),
        at: row.time("at")?,
        body: row.get("body")?,
        state: state(&row.get::<_, String>("state")?),
        deliveries: row.number("deliveries")?,
    })
}

fn state(word: &str) -> DeliveryState {
    match word {
        "queued" => DeliveryState::Queued,
        "leased" => DeliveryState::Leased,
        "acked" => DeliveryState::Delivered,
        "dead" => DeliveryState::Dead,
        _ => DeliveryState::Unknown,
    }
}

fn stored(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Queued => "queued",
        DeliveryState::Leased => "leased",
        DeliveryState::Delivered => "acked",
        DeliveryState::Dead => "dead",
        DeliveryState::Unknown => "unknown",
    }
}
