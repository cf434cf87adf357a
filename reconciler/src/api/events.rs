//! The durable stream of events: pages, and a live stream that resumes where the reader stopped.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::admin_api::EventPage;
use shared::event::Event;

use super::Context;
use super::error::ApiResult;
use super::live;

/// The most events of one page.
const MAX_PAGE: u32 = 1_000;

/// What part of the stream is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventQuery {
    /// Only events after this one
    #[serde(default)]
    after: u64,
    /// Go on with each new event
    #[serde(default)]
    follow: bool,
    /// At most this many events of a page, and never more than 1,000
    limit: Option<u32>,
}

/// `GET /v1/events`.
pub async fn events(
    State(context): State<Context>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let ledger = context.reconciler.ledger();
    let epoch = ledger.meta().epoch.clone();
    let last_seen = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let after = last_seen.unwrap_or(query.after);
    let response = if query.follow {
        live::stream(follow(context.clone(), after))
    } else {
        let limit = query.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let last = ledger.last_seq().await?;
        let events = ledger.events(after, limit).await?;
        Json(EventPage {
            epoch: epoch.clone(),
            last,
            events,
        })
        .into_response()
    };
    Ok(live::of_epoch(response, &epoch))
}

struct Follower {
    context: Context,
    news: tokio::sync::watch::Receiver<u64>,
    after: u64,
    page: std::vec::IntoIter<Event>,
}

/// Every event after `after`, then each new one, until the daemon ends.
fn follow(context: Context, after: u64) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let news = context.reconciler.ledger().subscribe();
    let follower = Follower {
        context,
        news,
        after,
        page: Vec::new().into_iter(),
    };
    stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        let data = serde_json::to_string(&event).unwrap_or_default();
        let sse = SseEvent::default().id(event.seq.to_string()).data(data);
        Some((Ok(sse), follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.page.next() {
                self.after = event.seq;
                return Some(event);
            }
            // Marked as seen before reading: what comes in between wakes the wait below.
            self.news.borrow_and_update();
            let page = self
                .context
                .reconciler
                .ledger()
                .events(self.after, MAX_PAGE)
                .await
                .ok()?;
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
