//! Starting: spawn the launcher, wait until the harness is about to run, or say why not.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use camino::Utf8Path;
use rustix::process::Signal;
use shared::AgentName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::launch::{self, LaunchArgs};
use super::record::{Handles, Run};
use super::watch::Registration;
use super::{ProcessRuntime, Sandbox, binds, secrets, stop};
use crate::host::{HostError, LaunchFile, UnitState};

/// How long a launcher may take. Making a sandbox takes milliseconds; a slow disk or a busy machine takes the rest.
const START_TIME: Duration = Duration::from_secs(15);
/// How long to wait for the status of a launcher that has closed its pipes.
const EXIT_TIME: Duration = Duration::from_secs(2);
/// The most of a launcher's or a log's last words that an error repeats.
const MAX_WORDS: u64 = 2048;

impl ProcessRuntime {
    pub(super) async fn start_in_turn(&self, launch: &LaunchFile) -> Result<(), HostError> {
        let agent = &launch.launch.agent;
        let subject = || format!("the start of {agent}");
        match self.observe_one(agent).await? {
            UnitState::Running { toplevel, .. } if toplevel == launch.digest => return Ok(()),
            UnitState::Running { toplevel, .. } => {
                return Err(HostError::failed(
                    subject(),
                    format!(
                        "it runs already from another toplevel ({}); stop it first",
                        toplevel.short()
                    ),
                ));
            }
            UnitState::Foreign { what } => return Err(HostError::failed(subject(), what)),
            UnitState::Absent | UnitState::Exited { .. } => {}
        }
        self.check(launch).await?;

        let args = self.launch_args(launch);
        let registration = self
            .inner
            .register(agent, &args.run)
            .ok_or_else(|| HostError::failed(subject(), "the identity of the run is taken; try again"))?;
        let log = self.inner.files(agent).log();
        let log_before = log.metadata().map_or(0, |metadata| metadata.len());
        let mut launcher = Launcher::spawn(&self.inner.options.launcher, &args)
            .map_err(HostError::io("start the launcher of", agent.as_str()))?;
        let (said, let_go) = match tokio::time::timeout(START_TIME, launcher.listen()).await {
            Ok(heard) => heard,
            Err(_) => {
                self.end_attempt(agent, &args.run).await?;
                // The launcher is our child and not yet reaped: its process id is its own.
                drop(launcher.child.start_kill());
                (
                    format!("it did not start within {} seconds", START_TIME.as_secs()),
                    false,
                )
            }
        };
        let (run, handles) = self.find(agent, &args.run).await?;
        if let_go && said.is_empty() && run.is_some() && !handles.is_empty() {
            tracing::info!(%agent, run = registration.run(), "agent started");
            return registration.watch(handles, Some(launcher.child));
        }
        let status = tokio::time::timeout(EXIT_TIME, launcher.child.wait()).await;
        let code = status.ok().and_then(Result::ok).and_then(|status| status.code());
        give_up(registration, run.as_ref(), handles, launcher.child)?;

        if code == Some(i32::from(launch::EXIT_TAKEN)) {
            // Somebody was faster. If he started the same, this is what was wanted.
            let state = self.observe_one(agent).await?;
            if matches!(&state, UnitState::Running { toplevel, .. } if *toplevel == launch.digest) {
                return Ok(());
            }
        }
        let reason = if said.is_empty() {
            self.log_tail(agent, log_before).await?
        } else {
            said
        };
        Err(if code == Some(i32::from(launch::EXIT_REFUSED)) {
            HostError::refused(subject(), reason)
        } else {
            HostError::failed(subject(), format!("{reason} (log: {log})"))
        })
    }

