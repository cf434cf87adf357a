//! The sockets: one for the operator, one for each agent.

use std::collections::BTreeMap;
use std::io;

use axum::Router;
use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::spec::RuntimeKind;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::agent::{self, AgentContext};
use super::connections::Limits;
use super::{Context, admin, connections, egress};
use crate::host::layout::MAX_SOCKET_PATH;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Unix sockets have short paths.
    #[error("the socket path {path} has {} bytes, at most {MAX_SOCKET_PATH} are possible: choose a shorter --run folder", path.as_str().len())]
    TooLong {
        /// The path.
        path: Utf8PathBuf,
    },
    /// The operating system refused.
    #[error("cannot listen on {path}")]
    Io {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Checks that a socket can have this path.
///
/// # Errors
/// When it is too long.
pub fn check_path(path: &Utf8Path) -> Result<(), DoorError> {
    if path.as_str().len() > MAX_SOCKET_PATH {
        return Err(DoorError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Binds a socket with this mode. A socket file left behind by a daemon that died is replaced: the caller holds the
/// lock of the one daemon, or of the one egress service.
pub(crate) fn bind(path: &Utf8Path, mode: u32) -> Result<UnixListener, DoorError> {
    use std::os::unix::fs::PermissionsExt as _;
    check_path(path)?;
    let io = |source| DoorError::Io {
        path: path.to_owned(),
        source,
    };
    // Bound under a name nobody connects to, given its mode, then moved into place: at no time can others connect.
    // That name is no longer than any socket's.
    let draft = path.with_file_name("new");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&draft).map_err(io)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode)).map_err(io)?;
    std::fs::rename(&draft, path).map_err(io)?;
    Ok(listener)
}

/// Opens the admin door: for the daemon's user and group.
///
/// # Errors
/// When the socket cannot be bound.
pub fn open_admin(context: Context, path: &Utf8Path) -> Result<JoinHandle<()>, DoorError> {
    let listener = bind(path, 0o660)?;
    Ok(tokio::spawn(connections::serve(
        listener,
        admin::router(context),
        (),
        Limits::ADMIN,
    )))
}

/// The group of the egress service, where it has a user of its own.
const EGRESS_GROUP: &str = "hive-egress";

/// Opens the door of the egress service: for the daemon's own user, and for that of the service.
///
/// # Errors
/// When the socket cannot be bound.
pub fn open_egress(context: Context, path: &Utf8Path) -> Result<JoinHandle<()>, DoorError> {
    let listener = bind(path, 0o660)?;
    if let Some(group) = group(EGRESS_GROUP) {
        // Only possible where the daemon is in that group; where it is not, the log says so.
        let given = rustix::fs::chown(path.as_std_path(), None, Some(rustix::fs::Gid::from_raw(group)));
        if let Err(error) = given {
            tracing::warn!(%error, %path, "not given to the group {EGRESS_GROUP}: its hive egress cannot tell what it refuses");
        }
    }
    Ok(tokio::spawn(connections::serve(
        listener,
        egress::router(context),
        (),
        Limits::AGENT,
    )))
}

/// The number of a group of this machine. Blocks shortly.
fn group(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let mut entries = groups.lines().map(|line| line.split(':'));
    entries.find_map(|mut entry| {
        let named = entry.next() == Some(name);
        entry.nth(1).filter(|_| named)?.parse().ok()
    })
}

/// The agents' doors.
pub struct AgentDoors {
    context: Context,
    runtime: RuntimeKind,
    /// One for all: a thousand of them would be most of what a large hive needs.
    router: Router,
    open: BTreeMap<AgentName, JoinHandle<()>>,
}

impl AgentDoors {
    /// No door is open yet.
    pub fn new(context: Context, runtime: RuntimeKind) -> Self {
        Self {
            context,
            runtime,
            router: agent::router(),
            open: BTreeMap::new(),
        }
    }

    /// Opens an agent's door unless it is open. Its folder must be there.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn open(&mut self, agent: &AgentName) -> Result<(), DoorError> {
        if self.is_open(agent) {
            return Ok(());
        }
        let mode = match self.runtime {
            // In its folder the socket is the agent's alone; the mode lets any user of the sandbox connect.
            RuntimeKind::Process => 0o666,
            // The launcher gave the folder a group, which the socket gets too: the one that the harness runs under.
            RuntimeKind::Nspawn => 0o660,
        };
        let listener = bind(&self.context.layout.agent_socket(agent), mode)?;
        let context = AgentContext::new(self.context.clone(), agent.clone());
        let door = connections::serve(listener, self.router.clone(), context, Limits::AGENT);
        self.open.insert(agent.clone(), tokio::spawn(door));
        Ok(())
    }

    /// Closes the door of an agent that is gone, with all connections that are open there.
    pub fn close(&mut self, agent: &AgentName) {
        let Some(task) = self.open.remove(agent) else {
            return;
        };
        task.abort();
        self.context.link.events().forget(agent);
        let socket = self.context.layout.agent_socket(agent);
        if let Err(error) = std::fs::remove_file(&socket) {
            tracing::debug!(agent = %agent, error = error.to_string(), "the socket was not removed");
        }
    }

    /// Whether an agent's door is open.
    pub fn is_open(&self, agent: &AgentName) -> bool {
        self.open.get(agent).is_some_and(|task| !task.is_finished())
    }
}

impl Drop for AgentDoors {
    fn drop(&mut self) {
        for task in self.open.values() {
            task.abort();
        }
    }
}
