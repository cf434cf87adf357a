//! What a harness tells of its turns, bounded and made safe: the agent may have replaced its harness.

use axum::Json;
use shared::agent_event::{
    AgentEvent, EventBatch, EventBatchAnswer, MAX_BATCH_EVENTS, MAX_TEXT_BYTES, UsedSoFar,
};
use shared::wire_error::ErrorCode;

use super::AgentContext;
use super::turns::{count, counts, is_price};
use crate::api::error::{ApiError, ApiResult};
use crate::untrusted::{clean, cut, line};

/// The longest id of a run in bytes, and the longest name of a tool in characters.
const MAX_ID: usize = 64;
const MAX_TOOL: usize = 128;

pub(super) async fn tell(
    door: AgentContext,
    Json(batch): Json<EventBatch>,
) -> ApiResult<Json<EventBatchAnswer>> {
    let AgentContext { context, agent, .. } = door;
    let watched = context.link.events().tell(&agent, bounded(batch)?);
    Ok(Json(EventBatchAnswer { watched }))
}

/// The batch as it is kept.
fn bounded(batch: EventBatch) -> ApiResult<EventBatch> {
    let EventBatch { run_id, events } = batch;
    let refused = |message: String| Err(ApiError::new(ErrorCode::BadRequest, message));
    if run_id.is_empty() || run_id.len() > MAX_ID {
        return refused(format!("the run's id must have 1 to {MAX_ID} bytes"));
    }
    if events.len() > MAX_BATCH_EVENTS {
        return refused(format!(
            "{} events are told at once, at most {MAX_BATCH_EVENTS} are accepted",
            events.len()
        ));
    }
    let events = events.into_iter().map(safe).collect();
    Ok(EventBatch { run_id, events })
}

fn safe(event: AgentEvent) -> AgentEvent {
    let AgentEvent {
        seq,
        at,
        turn,
        kind,
        text,
        tool,
        ok,
        used,
    } = event;
    AgentEvent {
        seq,
        at,
        turn,
        kind,
        // What is not shown takes more room than it had: cut once more.
        text: cut(&clean(cut(&text, MAX_TEXT_BYTES)), MAX_TEXT_BYTES).to_owned(),
        tool: tool.map(|tool| line(&tool, MAX_TOOL)),
        ok,
        used: used.map(|used| {
            let UsedSoFar {
                tokens,
                cost_usd,
                context,
                window,
            } = used;
            UsedSoFar {
                tokens: counts(tokens),
                cost_usd: cost_usd.filter(is_price),
                context: context.map(count),
                window: window.map(count),
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use shared::agent_event::AgentEventKind;
    use shared::turn::Tokens;

    use super::*;

    fn event(text: &str) -> AgentEvent {
        AgentEvent {
            seq: 7,
            at: Timestamp::UNIX_EPOCH,
            turn: None,
            kind: AgentEventKind::ToolCall,
            text: text.to_owned(),
            tool: Some("Read".to_owned()),
            ok: Some(true),
            used: Some(UsedSoFar {
                tokens: Tokens {
                    fresh: 3,
                    ..Tokens::default()
                },
                cost_usd: Some(0.5),
                context: Some(10),
                window: Some(100),
            }),
        }
    }

    fn kept(event: AgentEvent) -> AgentEvent {
        let batch = EventBatch {
            run_id: "r".to_owned(),
            events: vec![event],
        };
        bounded(batch).unwrap().events.remove(0)
    }

    #[test]
    fn an_honest_event_is_kept_as_it_is() {
        assert_eq!(kept(event("two\nlines\tand é")), event("two\nlines\tand é"));
    }

    #[test]
    fn texts_that_would_act_on_a_terminal_or_fill_the_memory_are_made_safe() {
        let hostile = "\x1b]0;owned\x07\u{202e}".repeat(10_000);
        let kept = kept(AgentEvent {
            tool: Some(hostile.clone()),
            used: Some(UsedSoFar {
                cost_usd: Some(-1.0),
                window: Some(u64::MAX),
                ..UsedSoFar::default()
            }),
            ..event(&hostile)
        });
        let tool = kept.tool.unwrap();
        assert!(kept.text.len() <= MAX_TEXT_BYTES, "{} bytes", kept.text.len());
        assert!(tool.chars().count() <= MAX_TOOL + 1);
        for text in [&kept.text, &tool] {
            assert!(!text.contains(['\x1b', '\x07', '\u{202e}']));
        }
        let used = kept.used.unwrap();
        assert_eq!(used.cost_usd, None);
        assert!(used.window < Some(u64::MAX));
    }

    #[test]
    fn a_batch_without_a_run_or_without_end_is_refused() {
        let batch = |run_id: &str, count| EventBatch {
            run_id: run_id.to_owned(),
            events: vec![event("x"); count],
        };
        assert!(bounded(batch("r", MAX_BATCH_EVENTS)).is_ok());
        for bad in [
            batch("r", MAX_BATCH_EVENTS + 1),
            batch("", 1),
            batch(&"r".repeat(65), 1),
        ] {
            assert_eq!(bounded(bad).unwrap_err().0.code, ErrorCode::BadRequest);
        }
    }
}
