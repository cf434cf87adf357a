//! Live streams of events: server-sent events that name their epoch.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::Stream;
use shared::admin_api::EPOCH_HEADER;

/// How long nothing happens before the reader is shown that the daemon is still there.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// The answer to a reader that goes on with each new event.
pub(super) fn stream(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response()
}

/// An answer that says in which epoch its positions are.
pub(super) fn of_epoch(mut response: Response, epoch: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(epoch) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(EPOCH_HEADER), value);
    }
    response
}
