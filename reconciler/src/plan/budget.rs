//! What an agent, and the hive as a whole, may still spend today. Pure.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use shared::AgentName;
use shared::budget::TurnLimits;
use shared::spec::{BudgetSpec, DayBudgetSpec, Spec};

/// What turns that began today have used, as far as their harnesses told.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Turns that began, however they ended.
    pub turns: u64,
    /// Tokens of all kinds.
    pub tokens: u64,
    /// US dollars, of turns whose cost is known. Others count by their tokens alone.
    pub usd: f64,
    /// Tokens of the turn that used most.
    pub most_tokens: u64,
    /// US dollars of the turn that cost most.
    pub most_usd: f64,
}

/// How much of a budget may be used today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// So many times what the spec says; once unless the operator allows more.
    Times(u32),
    /// Without a limit.
    Everything,
}

impl Default for Allowed {
    fn default() -> Self {
        Self::Times(1)
    }
}

impl Allowed {
    /// What an answer of the operator allows from now on; `None`: nothing more.
    pub fn after(self, answer: &str) -> Option<Self> {
        match (answer.trim().to_lowercase().as_str(), self) {
            ("more", Self::Times(times)) => Some(Self::Times(times.saturating_add(1))),
            ("lift", _) | ("more", Self::Everything) => Some(Self::Everything),
            _ => None,
        }
    }

    fn tokens(self, limit: Option<u64>) -> Option<u64> {
        match self {
            Self::Times(times) => Some(limit?.saturating_mul(times.into())),
            Self::Everything => None,
        }
    }

    fn usd(self, limit: Option<f64>) -> Option<f64> {
        match self {
            Self::Times(times) => Some(limit? * f64::from(times)),
            Self::Everything => None,
        }
    }
}

/// Whose budget it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// One agent's.
    Agents,
    /// That of all agents together.
    Hives,
}

/// What was used today and what may be.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Account {
    /// By the agent.
    pub agent: Spent,
    /// By all agents.
    pub hive: Spent,
    /// How much of the agent's budget.
    pub agent_may: Allowed,
    /// How much of the hive's budget.
    pub hive_may: Allowed,
}

/// The budgets that hold for one agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Budgets {
    /// Its own.
    pub agent: BudgetSpec,
    /// That of all agents together; by the turn it says nothing.
    pub hive: BudgetSpec,
}

impl Budgets {
    /// Those of this agent in this spec. One that the spec does not name was spawned.
    pub fn of(spec: &Spec, agent: &AgentName) -> Self {
        let DayBudgetSpec {
            usd_per_day,
            tokens_per_day,
            turns_per_day,
        } = spec.hive.budget;
        let agent = spec.agents.get(agent).unwrap_or(&spec.spawn_defaults);
        Self {
            agent: agent.budget.clone(),
            hive: BudgetSpec {
                usd_per_day,
                tokens_per_day,
                turns_per_day,
                ..BudgetSpec::default()
            },
        }
    }

    /// Whether there is any limit.
    pub fn are_limits(&self) -> bool {
        self.agent != BudgetSpec::default() || self.hive != BudgetSpec::default()
    }

    /// Whose budget is used up, and why, in words that go on after a name.
    pub fn exhausted(&self, account: &Account) -> Option<(Whose, String)> {
        let agents =
            exhausted(&self.agent, account.agent_may, &account.agent).map(|why| (Whose::Agents, why));
        agents
            .or_else(|| exhausted(&self.hive, account.hive_may, &account.hive).map(|why| (Whose::Hives, why)))
    }

    /// What a turn may use that has begun. `own` is what it counts for in the account already; nothing when it began
    /// on an earlier day.
    pub fn limits(&self, account: &Account, own: &Spent) -> TurnLimits {
        let Account {
            agent,
            hive,
            agent_may,
            hive_may,
        } = account;
        let others = |spent: &Spent| spent.tokens.saturating_sub(own.tokens);
        let tokens = [
            agent_may.tokens(self.agent.tokens_per_turn),
            left(agent_may.tokens(self.agent.tokens_per_day), others(agent)),
            left(hive_may.tokens(self.hive.tokens_per_day), others(hive)),
        ];
        let others = |spent: &Spent| (spent.usd - own.usd).max(0.0);
        let left = |most: Option<f64>, used: f64| Some((most? - used).max(0.0));
        let usd = [
            agent_may.usd(self.agent.usd_per_turn),
            left(agent_may.usd(self.agent.usd_per_day), others(agent)),
            left(hive_may.usd(self.hive.usd_per_day), others(hive)),
        ];
        TurnLimits {
            over_budget: false,
            tokens: tokens.into_iter().flatten().min(),
            cost_usd: usd.into_iter().flatten().reduce(f64::min),
        }
    }
}

fn left(most: Option<u64>, used: u64) -> Option<u64> {
    Some(most?.saturating_sub(used))
}

/// When the day of `now` began, in UTC.
pub fn day_of(now: Timestamp) -> Timestamp {
    let start = now.to_zoned(TimeZone::UTC).start_of_day();
    start.map_or(now, |start| start.timestamp())
}

/// When the day that began then ends.
pub fn end_of(day: Timestamp) -> Timestamp {
    day.checked_add(SignedDuration::from_hours(24))
        .unwrap_or(Timestamp::MAX)
}

/// Why there is nothing left for today, in words that go on after a name.
fn exhausted(budget: &BudgetSpec, may: Allowed, today: &Spent) -> Option<String> {
    let BudgetSpec {
        usd_per_day,
        tokens_per_day,
        turns_per_day,
        usd_per_turn,
        tokens_per_turn,
    } = budget;
    let Spent {
        turns,
        tokens,
        usd,
        most_tokens,
        most_usd,
    } = today;
    let reached = |used: u64, limit: Option<u64>| may.tokens(limit).filter(|most| used >= *most);
    let spent = |used: f64, limit: Option<f64>| may.usd(limit).filter(|most| used >= *most);
    if let Some(most) = reached(*tokens, *tokens_per_day) {
        return Some(format!(
            "has used {tokens} tokens today, of {most} (tokensPerDay)"
        ));
    }
    if let Some(most) = spent(*usd, *usd_per_day) {
        return Some(format!("has spent ${usd:.2} today, of ${most:.2} (usdPerDay)"));
    }
    if let Some(most) = reached(*turns, *turns_per_day) {
        return Some(format!("has begun {turns} turns today, of {most} (turnsPerDay)"));
    }
    // A limit of nothing at all is met by no turn that used nothing.
    if let Some(most) = reached(*most_tokens, *tokens_per_turn).filter(|_| *turns > 0) {
        return Some(format!(
            "has used {most_tokens} tokens in one turn today, of {most} (tokensPerTurn)"
        ));
    }
    let most = spent(*most_usd, *usd_per_turn).filter(|_| *turns > 0)?;
    Some(format!(
        "has spent ${most_usd:.2} on one turn today, of ${most:.2} (usdPerTurn)"
    ))
}

#[cfg(test)]
mod tests;
