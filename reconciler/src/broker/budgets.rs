//! Budgets: a turn begins only while there is something left, and the operator is asked once when there is not.
//!
//! A budget that is used up is one question a day, of one agent or of the hive. It ends with the day, and until then an
//! answer may allow more. When that is used up too, there is one question again: as many as the operator wants. Who
//! allowed it, and when, is kept with the question.

use jiff::Timestamp;
use serde_json::json;
use shared::agent_api::MessageKind;
use shared::budget::{TurnLimits, TurnUsage};
use shared::event::Level;
use shared::question::QuestionInfo;
use shared::topic::Topic;
use shared::{Address, AgentName, AgentUid, TurnId};

use super::questions::Terms;
use super::{Broker, Outgoing, SendError, store};
use crate::ledger::events::{self, NewEvent};
use crate::ledger::{LedgerError, Tx, messages, spending};
use crate::model::change::Notice;
use crate::plan::budget::{Allowed, Budgets, Whose, day_of, end_of};

impl Broker {
    /// Whether the agent has nothing left for today. The operator is asked once for what may be used.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn is_over_budget(
        &self,
        agent: &AgentName,
        budgets: Budgets,
        now: Timestamp,
    ) -> Result<bool, SendError> {
        if !budgets.are_limits() {
            return Ok(false);
        }
        let (name, day) = (agent.clone(), day_of(now));
        let (exhausted, asked) = self
            .ledger
            .read(move |db| -> Result<_, LedgerError> {
                let Some(uid) = spending::uid_of(db, &name)? else {
                    return Ok((None, true));
                };
                let exhausted = budgets.exhausted(&spending::account(db, uid, day)?);
                let asked = match &exhausted {
                    Some((whose, _)) => spending::was_asked(db, whom(*whose, uid), day)?,
                    None => true,
                };
                Ok((exhausted, asked))
            })
            .await?;
        let Some((whose, why)) = exhausted else {
            return Ok(false);
        };
        if !asked {
            let agent = agent.clone();
            self.ledger
                .write(move |tx| ask_once(tx, &agent, whose, &why, now))
                .await?;
        }
        Ok(true)
    }

    /// Notes what a turn of this agent has used so far, and says what it may use. One that has not begun begins with
    /// this, unless nothing is left: then it must not.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn turn_uses(
        &self,
        agent: &AgentName,
        usage: TurnUsage,
        budgets: Budgets,
        now: Timestamp,
    ) -> Result<TurnLimits, SendError> {
        let agent = agent.clone();
        self.ledger
            .write(move |tx| {
                let day = day_of(now);
                let Some(uid) = spending::uid_of(tx, &agent)? else {
                    return Ok(TurnLimits::default());
                };
                if !spending::has_begun(tx, uid, usage.turn)?
                    && let Some((whose, why)) = budgets.exhausted(&spending::account(tx, uid, day)?)
                {
                    ask_once(tx, &agent, whose, &why, now)?;
                    return Ok(TurnLimits {
                        over_budget: true,
                        ..TurnLimits::default()
                    });
                }
                spending::note(tx, uid, &usage, false, now)?;
                let own = spending::of_turn(tx, uid, usage.turn, day)?;
                Ok(budgets.limits(&spending::account(tx, uid, day)?, &own))
            })
            .await
    }

    /// Whether this turn of this agent was heard of.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn has_begun(&self, agent: &AgentName, turn: TurnId) -> Result<bool, LedgerError> {
        let agent = agent.clone();
        self.ledger
            .read(move |db| match spending::uid_of(db, &agent)? {
                Some(uid) => spending::has_begun(db, uid, turn),
                None => Ok(false),
            })
            .await
    }

    /// What the operator allowed beyond today's budget of an agent, or with `None` of the hive, as a sentence.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn allowance(
        &self,
        agent: Option<&AgentName>,
        now: Timestamp,
    ) -> Result<Option<String>, LedgerError> {
        let (agent, day) = (agent.cloned(), day_of(now));
        self.ledger
            .read(move |db| {
                let whose = match &agent {
                    Some(agent) => match spending::uid_of(db, agent)? {
                        Some(uid) => Some(uid),
                        None => return Ok(None),
                    },
                    None => None,
                };
                let allowance = spending::allowance(db, whose, day)?;
                Ok(allowance.map(|found| {
                    let at = found.at.strftime("%Y-%m-%d %H:%M:%SZ");
                    format!(
                        "{} until midnight UTC, by {} at {at}",
                        allowed(agent.as_ref(), found.may),
                        found.by
                    )
                }))
            })
            .await
    }
}

