//! `hive egress`: sockets for each agent that the policy names, for as long as it names them.
//!
//! All that it knows stands in the policy's file, and its sockets are replaced at each start: it may be killed at any
//! time. Who is connected then has to connect anew.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, Mode, OFlags};
use shared::AgentName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::door::{self, Caller, MAX_REQUESTS, MAX_TUNNELS};
use super::gateway::{self, Upstream};
use super::key::KeySource;
use super::policy::{AgentPolicy, DEFAULT_PROVIDER, Policy};
use super::provider::Provider;
use super::proxy;
use super::report::Daemon;
use super::resolve::Resolver;
use super::tally::Outside;
use super::{MODEL_SOCKET, PROXY_SOCKET};
use crate::api::doors::{DoorError, bind};
use crate::host::Clock;
use crate::spec::{self, WatchError};

/// How long one that ends may take to let go of the folder.
const LOCK_TIME: Duration = Duration::from_secs(20);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// The policy is read this often whether anything was heard of it or not: not every file system tells.
const REREAD: Duration = Duration::from_secs(60);
/// The mode of an agent's folder where nobody else made it. The launcher of containers gives it the agent's group.
const FOLDER_MODE: u32 = 0o750;
/// Behind its folder a socket is the agent's alone.
const SOCKET_MODE: u32 = 0o666;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file of what is allowed.
    pub policy: Utf8PathBuf,
    /// The folder of the agents' folders.
    pub folder: Utf8PathBuf,
    /// The daemon's door.
    pub daemon: Utf8PathBuf,
    /// Where systemd hands over the key.
    pub credentials: Option<Utf8PathBuf>,
    /// The identity of this process.
    pub run: String,
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another has the folder.
    #[error("{folder} is in use by another hive egress")]
    Taken {
        /// The folder.
        folder: Utf8PathBuf,
    },
    /// The folder cannot be used.
    #[error("cannot {op} {path}")]
    Io {
        /// The operation.
        op: &'static str,
        /// On what.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The policy cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The library that tells the daemon cannot be set up.
    #[error("the daemon cannot be spoken to")]
    Client(#[source] reqwest::Error),
}

/// Runs until `ended`; `ready` is called when the policy is in force for the first time.
///
/// # Errors
/// When it cannot even begin.
pub async fn run(
    settings: Settings,
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    ready: impl FnOnce(),
    ended: impl Future<Output = ()>,
) -> Result<(), ServiceError> {
    let folder = settings.folder.clone();
    let _lock = tokio::task::spawn_blocking(move || lock(&folder))
        .await
        .map_err(|error| ServiceError::Io {
            op: "lock",
            path: settings.folder.clone(),
            source: io::Error::other(error),
        })??;
    let (nudge, mut nudged) = mpsc::unbounded_channel();
    let _watcher = spec::watch(settings.policy.clone(), move || {
        // The receiver only goes away when the service ends.
        let _ended = nudge.send(());
    })?;
    let outside = Arc::new(Outside::new(resolver, clock));
    let daemon = Daemon::new(&settings.daemon, settings.run.clone()).map_err(ServiceError::Client)?;
    let teller = tokio::spawn(daemon.tell(Arc::clone(&outside)));
    let mut doors = Doors::new(settings, outside);
    doors.sweep();
    doors.reread().await;
    ready();
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            Some(()) = nudged.recv() => {
                while nudged.try_recv().is_ok() {}
                doors.reread().await;
            }
            () = tokio::time::sleep(REREAD) => doors.reread().await,
            () = &mut ended => break,
        }
    }
    teller.abort();
    Ok(())
}

/// Makes sure that this is the only one, for as long as what is returned lives. Blocks.
fn lock(folder: &Utf8Path) -> Result<std::os::fd::OwnedFd, ServiceError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |op, path: &Utf8Path| {
        let path = path.to_owned();
        move |source: io::Error| ServiceError::Io { op, path, source }
    };
    // The sockets in it are for agents alone, which see them through mounts: nobody else is to reach them by their path.
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(failed("make the folder", folder))?;
    let path = folder.join(".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path.as_std_path(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| failed("open", &path)(errno.into()))?;
    let until = Instant::now() + LOCK_TIME;
    while let Err(errno) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if errno != rustix::io::Errno::WOULDBLOCK {
            return Err(failed("lock", &path)(errno.into()));
        }
        if Instant::now() >= until {
            return Err(ServiceError::Taken {
                folder: folder.to_owned(),
            });
        }
        pause();
    }
    Ok(file)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a lock of a file cannot be waited for with a deadline"
)]
fn pause() {
    std::thread::sleep(LOCK_PAUSE);
}

