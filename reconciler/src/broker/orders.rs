//! Orders of the operator to harnesses: kept in one transaction with their event, handed out until they are carried out.

use jiff::Timestamp;
use serde_json::json;
use shared::AgentName;
use shared::event::Level;
use shared::order::{MAX_ORDERS, Order, OrderKind};

use super::Broker;
use crate::ledger::events::{self, NewEvent};
use crate::ledger::{LedgerError, TxError, orders};

/// An order was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NoAgent(AgentName),
    /// Its harness carries nothing out.
    #[error("{0} has {MAX_ORDERS} orders that its harness has not carried out: see whether it runs")]
    TooMany(AgentName),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for OrderError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            Self::NoAgent(_) | Self::TooMany(_) => None,
        }
    }
}

/// What a harness is to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// What it has not carried out yet.
    pub pending: Vec<Order>,
    /// The number of the conversation, when one was ever ordered.
    pub conversation: Option<u64>,
}

/// An order, and who gives it.
#[derive(Debug, Clone)]
pub struct Given {
    /// What; its number is given by the ledger.
    pub order: Order,
    /// Until when it is of any use.
    pub ends_at: Option<Timestamp>,
    /// Who, as the transport says.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Broker {
    /// Gives an order. Once this returns it survives a crash, and its harness is told.
    ///
    /// # Errors
    /// When there is no such agent, it has too many orders already, or the ledger fails.
    pub async fn order(&self, agent: &AgentName, given: Given, at: Timestamp) -> Result<u64, OrderError> {
        let agent = agent.clone();
        self.ledger
            .write(move |tx| {
                let Given {
                    order,
                    ends_at,
                    by,
                    reason,
                } = given;
                let Some(uid) = orders::uid_of(tx, &agent)? else {
                    return Err(OrderError::NoAgent(agent));
                };
                if orders::waiting(tx, uid, at)? >= u64::from(MAX_ORDERS) {
                    return Err(OrderError::TooMany(agent));
                }
                let new = orders::NewOrder {
                    uid,
                    order: &order,
                    ends_at,
                    by: &by,
                    at,
                };
                let id = orders::insert(tx, &new)?;
                let why = if reason.is_empty() {
                    by.clone()
                } else {
                    format!("{by}: {reason}")
                };
                events::append(
                    tx,
                    NewEvent {
                        at,
                        agent: Some(&agent),
                        level: Level::Info,
                        kind: "ordered",
                        message: &format!("{agent} is to {} ({why})", what(order.kind)),
                        data: json!({ "order": id, "kind": order.kind, "turn": order.turn, "until": order.until,
                            "by": by, "reason": reason }),
                    },
                )?;
                tx.wake(&agent);
                Ok(id)
            })
            .await
    }

    /// Takes note that a harness has carried out everything up to `done`, and says what is left for it. Writes nothing
    /// when that is no news.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn orders(&self, agent: &AgentName, done: u64, now: Timestamp) -> Result<Orders, LedgerError> {
        let name = agent.clone();
        let (uid, news, left) = self
            .ledger
            .read(move |db| -> Result<_, LedgerError> {
                let Some(uid) = orders::uid_of(db, &name)? else {
                    return Ok((None, false, Orders::default()));
                };
                let left = Orders {
                    pending: orders::pending(db, uid, done, now)?,
                    conversation: orders::conversation(db, uid)?,
                };
                Ok((Some(uid), orders::is_news(db, uid, done)?, left))
            })
            .await?;
        if let Some(uid) = uid.filter(|_| news) {
            let agent = agent.clone();
            self.ledger
                .write(move |tx| -> Result<(), LedgerError> {
                    for order in orders::take(tx, uid, done, now)? {
                        events::append(
                            tx,
                            NewEvent {
                                at: now,
                                agent: Some(&agent),
                                level: Level::Info,
                                kind: "orderTaken",
                                message: &format!("{agent} was told to {}", what(order.kind)),
                                data: json!({ "order": order.id, "kind": order.kind }),
                            },
                        )?;
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(left)
    }
}

fn what(kind: OrderKind) -> &'static str {
    match kind {
        OrderKind::Cancel => "end the turn that runs",
        OrderKind::Compact => "shorten its conversation",
        OrderKind::Nap => "take no turns for a while",
        OrderKind::Wake => "take turns again",
        OrderKind::NewConversation => "begin a new conversation",
        OrderKind::Unknown => "do something that this version does not know",
    }
}
