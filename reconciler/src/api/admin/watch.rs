//! What happens in an agent's turns, out of the daemon's memory: the newest of it, and a live stream.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::agent_event::{AgentEventPage, StreamedEvent};
use tokio::sync::watch;

use super::{no_agent, parsed};
use crate::api::Context;
use crate::api::error::ApiResult;
use crate::api::live;

/// How many events are told unless asked otherwise.
const TOLD: usize = 100;
/// The most events of one page.
const MAX_PAGE: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    /// Only events after this position; without it the newest
    after: Option<u64>,
    /// Go on with each new event
    #[serde(default)]
    follow: bool,
    /// At most this many events of a page, and never more than 1,000; 100 unless given
    limit: Option<usize>,
}

/// `GET /v1/agents/{name}/events`.
pub(super) async fn events(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    if !context.reconciler.views().agents.contains_key(&name) {
        return Err(no_agent(&context, &name));
    }
    let Wanted { after, follow, limit } = wanted;
    let most = limit.unwrap_or(TOLD).min(MAX_PAGE);
    // Before the look: what comes in between is news.
    let news = context.link.events().subscribe(&name);
    let epoch = context.link.events().page(&name, None, 0).epoch;
    let seen = headers.get("last-event-id").map(|id| seen_of(id, &epoch));
    let page = context.link.events().page(&name, seen.or(after), most);
    let response = if follow {
        live::stream(follow_on(context, name, news, page))
    } else {
        Json(page).into_response()
    };
    Ok(live::of_epoch(response, &epoch))
}

/// The name of an event in the stream.
fn id_of(epoch: &str, position: u64) -> String {
    format!("{epoch}.{position}")
}

/// The position that a reader names; of another epoch it has seen nothing.
fn seen_of(id: &HeaderValue, epoch: &str) -> u64 {
    let of_epoch = || {
        id.to_str()
            .ok()?
            .strip_prefix(epoch)?
            .strip_prefix('.')?
            .parse()
            .ok()
    };
    of_epoch().unwrap_or(0)
}

struct Follower {
    context: Context,
    name: AgentName,
    news: watch::Receiver<u64>,
    epoch: String,
    after: u64,
    page: std::vec::IntoIter<StreamedEvent>,
}

/// The events of the page, then each new one, until the daemon ends or the agent is gone.
fn follow_on(
    context: Context,
    name: AgentName,
    news: watch::Receiver<u64>,
    page: AgentEventPage,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let AgentEventPage { epoch, last, events } = page;
    let follower = Follower {
        context,
        name,
        news,
        epoch,
        after: last,
        page: events.into_iter(),
    };
    stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        let data = serde_json::to_string(&event).unwrap_or_default();
        let id = id_of(&follower.epoch, event.position);
        Some((Ok(SseEvent::default().id(id).data(data)), follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<StreamedEvent> {
        loop {
            if let Some(event) = self.page.next() {
                self.after = event.position;
                return Some(event);
            }
            // Marked as seen before reading: what comes in between wakes the wait below.
            self.news.borrow_and_update();
            let events = self.context.link.events();
            let page = events.next(&self.name, &self.epoch, self.after, MAX_PAGE)?;
            if !page.is_empty() {
                self.page = page.into_iter();
                continue;
            }
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                ended = self.context.shutdown.wait_for(|end| *end) => {
                    drop(ended);
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_in_its_own_epoch_alone() {
        let seen = |id: &str| seen_of(&HeaderValue::from_str(id).unwrap(), "17-2");
        assert_eq!(seen(&id_of("17-2", 40)), 40);
        for other in ["17-1.40", "17-22.40", "40", "", "17-2.", "17-2.x"] {
            assert_eq!(seen(other), 0, "{other:?}");
        }
    }
}
