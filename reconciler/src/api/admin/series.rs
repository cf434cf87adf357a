//! Turns over a while, added up per agent: `GET /v1/turns/stats`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::turn::{Spread, Tokens, TurnInfo, TurnPoint, TurnSeries, UsdSpread};

use crate::api::Context;
use crate::api::error::ApiResult;

/// How far back is looked unless asked otherwise: a week.
const HOURS: u32 = 7 * 24;
/// As long as turns are kept.
const MAX_HOURS: u32 = 90 * 24;
/// The most turns that are added up.
const MAX_TURNS: u32 = 50_000;
/// The most points of one agent.
const MAX_POINTS: u32 = 500;
/// The most tools of one agent that are told apart.
const MAX_TOOLS: usize = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    /// Only this agent's
    agent: Option<AgentName>,
    /// How many hours back; a week unless given, at most 90 days
    hours: Option<u32>,
    /// Points of so many hours each, the oldest first; none unless given, and never more than 500
    step_hours: Option<u32>,
}

/// `GET /v1/turns/stats`.
pub(super) async fn stats(
    State(context): State<Context>,
    Query(wanted): Query<Wanted>,
) -> ApiResult<Json<Vec<TurnSeries>>> {
    let Wanted {
        agent,
        hours,
        step_hours,
    } = wanted;
    let now = context.reconciler.host().clock.now();
    let hours = hours.unwrap_or(HOURS).clamp(1, MAX_HOURS);
    let since = before(now, hours);
    let step = step_hours.map(|step| step.max(hours.div_ceil(MAX_POINTS)).max(1));
    let ledger = context.reconciler.ledger();
    let turns = ledger.turns_since(agent.as_ref(), since, MAX_TURNS).await?;
    if !turns.undecodable.is_empty() {
        let unreadable = turns.undecodable.len();
        tracing::warn!(unreadable, "turns that cannot be read are not added up");
    }
    // What did not fit is not looked at.
    let oldest = turns
        .items
        .last()
        .filter(|_| turns.items.len() >= MAX_TURNS as usize);
    let since = oldest.map_or(since, |oldest| oldest.at);
    let window = Window { since, now, step };
    let mut series = add_up(turns.items, window);
    let known: Vec<AgentName> = context.reconciler.views().agents.keys().cloned().collect();
    let quiet = known.into_iter().filter(|name| {
        let wanted = agent.as_ref().is_none_or(|agent| agent == name);
        wanted && series.iter().all(|one| one.agent != *name)
    });
    for name in quiet.collect::<Vec<_>>() {
        // Its last turn, if there is any, was before.
        let last = ledger.turns(Some(&name), None, 1).await?.items;
        series.push(TurnSeries {
            last_turn_at: last.first().map(|turn| turn.at),
            notes_bytes: last.first().and_then(|turn| turn.stats.notes_bytes),
            ..of_agent(name, &[], window)
        });
    }
    series.sort_by(|a, b| a.agent.cmp(&b.agent));
    for one in &mut series {
        one.inbox = context.broker.queued(&one.agent).await?;
        one.inbox_max = one.inbox_max.max(one.inbox);
    }
    Ok(Json(series))
}

fn before(now: Timestamp, hours: u32) -> Timestamp {
    now.checked_sub(SignedDuration::from_hours(hours.into()))
        .unwrap_or(Timestamp::MIN)
}

/// What part of the past is looked at.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Timestamp,
    now: Timestamp,
    /// The length of a point, in hours.
    step: Option<u32>,
}

/// The turns of each agent, added up; they come newest first.
fn add_up(turns: Vec<TurnInfo>, window: Window) -> Vec<TurnSeries> {
    let mut by_agent: BTreeMap<AgentName, Vec<TurnInfo>> = BTreeMap::new();
    for turn in turns {
        by_agent.entry(turn.agent.clone()).or_default().push(turn);
    }
    let each = by_agent.into_iter();
    each.map(|(agent, turns)| of_agent(agent, &turns, window))
        .collect()
}

