//! The process runtime: each agent is a child process tree in a `bwrap` sandbox.
//!
//! The daemon starts its own program as a launcher ([`launch`]), which becomes the sandbox. From then on the agent
//! depends on no process of the daemon: a new daemon finds it by its record (`record`), makes sure by start time and
//! boot that it is the same process, and waits for its end with a pidfd. Nothing is polled, nothing is killed by a
//! bare process id.
//!
//! What always holds: an agent runs at most once. The launcher refuses while the lock is held or any process of the
//! last run is alive, and the record is on disk before the sandbox exists.

mod binds;
pub mod launch;
mod output;
mod proc;
mod record;
mod sandbox;
mod secrets;
mod start;
mod stop;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use shared::spec::{LimitsSpec, RuntimeKind};
use shared::{AgentName, AgentUid};

pub(in crate::host) use output::read_end;
pub(in crate::host) use sandbox::programs as sandbox_programs;
pub use sandbox::{Bwrap, Sandbox};

pub(super) use self::binds::check as check_binds;
use self::record::{ExitRecord, Handles, Run, RunFiles};
pub(super) use self::secrets::{inspect as inspect_secrets, read as read_secrets};
use self::watch::Watches;
use super::layout::Layout;
use super::{Clock, ExitCause, HostError, LaunchFile, Lines, Output, Resources, Runtime, UnitState};

/// Is told which agent's processes have ended.
pub type Notify = Arc<dyn Fn(AgentName) + Send + Sync>;

/// How long a harness has between SIGTERM and SIGKILL, unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What the process runtime is made from.
#[derive(Clone)]
pub struct ProcessOptions {
    /// Where everything lies.
    pub layout: Layout,
    /// What agents are kept in, as probed.
    pub sandbox: Sandbox,
    /// The command that leads to [`launch::run`]: this program and its hidden subcommand.
    pub launcher: Vec<String>,
    /// How long a harness has between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether any driver may run where there is no sandbox.
    pub unsafe_no_sandbox: bool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Called when an agent's processes have ended, whoever started them.
    pub notify: Notify,
}

/// Runs agents as process trees.
#[derive(Clone)]
pub struct ProcessRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    options: ProcessOptions,
    boot_id: String,
    watches: Watches,
    /// When runs whose end nobody noted were first seen to be over.
    first_seen: Mutex<HashMap<AgentName, (String, Timestamp)>>,
    /// Starts and stops of one agent come one after the other.
    turns: Mutex<HashMap<AgentName, Arc<tokio::sync::Mutex<()>>>>,
}

/// The process of an agent that runs, as its files and the kernel say; changes nothing.
///
/// # Errors
/// When that cannot be said.
pub fn running(layout: &Layout, agent: &AgentName) -> Result<Option<i32>, HostError> {
    let files = RunFiles::new(layout.launch(agent));
    let failed = || HostError::io("look for the process of", agent.as_str());
    let boot_id = proc::boot_id().map_err(failed())?;
    match Run::read(&files)? {
        Some(run) if run.is_alive(&boot_id).map_err(failed())? => Ok(Some(run.record.pid)),
        Some(_) | None => Ok(None),
    }
}

/// What an agent's files and processes say.
enum Look {
    Absent,
    Foreign(String),
    /// Running; with handles when nobody watches it yet.
    Running(Run, Option<Handles>),
    Ended(Run, ExitRecord),
}

impl ProcessRuntime {
    /// A runtime over these folders. Starts nothing; what runs already is adopted when it is first observed.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn new(options: ProcessOptions) -> Result<Self, HostError> {
        let boot_id = proc::boot_id().map_err(HostError::io("read", "the boot id"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                boot_id,
                watches: Watches::default(),
                first_seen: Mutex::default(),
                turns: Mutex::default(),
            }),
        })
    }

    async fn observe_one(&self, agent: &AgentName) -> Result<UnitState, HostError> {
        let mut states = self.observe(std::slice::from_ref(agent)).await?;
        Ok(states.remove(agent).unwrap_or(UnitState::Absent))
    }

    /// Waits until it is this caller's turn with the agent.
    async fn turn(&self, agent: &AgentName) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(locked(&self.inner.turns).entry(agent.clone()).or_default());
        turn.lock_owned().await
    }

    /// Runs blocking work on the pool made for it.
    async fn blocking<T, F>(&self, subject: &str, work: F) -> Result<T, HostError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Inner>) -> Result<T, HostError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|e| {
                Err(HostError::failed(
                    subject,
                    format!("the work on it ended early: {e}"),
                ))
            })
    }
}

