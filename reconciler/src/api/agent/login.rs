//! Tells the operator and the managers when an agent has no login any more, and when it has one again.

use shared::agent_api::MessageKind;
use shared::topic::Topic;
use shared::turn::{TurnResult, TurnStats};
use shared::{Address, AgentName};

use crate::api::Context;
use crate::api::error::ApiResult;
use crate::broker::Outgoing;
use crate::model::change::{Change, Notice};

/// Says it when a turn that has ended went otherwise than the one before: once each time, however often it is tried.
pub(super) async fn tell(context: &Context, agent: &AgentName, turn: &TurnStats) -> ApiResult<()> {
    if !matches!(turn.result, TurnResult::Auth | TurnResult::Ok) {
        return Ok(());
    }
    let ledger = context.reconciler.ledger();
    let turns = ledger.turns(Some(agent), None, 1).await?.complete()?;
    let before = turns.first().map(|before| before.stats.result);
    let (topic, body) = match (before, turn.result) {
        (Some(TurnResult::Auth), TurnResult::Ok) => (
            Topic::LoggedIn,
            format!("{agent} is logged in again, and goes on"),
        ),
        (before, TurnResult::Auth) if before != Some(TurnResult::Auth) => (
            Topic::NeedsLogin,
            format!("{agent} needs a login, and takes no turns until it has one: hive login {agent}"),
        ),
        _ => return Ok(()),
    };
    // A turn is told of once more when the answer was lost.
    let dedupe = format!("login/{agent}/{}", turn.turn);
    let now = context.reconciler.host().clock.now();
    let notice = Outgoing {
        from: Address::System,
        to: Address::Operator,
        kind: MessageKind::System,
        topic: Some(topic),
        body: body.clone(),
        reply_to: None,
        dedupe: Some(dedupe.clone()),
    };
    context.broker.send(notice, now).await?;
    let managers = Change::NotifyManagers {
        about: agent.clone(),
        notice: Notice {
            topic,
            body,
            dedupe,
            at: now,
        },
    };
    Ok(ledger.apply(vec![managers]).await?)
}