fn of_agent(agent: AgentName, turns: &[TurnInfo], window: Window) -> TurnSeries {
    let mut series = TurnSeries {
        agent,
        since: window.since,
        turns: turns.len() as u64,
        results: BTreeMap::new(),
        tokens: Tokens::default(),
        cost_usd: 0.0,
        cost_unknown: 0,
        tokens_per_turn: spread(turns.iter().map(|turn| turn.stats.tokens.total())),
        duration_ms: spread(turns.iter().map(|turn| turn.stats.duration_ms)),
        context: spread(turns.iter().filter_map(|turn| turn.stats.context)),
        cost_per_turn: usd_spread(turns.iter().filter_map(|turn| turn.stats.cost_usd)),
        tool_calls: BTreeMap::new(),
        woken_by: BTreeMap::new(),
        sent: BTreeMap::new(),
        inbox: 0,
        inbox_max: 0,
        last_turn_at: turns.first().map(|turn| turn.at),
        notes_bytes: turns.iter().find_map(|turn| turn.stats.notes_bytes),
        points: points(turns, window),
    };
    for TurnInfo { stats, facts, .. } in turns {
        *series
            .results
            .entry(stats.result.as_str().to_owned())
            .or_default() += 1;
        series.tokens = series.tokens.plus(stats.tokens);
        match stats.cost_usd {
            Some(usd) => series.cost_usd += usd,
            None => series.cost_unknown += 1,
        }
        for (tool, calls) in &stats.tool_calls {
            let known = series.tool_calls.contains_key(tool) || series.tool_calls.len() < MAX_TOOLS;
            let tool = if known { tool } else { "other" };
            let counted = series.tool_calls.entry(tool.to_owned()).or_default();
            *counted = counted.saturating_add(*calls);
        }
        for kind in facts.wakers(stats) {
            *series.woken_by.entry(kind.clone()).or_default() += 1;
        }
        for (kind, count) in &facts.sent {
            *series.sent.entry(kind.clone()).or_default() += count;
        }
        series.inbox_max = series.inbox_max.max(facts.inbox_max);
    }
    series
}

/// The points of a window, the oldest first; empty ones are left out.
fn points(turns: &[TurnInfo], window: Window) -> Vec<TurnPoint> {
    let Some(step) = window.step else {
        return Vec::new();
    };
    let seconds = i64::from(step) * 3600;
    let mut by_point: BTreeMap<i64, Vec<&TurnInfo>> = BTreeMap::new();
    for turn in turns {
        let at = turn.at.min(window.now).as_second().div_euclid(seconds);
        by_point.entry(at).or_default().push(turn);
    }
    let point = |(number, turns): (i64, Vec<&TurnInfo>)| TurnPoint {
        from: Timestamp::from_second(number.saturating_mul(seconds)).unwrap_or(window.since),
        turns: turns.len() as u64,
        tokens: turns
            .iter()
            .fold(0, |sum: u64, turn| sum.saturating_add(turn.stats.tokens.total())),
        cost_usd: turns.iter().filter_map(|turn| turn.stats.cost_usd).sum(),
        duration_ms: spread(turns.iter().map(|turn| turn.stats.duration_ms)),
        inbox_max: turns.iter().map(|turn| turn.facts.inbox_max).max().unwrap_or(0),
    };
    by_point.into_iter().map(point).collect()
}

/// The smallest value that this share of them does not exceed, in percent.
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn spread(values: impl Iterator<Item = u64>) -> Option<Spread> {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    Some(Spread {
        p50: percentile(&sorted, 50)?,
        p95: percentile(&sorted, 95)?,
        max: percentile(&sorted, 100)?,
    })
}

fn usd_spread(values: impl Iterator<Item = f64>) -> Option<UsdSpread> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    Some(UsdSpread {
        p50: percentile(&sorted, 50)?,
        p95: percentile(&sorted, 95)?,
        max: percentile(&sorted, 100)?,
    })
}

#[cfg(test)]
mod tests;
