//! What an agent may still spend today. Pure.

use jiff::{Timestamp, tz::TimeZone};
use shared::spec::BudgetSpec;

/// What an agent's turns have used, as far as its harness told.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Tokens of all kinds.
    pub tokens: u64,
    /// US dollars, of turns whose cost is known. Others count by their tokens alone.
    pub usd: f64,
}

/// Whether something is limited by the day at all.
pub fn is_limited(budget: &BudgetSpec) -> bool {
    budget.tokens_per_day.is_some() || budget.usd_per_day.is_some()
}

/// When the day of `now` began, in UTC.
pub fn day_of(now: Timestamp) -> Timestamp {
    let start = now.to_zoned(TimeZone::UTC).start_of_day();
    start.map_or(now, |start| start.timestamp())
}

/// Why there is nothing left for today, in words that go on after the agent's name.
pub fn exhausted(budget: &BudgetSpec, today: Spent) -> Option<String> {
    let BudgetSpec {
        usd_per_day,
        tokens_per_day,
        usd_per_turn: _,
        tokens_per_turn: _,
    } = budget;
    if let Some(most) = tokens_per_day.filter(|most| today.tokens >= *most) {
        return Some(format!(
            "has used {} tokens today, of {most} (tokensPerDay)",
            today.tokens
        ));
    }
    let most = usd_per_day.filter(|most| today.usd >= *most)?;
    Some(format!(
        "has spent ${:.2} today, of ${most:.2} (usdPerDay)",
        today.usd
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(tokens: u64, usd: f64) -> Spent {
        Spent { tokens, usd }
    }

    #[test]
    fn either_limit_is_enough_and_without_one_nothing_is_too_much() {
        let free = BudgetSpec::default();
        assert!(!is_limited(&free));
        assert_eq!(exhausted(&free, spent(u64::MAX, 1e9)), None);
        let budget = BudgetSpec {
            tokens_per_day: Some(100),
            usd_per_day: Some(2.0),
            ..BudgetSpec::default()
        };
        assert!(is_limited(&budget));
        assert_eq!(exhausted(&budget, spent(99, 1.99)), None);
        let tokens = exhausted(&budget, spent(100, 0.0)).expect("too many tokens");
        assert!(
            tokens.contains("100 tokens") && tokens.contains("tokensPerDay"),
            "{tokens}"
        );
        let money = exhausted(&budget, spent(0, 2.0)).expect("too much money");
        assert!(money.contains("$2.00") && money.contains("usdPerDay"), "{money}");
        let per_turn = BudgetSpec {
            tokens_per_turn: Some(1),
            usd_per_turn: Some(0.1),
            ..BudgetSpec::default()
        };
        assert!(!is_limited(&per_turn));
    }

    #[test]
    fn a_day_is_one_of_utc() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let day = at("2026-11-21T00:00:00Z");
        assert_eq!(day_of(at("2026-11-21T23:59:59Z")), day);
        assert_eq!(day_of(day), day);
    }
}
