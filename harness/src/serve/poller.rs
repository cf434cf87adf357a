//! Keeps one poll open at the daemon.
//!
//! A new report is sent at once, by a poll that does not wait; then a poll that does wait carries it again. A newer
//! report breaks that one off. Nothing is lost by that: an answer says what there is, not what changed, and the next
//! one says it again. The daemon may come to read a request that was broken off after the one sent next; `seq`, which
//! rises with every new report, tells it which is older. What is said twice is only ever what was answered before, so
//! that an answer to a new report is never lost with the request.

use std::sync::Arc;
use std::time::Duration;

use shared::TurnId;
use shared::agent_api::{MAX_WAIT_SECS, PollRequest, PollResponse, Report};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Note;
use crate::host_client::retry::Backoff;
use crate::host_client::{ClientError, HostClient};

/// An answer that comes sooner than this was not waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Polls for ever, with the newest report; says in `told_lease` which lease the daemon has heard of.
pub(super) async fn poll(
    client: Arc<HostClient>,
    mut reports: watch::Receiver<Report>,
    notes: mpsc::UnboundedSender<Note>,
    told_lease: watch::Sender<Option<TurnId>>,
) {
    let mut backoff = Backoff::default();
    let mut last: Option<PollResponse> = None;
    let mut last_refusal = None;
    let mut told: Option<Report> = None;
    loop {
        let report = reports.borrow_and_update().clone();
        let known = told.as_ref() == Some(&report);
        let request = PollRequest {
            report,
            wait_secs: if known { MAX_WAIT_SECS } else { 0 },
        };
        let asked = Instant::now();
        let answer = if known {
            tokio::select! {
                answer = client.poll(&request) => answer,
                changed = reports.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        } else {
            client.poll(&request).await
        };
        let pause = match answer {
            Ok(answer) => {
                last_refusal = None;
                told_lease.send_replace(request.report.lease);
                told = Some(request.report);
                // The daemon repeats an answer for as long as it holds. When nothing can be done about it (messages
                // while paused, a config file that cannot be loaded) asking again at once would be a busy loop.
                let repeated = known && last.as_ref() == Some(&answer) && asked.elapsed() < AT_ONCE;
                if !repeated {
                    backoff.reset();
                }
                last = Some(answer.clone());
                if notes.send(Note::Answer(answer)).is_err() {
                    return;
                }
                repeated.then(|| backoff.step())
            }
            Err(error) => {
                last = None;
                told = None;
                log_once(&error, &mut last_refusal);
                Some(backoff.step())
            }
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // While the daemon is away a new report is no reason to knock more often.
                changed = reports.changed(), if last.is_some() => match changed {
                    Ok(()) => backoff.reset(),
                    Err(_) => return,
                },
            }
        }
    }
}

/// The client itself says when the daemon goes and comes back; this is for a daemon that is there and says no.
fn log_once(error: &ClientError, last: &mut Option<String>) {
    if matches!(error, ClientError::Unreachable(_)) {
        return;
    }
    let text = crate::error_chain(error);
    if last.as_ref() != Some(&text) {
        tracing::error!(error = text, "report refused, trying again");
        *last = Some(text);
    }
}
