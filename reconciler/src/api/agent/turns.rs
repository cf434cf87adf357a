//! What a harness tells of its turns while they run and when they have ended, bounded field by field: the agent may have replaced its harness.

use axum::Json;
use axum::http::StatusCode;
use shared::budget::{TurnLimits, TurnUsage};
use shared::turn::{Tokens, TurnStats};
use shared::wire_error::ErrorCode;
use shared::{AgentName, TurnId};

use super::{AgentContext, login};
use crate::api::Context;
use crate::api::error::{ApiError, ApiResult};
use crate::plan::budget::Budgets;
use crate::untrusted::line;

/// The longest name of a model, a conversation or a tool, in characters.
const MAX_NAME: usize = 128;
/// The longest error, in characters.
const MAX_ERROR: usize = 4096;
/// The most tools that are told apart.
const MAX_TOOLS: usize = 256;
/// The most kinds of sender.
const MAX_SENDERS: usize = 16;
/// The most of anything that one turn can have used; more is no number to add up.
const MAX_COUNT: u64 = 1_000_000_000_000;

pub(super) async fn ended(door: AgentContext, Json(stats): Json<TurnStats>) -> ApiResult<StatusCode> {
    let stats = bounded(stats);
    door.spend_on_turn(serde_json::to_vec(&stats).map_or(0, |doc| doc.len()))?;
    let AgentContext { context, agent, .. } = &door;
    let now = context.reconciler.host().clock.now();
    let ledger = context.reconciler.ledger();
    login::tell(context, agent, &stats).await?;
    let mut facts = context.broker.facts_of(agent, &stats, now).await?;
    let given_back = door.given_back().take_if(|(turn, ..)| *turn == stats.turn);
    if let Some((_, woken_by, messages)) = given_back.filter(|_| facts.woken_by.is_empty()) {
        (facts.woken_by, facts.taken_up) = (woken_by, messages);
    }
    ledger.note_turn(agent, stats, facts, now).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes in what a turn has used so far, and says what it may use.
pub(super) async fn uses(door: AgentContext, Json(usage): Json<TurnUsage>) -> ApiResult<Json<TurnLimits>> {
    door.spend_on_turn(0)?;
    let AgentContext { context, agent, .. } = door;
    let usage = TurnUsage {
        turn: usage.turn,
        tokens: usage.tokens.min(MAX_COUNT),
        cost_usd: price(usage.cost_usd),
    };
    let budgets = budgets(&context, &agent).await?;
    let now = context.reconciler.host().clock.now();
    Ok(Json(context.broker.turn_uses(&agent, usage, budgets, now).await?))
}

/// Whether the agent has nothing left for today. The operator is asked once a day.
pub(super) async fn over_budget(context: &Context, agent: &AgentName) -> ApiResult<bool> {
    let budgets = budgets(context, agent).await?;
    let now = context.reconciler.host().clock.now();
    Ok(context.broker.is_over_budget(agent, budgets, now).await?)
}

/// Refuses messages to a turn that has not begun and must not.
pub(super) async fn may_receive(context: &Context, agent: &AgentName, turn: TurnId) -> ApiResult<()> {
    if !over_budget(context, agent).await? || context.broker.has_begun(agent, turn).await? {
        return Ok(());
    }
    let message = format!("{agent} is over its budget, and takes no turn until that allows one");
    Err(ApiError::new(ErrorCode::Exhausted, message).hint("the operator was asked; hive questions"))
}

async fn budgets(context: &Context, agent: &AgentName) -> ApiResult<Budgets> {
    let accepted = context.reconciler.spec_in_force().await?;
    let spec = accepted.in_force();
    Ok(spec.map_or_else(Budgets::default, |spec| Budgets::of(spec, agent)))
}

/// What is no price is not known.
fn price(cost: Option<f64>) -> Option<f64> {
    cost.filter(|cost| (0.0..1e9).contains(cost))
}

/// The turn as it is kept.
fn bounded(stats: TurnStats) -> TurnStats {
    let TurnStats {
        turn,
        started_at,
        duration_ms,
        result,
        error,
        model,
        session,
        tokens,
        context,
        cost_usd,
        tool_calls,
        woken_by,
        notes_bytes,
    } = stats;
    let name = |text: &str| line(text, MAX_NAME);
    TurnStats {
        turn,
        started_at,
        duration_ms: count(duration_ms),
        result,
        error: error.map(|error| line(&error, MAX_ERROR)),
        model: model.as_deref().map(name),
        session: session.as_deref().map(name),
        tokens: counts(tokens),
        context: context.map(count),
        cost_usd: price(cost_usd),
        tool_calls: tool_calls
            .into_iter()
            .take(MAX_TOOLS)
            .map(|(tool, calls)| (name(&tool), count(calls)))
            .collect(),
        woken_by: woken_by
            .iter()
            .take(MAX_SENDERS)
            .map(|sender| name(sender))
            .collect(),
        notes_bytes: notes_bytes.map(count),
    }
}

/// No more than one turn can have used.
pub(super) fn count(number: u64) -> u64 {
    number.min(MAX_COUNT)
}

/// The same of each kind of token.
pub(super) fn counts(tokens: Tokens) -> Tokens {
    let Tokens {
        fresh,
        cached,
        created,
        output,
    } = tokens;
    Tokens {
        fresh: count(fresh),
        cached: count(cached),
        created: count(created),
        output: count(output),
    }
}

/// Whether that can be what a turn cost; what is no price is not known.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "a filter of an option")]
pub(super) fn is_price(usd: &f64) -> bool {
    (0.0..1e9).contains(usd)
}

#[cfg(test)]
mod tests {
    use shared::turn::TurnResult;

    use super::*;

    fn stats() -> TurnStats {
        TurnStats {
            turn: shared::TurnId(uuid::Uuid::from_u128(1)),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration_ms: 1200,
            result: TurnResult::Ok,
            error: None,
            model: Some("haiku".into()),
            session: Some("00000000-0000-4000-8000-000000000007".into()),
            tokens: Tokens {
                fresh: 1,
                cached: 2,
                created: 3,
                output: 4,
            },
            context: Some(9),
            cost_usd: Some(0.01),
            tool_calls: [("mcp__hive__recv".into(), 1)].into(),
            woken_by: vec!["agent".into()],
            notes_bytes: Some(4096),
        }
    }

    #[test]
    fn an_honest_turn_is_kept_as_it_is() {
        assert_eq!(bounded(stats()), stats());
    }

    #[test]
    fn what_no_turn_can_have_used_is_cut_and_what_is_no_price_is_not_known() {
        let hostile = "\x1b]0;owned\x07".repeat(100_000);
        let kept = bounded(TurnStats {
            error: Some(hostile.clone()),
            model: Some(hostile.clone()),
            tokens: Tokens {
                fresh: u64::MAX,
                ..Tokens::default()
            },
            cost_usd: Some(-5.0),
            tool_calls: (0..10_000).map(|n| (format!("t{n}"), u64::MAX)).collect(),
            woken_by: vec![hostile; 100],
            ..stats()
        });
        assert_eq!(kept.tokens.fresh, MAX_COUNT);
        assert_eq!(kept.cost_usd, None);
        assert_eq!(
            (kept.tool_calls.len(), kept.woken_by.len()),
            (MAX_TOOLS, MAX_SENDERS)
        );
        let text = serde_json::to_string(&kept).expect("JSON");
        assert!(text.len() < 32 * 1024, "{} bytes", text.len());
        assert!(!text.contains("\\u001b"), "it would act on a terminal");
        let dear = TurnStats {
            cost_usd: Some(1e12),
            ..stats()
        };
        assert_eq!(bounded(dear).cost_usd, None);
    }
}
