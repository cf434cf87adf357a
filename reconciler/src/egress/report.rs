//! Telling the daemon, for as long as it takes.
//!
//! While the daemon is away the book fills; what does not fit into it is counted. A report that was not answered may have
//! arrived all the same: it is sent again under its number, and the daemon knows it.

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use reqwest::StatusCode;
use shared::egress::EgressReport;

use super::book::Page;
use super::tally::Outside;

/// Where the daemon takes reports.
pub const PATH: &str = "/v1/report";
/// How long refusals are gathered before they are told: a program tries more than once.
const GATHER: Duration = Duration::from_millis(300);
/// How often bytes are told, when any were moved.
const BYTES_EVERY: Duration = Duration::from_secs(10);
/// How long the daemon may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long to wait before a report is sent again.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// The daemon's door.
pub struct Daemon {
    http: reqwest::Client,
    socket: Utf8PathBuf,
    run: String,
}

impl Daemon {
    /// Of the daemon behind this socket. `run` is another for each process.
    ///
    /// # Errors
    /// When the library cannot be set up.
    pub fn new(socket: &Utf8Path, run: String) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .unix_socket(socket.as_std_path())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_TIME)
            .build()?;
        Ok(Self {
            http,
            socket: socket.to_owned(),
            run,
        })
    }

    /// Tells the daemon all that happens, for ever.
    pub async fn tell(self, outside: Arc<Outside>) {
        let mut seq = 0;
        loop {
            tokio::select! {
                () = outside.refused() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(BYTES_EVERY) => {}
            }
            let page = outside.take();
            if page == Page::default() {
                continue;
            }
            seq += 1;
            self.deliver(page, seq).await;
        }
    }

    /// Sends a report until it is answered.
    async fn deliver(&self, page: Page, seq: u64) {
        let Page {
            refusals,
            dropped,
            traffic,
        } = page;
        let report = EgressReport {
            run: self.run.clone(),
            seq,
            refusals,
            dropped,
            traffic,
        };
        let mut pauses = PAUSES.into_iter();
        let mut last = PAUSES[PAUSES.len() - 1];
        let mut away = false;
        loop {
            match self.send(&report).await {
                Ok(status) if status.is_success() => {
                    if away {
                        tracing::info!("the daemon is back, and was told");
                    }
                    return;
                }
                // It will not be taken the next time either.
                Ok(status) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    tracing::error!(%status, "the daemon does not take a report: is it of another version?");
                    return;
                }
                Ok(status) => tracing::debug!(%status, "not told"),
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        let error = crate::error_chain(&error);
                        tracing::warn!(socket = %self.socket, error, "the daemon is away: it is told later");
                    }
                }
            }
            last = pauses.next().unwrap_or(last);
            tokio::time::sleep(last).await;
        }
    }

    async fn send(&self, report: &EgressReport) -> Result<StatusCode, reqwest::Error> {
        let request = self.http.post(format!("http://daemon{PATH}")).json(report);
        Ok(request
            .send()
            .await
            .map_err(reqwest::Error::without_url)?
            .status())
    }
}
