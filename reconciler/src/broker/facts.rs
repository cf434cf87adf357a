//! What the daemon itself knows of a turn, besides what its harness tells.

use jiff::{SignedDuration, Timestamp};
use shared::loose_end::{LooseEnd, LooseEndKind};
use shared::turn::{TurnFacts, TurnStats};
use shared::{Address, AgentName, TurnId};

use super::Broker;
use super::loose_ends::{self, Rows};
use crate::ledger::{LedgerError, messages, turn_facts};

/// A turn that says it was longer is taken for one that was this long.
const LONGEST: SignedDuration = SignedDuration::from_hours(48);

impl Broker {
    /// The kinds of sender of the messages that a turn has, and how many these are; while they are not given back.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn wakers_of(
        &self,
        agent: &AgentName,
        turn: TurnId,
    ) -> Result<(Vec<String>, u64), LedgerError> {
        let agent = agent.clone();
        self.ledger
            .read(move |db| turn_facts::woken_by(db, &agent, turn))
            .await
    }

    /// What is known of a turn that its harness tells of now. Who sent what to whom is read from the ledger; when the
    /// turn was, is the harness's word.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn facts_of(
        &self,
        agent: &AgentName,
        stats: &TurnStats,
        now: Timestamp,
    ) -> Result<TurnFacts, LedgerError> {
        let (agent, turn) = (agent.clone(), stats.turn);
        let (from, until) = span(stats, now);
        self.ledger
            .read(move |db| {
                let (woken_by, taken_up) = turn_facts::woken_by(db, &agent, turn)?;
                let ends = loose_ends::view(Rows::of(db, Some(&agent))?);
                let (reminders, loose_ends) = counted(&ends);
                Ok(TurnFacts {
                    woken_by,
                    taken_up,
                    sent: turn_facts::sent(db, &agent, from, until)?,
                    loose_ends,
                    reminders,
                    inbox: messages::queued(db, &Address::Agent(agent.clone()))?,
                    inbox_max: turn_facts::most_waited(db, &agent, now)?,
                })
            })
            .await
    }
}

/// When a turn was, of what its harness says that much can be true.
fn span(stats: &TurnStats, now: Timestamp) -> (Timestamp, Timestamp) {
    let earliest = now.checked_sub(LONGEST).unwrap_or(Timestamp::MIN);
    let from = stats.started_at.clamp(earliest, now);
    let length = i64::try_from(stats.duration_ms).unwrap_or(i64::MAX);
    let until = from.checked_add(SignedDuration::from_millis(length));
    (from, until.map_or(now, |until| until.min(now)))
}

/// How many of these are reminders, and how many are anything else.
fn counted(ends: &[LooseEnd]) -> (u64, u64) {
    let reminders = ends
        .iter()
        .filter(|end| end.kind == LooseEndKind::Reminder)
        .count();
    (reminders as u64, (ends.len() - reminders) as u64)
}

#[cfg(test)]
mod tests {
    use shared::turn::{Tokens, TurnResult};

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + secs).unwrap()
    }

    fn stats(started_at: Timestamp, duration_ms: u64) -> TurnStats {
        TurnStats {
            turn: shared::TurnId(uuid::Uuid::from_u128(1)),
            started_at,
            duration_ms,
            result: TurnResult::Ok,
            error: None,
            model: None,
            session: None,
            tokens: Tokens::default(),
            context: None,
            cost_usd: None,
            tool_calls: [].into(),
            woken_by: Vec::new(),
            notes_bytes: None,
        }
    }

    #[test]
    fn a_turn_was_when_it_says_as_far_as_that_can_be() {
        let now = at(1000);
        assert_eq!(span(&stats(at(10), 5000), now), (at(10), at(15)));
        assert_eq!(span(&stats(at(10), u64::MAX), now), (at(10), now));
        assert_eq!(span(&stats(at(2000), 5000), now), (now, now));
        let (from, _) = span(&stats(Timestamp::MIN, 5000), now);
        assert_eq!(from, now - LONGEST);
    }
}
