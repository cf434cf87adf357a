//! What the tools of one turn share.

use std::time::Duration;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use shared::TurnId;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Settings;
use crate::children::Children;
use crate::control::{ControlClient, Said};
use crate::host_client::retry::Backoff;
use crate::host_client::{ClientError, HostClient};
use crate::repo::ConfigRepo;

/// How long a tool tries while the daemon is away: as long as a restart takes, not as long as a model waits.
const PATIENCE: Duration = Duration::from_secs(4);

/// What may be done again when nobody knows whether it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It only looks, or the daemon knows it for a repetition.
    Harmless,
    /// It would be done twice: it is only tried again when the daemon was never reached.
    Harmful,
}

/// The tools' way to everything.
#[derive(Debug)]
pub(super) struct Hive {
    pub(super) client: HostClient,
    pub(super) control: ControlClient,
    pub(super) repo: ConfigRepo,
    pub(super) state: Utf8PathBuf,
    pub(super) turn: TurnId,
    /// The last batch that came in. Held during a `recv`: one at a time.
    pub(super) received: Mutex<u64>,
    /// Held while the config repo is worked in: there is one scratch folder.
    pub(super) committing: Mutex<()>,
}

impl Hive {
    pub(super) fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let Settings {
            socket,
            control,
            state,
            config: _,
            turn,
        } = settings;
        Ok(Self {
            client: HostClient::new(&socket)?,
            control: ControlClient::new(&control),
            repo: ConfigRepo::new(state.clone(), Children::default()),
            state,
            turn,
            received: Mutex::new(0),
            committing: Mutex::new(()),
        })
    }

    /// Repeats a call for a while, as long as the daemon is away.
    pub(super) async fn patiently<T, F, R>(&self, again: Again, call: F) -> Result<T, ClientError>
    where
        F: Fn() -> R + Send + Sync,
        R: Future<Output = Result<T, ClientError>> + Send,
    {
        let begin = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let error = match call().await {
                Err(error) if error.is_transient() => error,
                answered => return answered,
            };
            let unreached = matches!(&error, ClientError::Unreachable(error) if error.is_connect());
            let pause = backoff.step();
            if (again == Again::Harmful && !unreached) || begin.elapsed() + pause > PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells the loop of the harness something that it may miss.
    pub(super) async fn mention(&self, said: Said) -> bool {
        match self.control.say(&said).await {
            Ok(()) => true,
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::warn!(?said, error, "the harness was not told");
                false
            }
        }
    }
}

/// The time, by this machine's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a nap is for so long from now, and must work while the daemon is away"
)]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}
