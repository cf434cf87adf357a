//! The door of the egress service: it tells what happened, and is told nothing.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router, middleware};
use shared::egress::EgressReport;
use shared::wire_error::ErrorCode;

use super::Context;
use super::error::{ApiError, ApiResult, in_one_shape};
use crate::egress::report::PATH;
use crate::untrusted::is_hazard;

/// The largest report, in bytes: all that fits into the service's book.
const MAX_REPORT: usize = 4 * 1024 * 1024;
/// The most refusals in one.
const MAX_REFUSALS: usize = 4096;
/// The longest name of a run.
const MAX_RUN: usize = 64;

/// Its routes.
pub(super) fn router(context: Context) -> Router {
    Router::new()
        .route(PATH, post(report))
        .layer(DefaultBodyLimit::max(MAX_REPORT))
        .layer(middleware::map_response(in_one_shape))
        .with_state(context)
}

/// Takes in a report. Agents are named by the service, which knows them by their sockets.
async fn report(State(context): State<Context>, Json(report): Json<EgressReport>) -> ApiResult<StatusCode> {
    let run = &report.run;
    if run.is_empty()
        || run.len() > MAX_RUN
        || run.contains(is_hazard)
        || report.refusals.len() > MAX_REFUSALS
    {
        let message =
            format!("a report has a run of 1 to {MAX_RUN} bytes, and at most {MAX_REFUSALS} refusals");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    if report.dropped > 0 {
        tracing::warn!(
            dropped = report.dropped,
            "agents were refused more different hosts than are told of"
        );
    }
    let reconciler = &context.reconciler;
    let now = reconciler.host().clock.now();
    reconciler.ledger().note_egress(report, now).await?;
    Ok(StatusCode::NO_CONTENT)
}
