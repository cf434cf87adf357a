//! What the tools of one turn share.

use std::time::Duration;

use camino::Utf8PathBuf;
use shared::TurnId;
use shared::wire_error::ErrorCode;
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

/// What a request may do when it is made again although nobody knows whether it was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It only looks, or gives the same once more.
    Looks,
    /// The daemon knows it for a repetition.
    Known,
    /// It would be done twice: it is tried again only when the daemon was never reached.
    Never,
}

/// A request that came to nothing, as far as that is known.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: ClientError,
    /// Whether it may have been carried out all the same.
    pub(super) unclear: bool,
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

    /// Repeats a request for a while, as long as the daemon is away.
    pub(super) async fn patiently<T, F, R>(&self, again: Again, request: F) -> Result<T, Failed>
    where
        F: Fn() -> R + Send + Sync,
        R: Future<Output = Result<T, ClientError>> + Send,
    {
        let mut begin = Instant::now();
        let mut backoff = Backoff::default();
        let mut unclear = false;
        loop {
            let attempt = Instant::now();
            let error = match request().await {
                Err(error) => error,
                Ok(answer) => return Ok(answer),
            };
            let lost = may_be_done(&error);
            unclear |= again != Again::Looks && lost;
            // Who takes a request and does not answer will not answer the next one either.
            let silent = matches!(&error, ClientError::Unreachable(error) if error.is_timeout());
            let useless = !error.is_transient() || silent || (again == Again::Never && lost);
            if attempt.elapsed() > PATIENCE {
                // It was there for long, and has only gone now.
                begin = Instant::now();
                backoff.reset();
            }
            let pause = backoff.step();
            if useless || begin.elapsed() + pause > PATIENCE {
                return Err(Failed { error, unclear });
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

/// Whether a request that failed like this may have been carried out.
fn may_be_done(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable(error) => !error.is_connect(),
        ClientError::Refused { error, .. } => matches!(error.code, ErrorCode::Internal | ErrorCode::Unknown),
        ClientError::Malformed { .. } | ClientError::TooLarge { .. } => true,
        ClientError::Incompatible { .. } => false,
    }
}