    /// Refuses what cannot or must not be started, before anything is.
    pub(super) async fn check(&self, launch: &LaunchFile) -> Result<(), HostError> {
        let launch = launch.launch.clone();
        let subject = launch.agent.to_string();
        self.blocking(&subject, move |inner| {
            let options = &inner.options;
            match &options.sandbox {
                Sandbox::Bwrap(_) => {
                    drop(binds::check(
                        &launch.agent,
                        &launch.binds,
                        &options.layout,
                        &binds::daemons_own,
                    )?);
                    drop(secrets::read(&launch, &options.layout)?);
                }
                Sandbox::None { why } => launch::permit_unsandboxed(&launch, options.unsafe_no_sandbox, why)?,
            }
            if launch.harness.is_file() {
                return Ok(());
            }
            Err(HostError::failed(
                format!("the start of {}", launch.agent),
                format!(
                    "the harness {} is not there; install it, or set `hive.harness`",
                    launch.harness
                ),
            ))
        })
        .await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a run's identity is compared with its own record only"
    )]
    fn launch_args(&self, launch: &LaunchFile) -> LaunchArgs {
        let options = &self.inner.options;
        let bwrap = match &options.sandbox {
            Sandbox::Bwrap(bwrap) => Some(bwrap),
            Sandbox::None { .. } => None,
        };
        LaunchArgs {
            state: options.layout.state().to_owned(),
            run_dir: options.layout.run().to_owned(),
            agent: launch.launch.agent.clone(),
            digest: launch.digest.clone(),
            run: uuid::Uuid::new_v4().to_string(),
            bwrap: bwrap.map(|bwrap| bwrap.program.clone()),
            disable_userns: bwrap.is_some_and(|bwrap| bwrap.disable_userns),
            bind_fd: bwrap.is_some_and(|bwrap| bwrap.bind_fd),
            unsafe_no_sandbox: options.unsafe_no_sandbox,
        }
    }

    /// The run of this identity and what is alive of it.
    async fn find(&self, agent: &AgentName, run: &str) -> Result<(Option<Run>, Handles), HostError> {
        let (agent, run) = (agent.clone(), run.to_owned());
        let subject = agent.to_string();
        self.blocking(&subject, move |inner| {
            let Some(run) = Run::read(&inner.files(&agent))?.filter(|found| found.record.run == run) else {
                return Ok((None, Handles::default()));
            };
            let handles = run
                .open(&inner.boot_id)
                .map_err(HostError::io("look at the processes of", agent.as_str()))?;
            Ok((Some(run), handles))
        })
        .await
    }

    /// Kills what there is of a start that takes too long.
    async fn end_attempt(&self, agent: &AgentName, run: &str) -> Result<(), HostError> {
        let (_, handles) = self.find(agent, run).await?;
        // The harness first, or it would be left without its `bwrap`.
        for handle in [handles.harness, handles.outer].iter().flatten() {
            stop::signal(handle, Signal::KILL, agent)?;
        }
        Ok(())
    }

    async fn log_tail(&self, agent: &AgentName, before: u64) -> Result<String, HostError> {
        let log = self.inner.files(agent).log();
        self.blocking(agent.as_str(), move |_| Ok(tail(&log, before)))
            .await
    }
}

/// Ends a registration whose run failed to start: through a watcher if it left a record, so that its end is noted.
fn give_up(
    registration: Registration,
    run: Option<&Run>,
    handles: Handles,
    child: Child,
) -> Result<(), HostError> {
    match run {
        Some(_) => registration.watch(handles, Some(child)),
        None => {
            drop(registration);
            Ok(())
        }
    }
}

/// A launcher and the two ways it speaks.
struct Launcher {
    child: Child,
    /// Closed by its other end when the harness is about to run, or when the attempt failed.
    ready: UnixStream,
}

impl Launcher {
    #[expect(
        clippy::disallowed_methods,
        reason = "programs are started in host/ alone; this is one of the places"
    )]
    fn spawn(launcher: &[String], args: &LaunchArgs) -> std::io::Result<Self> {
        let (program, words) = launcher.split_first().ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "no launcher is configured")
        })?;
        let (ready, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        // `bwrap` waits on it for a byte.
        theirs.set_nonblocking(false)?;
        // The command keeps its own copy of `theirs`, and is gone at the end of this function.
        let child = tokio::process::Command::new(program)
            .args(words)
            .args(args.to_words())
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child, ready })
    }

    /// Lets the harness go and waits until it does. Returns what the launcher said instead, and whether the byte
    /// that lets it go was taken: `bwrap` takes it when the sandbox is complete, the launcher when there is none.
    async fn listen(&mut self) -> (String, bool) {
        // An error means that the launcher is gone; its last words say more.
        self.ready.write_all(b"1").await.ok();
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(MAX_WORDS).read_to_end(&mut said).await.ok();
        }
        // A socket that is closed with a byte unread is reset, which is an error.
        let let_go = matches!(self.ready.read(&mut [0; 1]).await, Ok(0));
        (printable(&said), let_go)
    }
}

/// The end of what was added to a log.
fn tail(log: &Utf8Path, before: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        // A shorter log is a new one.
        let start = if before <= length { before } else { 0 };
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(MAX_WORDS))))?;
        let mut bytes = Vec::new();
        file.take(MAX_WORDS).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let said = read().map(|bytes| printable(&bytes)).unwrap_or_default();
    if said.is_empty() {
        "it ended at once and said nothing".to_owned()
    } else {
        said
    }
}

/// Untrusted bytes as one line of text.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines
        .join("; ")
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