/// The sockets of one agent.
struct Open {
    policy: watch::Sender<AgentPolicy>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Doors {
    settings: Settings,
    outside: Arc<Outside>,
    upstream: watch::Sender<Upstream>,
    open: BTreeMap<AgentName, Open>,
}

impl Doors {
    fn new(settings: Settings, outside: Arc<Outside>) -> Self {
        let upstream = watch::Sender::new(upstream(&Policy::default(), &settings));
        Self {
            settings,
            outside,
            upstream,
            open: BTreeMap::new(),
        }
    }

    /// Removes sockets that another process left. Nobody listens behind them.
    fn sweep(&self) {
        let entries = self.settings.folder.read_dir_utf8();
        for entry in entries.into_iter().flatten().flatten() {
            if entry.file_name().parse::<AgentName>().is_ok() {
                remove_sockets(entry.path());
            }
        }
    }

    /// Puts in force what the file says. While it cannot be read, what was in force stays.
    async fn reread(&mut self) {
        let path = self.settings.policy.clone();
        let read = tokio::task::spawn_blocking(move || Policy::read(&path)).await;
        match read {
            Ok(Ok(policy)) => self.put_in_force(&policy),
            Ok(Err(error)) => {
                let error = crate::error_chain(&error);
                tracing::error!(error, "the policy is left as it was");
            }
            Err(error) => tracing::error!(%error, "the policy was not read"),
        }
    }

    fn put_in_force(&mut self, policy: &Policy) {
        let new = upstream(policy, &self.settings);
        self.upstream.send_if_modified(|upstream| {
            let modified = *upstream != new;
            if modified {
                if let Err(error) = &new.provider {
                    tracing::error!(%error, "no model can be reached");
                }
                *upstream = new;
            }
            modified
        });
        let wanted = |agent: &AgentName| policy.agents.get(agent).is_some_and(AgentPolicy::has_sockets);
        let gone: Vec<AgentName> = self.open.keys().filter(|agent| !wanted(agent)).cloned().collect();
        for agent in gone {
            self.open.remove(&agent);
            remove_sockets(&self.settings.folder.join(agent.as_str()));
            tracing::info!(%agent, "has no way out any more");
        }
        for (agent, allowed) in policy.agents.iter().filter(|(_, allowed)| allowed.has_sockets()) {
            let kept = self.open.get(agent).filter(|open| self.is_there(agent, open));
            if let Some(open) = kept {
                open.policy.send_if_modified(|policy| {
                    let modified = policy != allowed;
                    if modified {
                        policy.clone_from(allowed);
                    }
                    modified
                });
                continue;
            }
            match self.open(agent, allowed) {
                Ok(open) => {
                    tracing::info!(%agent, "has a way out");
                    self.open.insert(agent.clone(), open);
                }
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::error!(%agent, error, "has no way out");
                }
            }
        }
    }

    /// Whether the sockets are still behind their names: somebody may have made the folder anew.
    fn is_there(&self, agent: &AgentName, open: &Open) -> bool {
        let folder = self.settings.folder.join(agent.as_str());
        let exist = [MODEL_SOCKET, PROXY_SOCKET].map(|name| folder.join(name).exists());
        exist == [true, true] && open.tasks.iter().all(|task| !task.is_finished())
    }

    fn open(&self, agent: &AgentName, allowed: &AgentPolicy) -> Result<Open, DoorError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let folder = self.settings.folder.join(agent.as_str());
        match std::fs::DirBuilder::new().mode(FOLDER_MODE).create(&folder) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(DoorError::Io { path: folder, source });
            }
            _ => {}
        }
        let model = bind(&folder.join(MODEL_SOCKET), SOCKET_MODE)?;
        let outer = bind(&folder.join(PROXY_SOCKET), SOCKET_MODE)?;
        let (policy, told) = watch::channel(allowed.clone());
        let caller = Caller::new(agent.clone(), told, Arc::clone(&self.outside));
        let (of_proxy, upstream) = (caller.clone(), self.upstream.subscribe());
        let tasks = [
            tokio::spawn(async move {
                let serve = |stream| gateway::connection(stream, caller.clone(), upstream.clone());
                door::serve(model, MAX_REQUESTS, serve).await;
            }),
            tokio::spawn(async move {
                door::serve(outer, MAX_TUNNELS, |stream| {
                    proxy::connection(stream, of_proxy.clone())
                })
                .await;
            }),
        ];
        Ok(Open { policy, tasks })
    }
}

fn upstream(policy: &Policy, settings: &Settings) -> Upstream {
    Upstream {
        provider: Provider::parse(policy.provider.as_deref().unwrap_or(DEFAULT_PROVIDER)),
        key: KeySource {
            credentials: settings.credentials.clone(),
            file: policy.api_key_file.clone(),
        },
    }
}

fn remove_sockets(folder: &Utf8Path) {
    for name in [MODEL_SOCKET, PROXY_SOCKET] {
        if let Err(error) = std::fs::remove_file(folder.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%folder, %error, "a socket was not removed");
        }
    }
}

#[cfg(test)]
mod tests;