impl Inner {
    fn files(&self, agent: &AgentName) -> RunFiles {
        RunFiles::new(self.options.layout.launch(agent))
    }

    /// Looks at one agent. Blocking, but no more than a few small reads.
    fn look(&self, agent: &AgentName) -> Result<Look, HostError> {
        let files = self.files(agent);
        let Some(run) = Run::read(&files)? else {
            let what = format!("a process holds {} without saying what it runs", files.lock());
            return Ok(if record::is_locked(&files)? {
                Look::Foreign(what)
            } else {
                Look::Absent
            });
        };
        // The watcher has the last word: it notes why the run ended before it lets go.
        if self.watches.has(agent, &run.record.run) {
            return Ok(Look::Running(run, None));
        }
        let handles = run
            .open(&self.boot_id)
            .map_err(HostError::io("look at the processes of", agent.as_str()))?;
        if !handles.is_empty() {
            return Ok(Look::Running(run, Some(handles)));
        }
        // Read again: it may have ended, and been noted, between the two looks.
        let run = Run::read(&files)?.unwrap_or(run);
        let exit = match run.exit(&files)? {
            Some(exit) => exit,
            None => self.unseen(agent, &run),
        };
        Ok(Look::Ended(run, exit))
    }

    /// The end of a run that nobody saw.
    fn unseen(&self, agent: &AgentName, run: &Run) -> ExitRecord {
        let run = run.record.run.clone();
        let mut first_seen = locked(&self.first_seen);
        let seen = first_seen
            .entry(agent.clone())
            .or_insert_with(|| (run.clone(), self.options.clock.now()));
        if seen.0 != run {
            *seen = (run.clone(), self.options.clock.now());
        }
        ExitRecord {
            run,
            at: seen.1,
            cause: ExitCause::Unseen,
        }
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    async fn observe(&self, agents: &[AgentName]) -> Result<BTreeMap<AgentName, UnitState>, HostError> {
        let agents = agents.to_vec();
        let looks = self
            .blocking("the agents' processes", move |inner| {
                let look = |agent: AgentName| inner.look(&agent).map(|look| (agent, look));
                agents.into_iter().map(look).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let mut states = BTreeMap::new();
        for (agent, look) in looks {
            let state = match look {
                Look::Absent => UnitState::Absent,
                Look::Foreign(what) => UnitState::Foreign { what },
                Look::Running(run, handles) => {
                    if let Some(handles) = handles {
                        self.inner.adopt(&agent, &run, handles)?;
                    }
                    let record = run.record;
                    UnitState::Running {
                        toplevel: record.toplevel,
                        since: record.since,
                        run: record.run,
                        resources: Resources::default(),
                    }
                }
                Look::Ended(run, exit) => UnitState::Exited {
                    toplevel: Some(run.record.toplevel),
                    at: exit.at,
                    cause: exit.cause,
                },
            };
            states.insert(agent, state);
        }
        Ok(states)
    }

    async fn can_start(&self, launch: &LaunchFile) -> Result<(), HostError> {
        self.check(launch).await
    }

    async fn start(&self, launch: &LaunchFile) -> Result<(), HostError> {
        let _turn = self.turn(&launch.launch.agent).await;
        self.start_in_turn(launch).await
    }

    async fn stop(&self, agent: &AgentName) -> Result<(), HostError> {
        let _turn = self.turn(agent).await;
        self.stop_in_turn(agent).await
    }

    async fn limit(&self, _agent: &AgentName, _limits: &LimitsSpec) -> Result<(), HostError> {
        Ok(())
    }

    async fn output(&self, agent: &AgentName, max: u64) -> Result<Output, HostError> {
        let name = agent.clone();
        self.blocking("the agent's log", move |inner| {
            output::read(&inner.files(&name), max)
        })
        .await
    }

    async fn follow(&self, agent: &AgentName, lines: u32) -> Result<Lines, HostError> {
        let log = self.inner.files(agent).log();
        // By name: the log is put aside when it has grown.
        Lines::of("tail", &["-n", &lines.to_string(), "-F", "--", log.as_str()])
    }

    async fn wipe(&self, _agent: &AgentName, _uid: AgentUid) -> Result<(), HostError> {
        // Everything belongs to the daemon's own user.
        Ok(())
    }

    fn unsandboxed(&self) -> Option<String> {
        match &self.inner.options.sandbox {
            Sandbox::Bwrap(_) => None,
            Sandbox::None { why } => Some(why.clone()),
        }
    }
}

/// Locks a mutex whose data cannot be left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
