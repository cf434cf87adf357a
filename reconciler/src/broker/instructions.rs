//! Instructions of the operator to harnesses: kept in one transaction with their event, handed out until they are carried out.

use jiff::Timestamp;
use serde_json::json;
use shared::AgentName;
use shared::event::Level;
use shared::instruction::{Instruction, InstructionKind, MAX_INSTRUCTIONS};

use super::Broker;
use crate::ledger::events::{self, NewEvent};
use crate::ledger::{LedgerError, TxError, instructions};

/// An instruction was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum InstructionError {
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NoAgent(AgentName),
    /// Its harness carries nothing out.
    #[error(
        "{0} has {MAX_INSTRUCTIONS} instructions that its harness has not carried out: see whether it runs"
    )]
    TooMany(AgentName),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for InstructionError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            Self::NoAgent(_) | Self::TooMany(_) => None,
        }
    }
}

/// What a harness is to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instructions {
    /// What it has not carried out yet.
    pub pending: Vec<Instruction>,
    /// The number of the conversation, when one was ever instructed.
    pub conversation: Option<u64>,
}

/// An instruction, and who gives it.
#[derive(Debug, Clone)]
pub struct Given {
    /// What; its number is given by the ledger.
    pub instruction: Instruction,
    /// Until when it is of any use.
    pub ends_at: Option<Timestamp>,
    /// Who, as the transport says.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Broker {
    /// Gives an instruction. Once this returns it survives a crash, and its harness is told.
    ///
    /// # Errors
    /// When there is no such agent, it has too many instructions already, or the ledger fails.
    pub async fn instruction(
        &self,
        agent: &AgentName,
        given: Given,
        at: Timestamp,
    ) -> Result<u64, InstructionError> {
        let agent = agent.clone();
        self.ledger
            .write(move |tx| {
                let Given {
                    instruction,
                    ends_at,
                    by,
                    reason,
                } = given;
                let Some(uid) = instructions::uid_of(tx, &agent)? else {
                    return Err(InstructionError::NoAgent(agent));
                };
                if instructions::waiting(tx, uid, at)? >= u64::from(MAX_INSTRUCTIONS) {
                    return Err(InstructionError::TooMany(agent));
                }
                let new = instructions::NewInstruction {
                    uid,
                    instruction: &instruction,
                    ends_at,
                    by: &by,
                    at,
                };
                let id = instructions::insert(tx, &new)?;
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
                        kind: "instructed",
                        message: &format!("{agent} is to {} ({why})", what(instruction.kind)),
                        data: json!({ "instruction": id, "kind": instruction.kind, "turn": instruction.turn, "until": instruction.until,
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
    pub async fn instructions(
        &self,
        agent: &AgentName,
        done: u64,
        now: Timestamp,
    ) -> Result<Instructions, LedgerError> {
        let name = agent.clone();
        let (uid, news, left) = self
            .ledger
            .read(move |db| -> Result<_, LedgerError> {
                let Some(uid) = instructions::uid_of(db, &name)? else {
                    return Ok((None, false, Instructions::default()));
                };
                let left = Instructions {
                    pending: instructions::pending(db, uid, done, now)?,
                    conversation: instructions::conversation(db, uid)?,
                };
                Ok((Some(uid), instructions::is_news(db, uid, done)?, left))
            })
            .await?;
        if let Some(uid) = uid.filter(|_| news) {
            let agent = agent.clone();
            self.ledger
                .write(move |tx| -> Result<(), LedgerError> {
                    for instruction in instructions::take(tx, uid, done, now)? {
                        events::append(
                            tx,
                            NewEvent {
                                at: now,
                                agent: Some(&agent),
                                level: Level::Info,
                                kind: "instructionTaken",
                                message: &format!("{agent} was told to {}", what(instruction.kind)),
                                data: json!({ "instruction": instruction.id, "kind": instruction.kind }),
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

fn what(kind: InstructionKind) -> &'static str {
    match kind {
        InstructionKind::Cancel => "end the turn that runs",
        InstructionKind::Compact => "shorten its conversation",
        InstructionKind::Nap => "take no turns for a while",
        InstructionKind::Wake => "take turns again",
        InstructionKind::NewConversation => "begin a new conversation",
        InstructionKind::Unknown => "do something that this version does not know",
    }
}
