//! Where everything lies on disk. The only place that joins these paths.
//!
//! ```text
//! <state>/hive.db, hive.lock        the ledger, and the lock of the one daemon
//! <state>/repos/<agent>.git         config repos
//! <state>/systems/<digest>          built systems
//! <state>/builds/<key>              logs of builds (nix builder)
//! <state>/agents/<agent>/launch     never seen by the agent
//! <state>/agents/<agent>/config     bound read-only as /config
//! <state>/agents/<agent>/state      bound as /state
//! <state>/archive/<agent>-<uid>     what is kept of removed agents
//! <state>/staged/<uid>              files staged for a draft
//! <state>/incoming                  bundles being received
//! <run>/admin.sock
//! <run>/egress.json, egress.sock    what agents are allowed, and where hive egress tells what it refused
//! <run>/egress/<agent>              bound as /run/hive-egress (process runtime)
//! <run>/agents/<agent>/sock         bound as /run/hive; holds hive.sock
//! ```

use camino::{Utf8Path, Utf8PathBuf};
use shared::{AgentName, AgentUid, Digest};

/// The longest path a unix socket can have on Linux, without the closing NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// The folders of one hive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    state: Utf8PathBuf,
    run: Utf8PathBuf,
}

impl Layout {
    /// A layout below these two absolute folders.
    pub fn new(state: Utf8PathBuf, run: Utf8PathBuf) -> Self {
        Self { state, run }
    }

    /// What must survive a reboot.
    pub fn state(&self) -> &Utf8Path {
        &self.state
    }

    /// What need not.
    pub fn run(&self) -> &Utf8Path {
        &self.run
    }

    /// The ledger.
    pub fn ledger(&self) -> Utf8PathBuf {
        self.state.join("hive.db")
    }

    /// The lock of the one daemon.
    pub fn lock(&self) -> Utf8PathBuf {
        self.state.join("hive.lock")
    }

    /// The admin API's socket.
    pub fn admin_socket(&self) -> Utf8PathBuf {
        self.run.join("admin.sock")
    }

    /// What agents are allowed of the outside.
    pub fn egress_policy(&self) -> Utf8PathBuf {
        self.run.join("egress.json")
    }

    /// The socket at which the egress service tells what it refused.
    pub fn egress_socket(&self) -> Utf8PathBuf {
        self.run.join("egress.sock")
    }

    /// The folder of the agents' sockets to the outside, where the daemon runs the egress service itself.
    pub fn egress(&self) -> Utf8PathBuf {
        self.run.join("egress")
    }

    /// The folder of an agent's sockets to the outside, `/run/hive-egress` inside.
    pub fn egress_of(&self, agent: &AgentName) -> Utf8PathBuf {
        self.egress().join(agent.as_str())
    }

    /// The folder of all config repos.
    pub fn repos(&self) -> Utf8PathBuf {
        self.state.join("repos")
    }

    /// An agent's config repo.
    pub fn repo(&self, agent: &AgentName) -> Utf8PathBuf {
        self.repos().join(format!("{agent}.git"))
    }

    /// The folder of built systems.
    pub fn systems(&self) -> Utf8PathBuf {
        self.state.join("systems")
    }

    /// The folder of all builds' logs, and of what they need while they run.
    pub fn builds(&self) -> Utf8PathBuf {
        self.state.join("builds")
    }

    /// The log of a build.
    pub fn build_log(&self, key: &Digest) -> Utf8PathBuf {
        self.builds().join(key.as_str()).join("log")
    }

    /// The folder of bundles being received.
    pub fn incoming(&self) -> Utf8PathBuf {
        self.state.join("incoming")
    }

    /// The folder of all staged files.
    pub fn staged(&self) -> Utf8PathBuf {
        self.state.join("staged")
    }

    /// The files staged for a draft.
    pub fn staged_by(&self, uid: AgentUid) -> Utf8PathBuf {
        self.staged().join(uid.to_string())
    }

    /// The folder of all agents' folders.
    pub fn agents(&self) -> Utf8PathBuf {
        self.state.join("agents")
    }

    /// An agent's folder.
    pub fn agent(&self, agent: &AgentName) -> Utf8PathBuf {
        self.agents().join(agent.as_str())
    }

    /// What an agent is started from, and what the runtime notes about its run. The agent never sees it.
    pub fn launch(&self, agent: &AgentName) -> Utf8PathBuf {
        self.agent(agent).join("launch")
    }

    /// The launch file.
    pub fn launch_file(&self, agent: &AgentName) -> Utf8PathBuf {
        self.launch(agent).join("launch.json")
    }

    /// The agent's config folder, `/config` inside.
    pub fn config(&self, agent: &AgentName) -> Utf8PathBuf {
        self.agent(agent).join("config")
    }

    /// The config file.
    pub fn config_file(&self, agent: &AgentName) -> Utf8PathBuf {
        self.config(agent).join("agent.json")
    }

    /// The agent's own folder, `/state` inside.
    pub fn agent_state(&self, agent: &AgentName) -> Utf8PathBuf {
        self.agent(agent).join("state")
    }

    /// The folder of the agent's socket, `/run/hive` inside.
    pub fn sock(&self, agent: &AgentName) -> Utf8PathBuf {
        self.run.join("agents").join(agent.as_str()).join("sock")
    }

    /// The agent API's socket.
    pub fn agent_socket(&self, agent: &AgentName) -> Utf8PathBuf {
        self.sock(agent).join("hive.sock")
    }

    /// The folder of all that is kept of removed agents.
    pub fn archives(&self) -> Utf8PathBuf {
        self.state.join("archive")
    }

    /// Where an archive lies while it is being deleted.
    pub fn doomed(&self, agent: &AgentName, uid: AgentUid) -> Utf8PathBuf {
        self.archives().join(format!(".purge-{agent}-{uid}"))
    }

    /// What is kept of a removed agent.
    pub fn archive(&self, agent: &AgentName, uid: AgentUid) -> Utf8PathBuf {
        self.archives().join(format!("{agent}-{uid}"))
    }
}
