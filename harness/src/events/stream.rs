//! Tells the daemon what happens, for whoever watches. What it cannot tell in time it drops: the log has it.

use std::sync::Arc;
use std::time::Duration;

use shared::agent_event::{EventBatch, EventBatchAnswer};

use super::Feed;
use crate::host_client::retry::Backoff;
use crate::host_client::{ClientError, HostClient};

/// How long things take; shorter in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// How long events are gathered while somebody watches.
    watched: Duration,
    /// The same while nobody does: the daemon only keeps them for a while.
    unwatched: Duration,
    /// How long a daemon that does not take events is left alone.
    refused: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            watched: Duration::from_millis(100),
            unwatched: Duration::from_secs(1),
            refused: Duration::from_secs(60),
        }
    }
}

/// Streams until the feed is closed. While nothing happens nothing is sent.
pub(super) async fn stream(feed: Feed, client: Arc<HostClient>, run_id: String, times: Times) {
    let mut watched = false;
    loop {
        feed.wait_to_stream().await;
        feed.pause(if watched { times.watched } else { times.unwatched })
            .await;
        loop {
            let events = feed.take_to_stream();
            if events.is_empty() {
                break;
            }
            let batch = EventBatch {
                run_id: run_id.clone(),
                events,
            };
            match told(&feed, &client, &batch).await {
                Ok(answer) => watched = answer.watched,
                Err(error) => {
                    // A daemon of an earlier version has no such route.
                    tracing::debug!(error = crate::error_chain(&error), "events are not streamed");
                    feed.pause(times.refused).await;
                }
            }
        }
        if feed.is_closed() {
            return;
        }
    }
}

/// Tells of a batch, however long the daemon is away; at the end, once.
async fn told(feed: &Feed, client: &HostClient, batch: &EventBatch) -> Result<EventBatchAnswer, ClientError> {
    let mut backoff = Backoff::default();
    loop {
        match client.tell_events(batch).await {
            Err(error) if error.is_transient() && !feed.is_closed() => feed.pause(backoff.step()).await,
            answer => return answer,
        }
    }
}