fn whom(whose: Whose, uid: AgentUid) -> Option<AgentUid> {
    match whose {
        Whose::Agents => Some(uid),
        Whose::Hives => None,
    }
}

/// Asks the operator, unless that was done since more was allowed.
fn ask_once(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    whose: Whose,
    why: &str,
    now: Timestamp,
) -> Result<(), SendError> {
    let Some(uid) = spending::uid_of(tx, agent)? else {
        return Ok(());
    };
    let (day, whom) = (day_of(now), whom(whose, uid));
    if spending::was_asked(tx, whom, day)? {
        return Ok(());
    }
    let (who, takes, field) = match whose {
        Whose::Agents => (
            agent.to_string(),
            "it takes no turn",
            format!("agents.{agent}.budget"),
        ),
        Whose::Hives => (
            "the hive".to_owned(),
            "none of its agents takes a turn",
            "hive.budget".to_owned(),
        ),
    };
    let body = format!(
        "{who} {why}: {takes} until midnight UTC. Answer \"more\" to allow as much again today, \"lift\" to allow \
         everything today; any other answer leaves it so. {field} in the spec says what each day may cost."
    );
    let again = match spending::allowed(tx, whom, day)? {
        Allowed::Times(1) | Allowed::Everything => String::new(),
        Allowed::Times(times) => format!("/{times}"),
    };
    let secs = u64::try_from(end_of(day).duration_since(now).as_secs()).unwrap_or(0);
    let terms = Terms {
        ttl_secs: Some(secs.max(1)),
        default: None,
    };
    let message = Outgoing {
        from: Address::System,
        to: Address::Operator,
        kind: MessageKind::Question,
        topic: None,
        body,
        reply_to: None,
        // The uid, because an archived agent's name may come back.
        dedupe: Some(format!(
            "budget/{}/{}{again}",
            whom.map_or_else(|| "hive".to_owned(), |uid| uid.to_string()),
            day.as_second() / 86_400
        )),
    };
    let question = store(tx, &message, terms, now)?.id;
    spending::asked(tx, whom, day, question)?;
    let about = whom.is_some().then_some(agent);
    events::append(
        tx,
        NewEvent {
            at: now,
            agent: about,
            level: Level::Warning,
            kind: "budgetReached",
            message: &format!("{who} {why}: see question {question}"),
            data: json!({ "question": question }),
        },
    )?;
    if let Some(agent) = about {
        let notice = Notice {
            topic: Topic::BudgetReached,
            body: format!(
                "{agent} {why}: it takes no turn until midnight UTC, unless the operator allows more"
            ),
            dedupe: format!("budget/{agent}/{}{again}", day.as_second() / 86_400),
            at: now,
        };
        messages::notify_managers(tx, agent, &notice)?;
    }
    Ok(())
}

/// Takes in an answer to what the daemon itself has asked.
pub(super) fn answered(
    tx: &mut Tx<'_>,
    question: &QuestionInfo,
    answer: &str,
    by: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let Some((whose, day)) = spending::asked_by(tx, question.id)? else {
        return Ok(());
    };
    let Some(may) = spending::allowed(tx, whose, day)?.after(answer) else {
        return Ok(());
    };
    spending::allow(tx, whose, day, may, by, at)?;
    let agent = match whose {
        Some(_) => spending::names(tx, whose)?.pop(),
        None => None,
    };
    events::append(
        tx,
        NewEvent {
            at,
            agent: agent.as_ref(),
            level: Level::Info,
            kind: "budgetRaised",
            message: &format!("{} until midnight UTC ({by})", allowed(agent.as_ref(), may)),
            data: json!({ "question": question.id, "by": by, "until": end_of(day) }),
        },
    )
}

fn allowed(agent: Option<&AgentName>, may: Allowed) -> String {
    let who = agent.map_or_else(|| "the hive".to_owned(), ToString::to_string);
    match may {
        Allowed::Times(times) => format!("{who} may use its budget {times} times"),
        Allowed::Everything => format!("{who} may use what it likes"),
    }
}
