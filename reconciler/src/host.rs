//! The only door to the outside: runtimes, builders, git, folders, harness reports, clock, ids.
//!
//! Every trait here is narrow, and each has a real implementation and a deterministic fake ([`fake`]), so that the
//! loop under test is the binary's own. Observing never changes anything. Every effect is idempotent: carried out
//! twice, it leaves what it leaves when carried out once.

mod blocking;
mod builder;
pub mod checkup;
pub mod clock;
pub mod egress_service;
pub mod error;
pub mod fake;
pub mod folders;
pub mod follow;
pub mod git;
pub mod harness_link;
pub mod layout;
pub mod nix;
pub mod nspawn;
pub mod open_files;
pub mod own_process;
pub mod plain;
pub mod process;
mod process_group;
mod readable;
pub mod remains;
pub mod spec_file;
pub mod staging;
pub mod turn_events;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::agent_api::Report;
use shared::config::ConfigFile;
use shared::draft::{StagedFile, StatePath};
use shared::spec::{BindSpec, DriverKind, LimitsSpec, Network, RuntimeKind, SecretSpec};
use shared::{AgentName, AgentUid, CommitOid, Digest, HiveId, LoginId};

pub use builder::Builder;
pub use error::HostError;
pub use follow::Lines;
pub use nspawn::Limits;
pub use unit::{ExitCause, Resources, UnitState};

use crate::model::user_range::UserRange;

/// All doors, real or fake.
#[derive(Clone)]
pub struct Host {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and jitter.
    pub ids: Arc<dyn Ids>,
    /// Containers or process trees.
    pub runtime: Arc<dyn Runtime>,
    /// Config repos.
    pub repos: Arc<dyn Repos>,
    /// Systems.
    pub builder: Arc<dyn Builder>,
    /// The agents' folders.
    pub folders: Arc<dyn Folders>,
    /// Files staged for drafts.
    pub staging: Arc<dyn Staging>,
    /// What harnesses report.
    pub harness: Arc<dyn HarnessLink>,
    /// What the operator declared.
    pub spec: Arc<dyn SpecFile>,
    /// The daemon's own process.
    pub own_process: Arc<dyn OwnProcess>,
}

/// The file that holds the spec.
#[async_trait]
pub trait SpecFile: Send + Sync {
    /// Where it is, for people.
    fn path(&self) -> String;

    /// Reads it whole.
    async fn read(&self) -> Result<Vec<u8>, HostError>;
}

/// What the daemon's process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Memory that is really there, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// How many it may open; `None`: as many as it likes.
    pub max_files: Option<u64>,
}

/// The daemon's own process.
#[async_trait]
pub trait OwnProcess: Send + Sync {
    /// What it uses now.
    async fn usage(&self) -> Result<Usage, HostError>;
}

/// The only source of time.
pub trait Clock: Send + Sync {
    /// Wall-clock time now. It may jump, forwards and backwards.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment. It never jumps, and stands still while the machine sleeps.
    fn steady(&self) -> Duration;
}

/// The only source of identifiers and of randomness.
pub trait Ids: Send + Sync {
    /// A new agent uid.
    fn agent_uid(&self) -> AgentUid;
    /// A new hive id.
    fn hive_id(&self) -> HiveId;
    /// A new id of a login.
    fn login_id(&self) -> LoginId;
    /// A number in `0.0..1.0` that spreads retries.
    fn jitter(&self) -> f64;
}

/// What an agent is started from. Its digest (the *toplevel*) is the identity that a restart changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launch {
    /// The agent.
    pub agent: AgentName,
    /// Its uid.
    pub uid: AgentUid,
    /// The harness program on the host.
    pub harness: Utf8PathBuf,
    /// Claude Code's program on the host; without, the driver looks for it inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude: Option<Utf8PathBuf>,
    /// What runs its turns; decides whether a sandbox is required.
    pub driver: DriverKind,
    /// What reaches it over the network.
    pub network: Network,
    /// Host folders in the container.
    pub binds: Vec<BindSpec>,
    /// Limits on resources.
    pub limits: LimitsSpec,
    /// The files of its secrets, by the secrets' names; a change of file or version restarts it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretSpec>,
    /// The user ids of its container, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_range: Option<UserRange>,
    /// The operating system in its container: a folder with an `init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Utf8PathBuf>,
}

impl Launch {
    /// Whether it gets out through the sockets of the egress service.
    pub fn goes_out_by_sockets(&self) -> bool {
        goes_out_by_sockets(self.network, self.driver)
    }
}

/// Whether an agent of this network and driver has loopback alone, and gets out through the sockets of the egress service.
/// The scripted driver calls no model.
pub(crate) fn goes_out_by_sockets(network: Network, driver: DriverKind) -> bool {
    match network {
        Network::Model => driver != DriverKind::Scripted,
        Network::Hosts => true,
        Network::None | Network::Host => false,
    }
}

/// The file `launch/launch.json` as written: the launch and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchFile {
    /// The digest of `launch`.
    pub digest: Digest,
    /// The launch.
    pub launch: Launch,
}

/// The end of what was printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The bytes.
    pub end: Vec<u8>,
    /// Whether there is more before them.
    pub cut: bool,
}

/// Containers or process trees, one per agent.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> RuntimeKind;

    /// Observes these agents in one go. An error means that nothing is known, never that nothing runs.
    async fn observe(&self, agents: &[AgentName]) -> Result<BTreeMap<AgentName, UnitState>, HostError>;

    /// Whether an agent could be started from this launch file as far as that can be told without doing it: an error says
    /// why not. An agent that runs is not stopped for one that could not be started.
    async fn can_start(&self, launch: &LaunchFile) -> Result<(), HostError>;

    /// Starts an agent from its launch file. Succeeds when one runs already from the same toplevel.
    async fn start(&self, launch: &LaunchFile) -> Result<(), HostError>;

    /// Stops an agent and returns when it is gone. Succeeds when it does not run.
    async fn stop(&self, agent: &AgentName) -> Result<(), HostError>;

    /// Holds a running agent to these limits again. Succeeds when it is, and where agents are held to none.
    async fn limit(&self, agent: &AgentName, limits: &LimitsSpec) -> Result<(), HostError>;

    /// At most the last `max` bytes of what the agent's harness and all it started printed, in this run and earlier
    /// ones. Untrusted.
    async fn output(&self, agent: &AgentName, max: u64) -> Result<Output, HostError>;

    /// Deletes what of an agent belongs to the user ids of its container, and what its containers left behind. Only for an
    /// archive that [`Folders::doom`] put aside. Succeeds when nothing is there.
    async fn wipe(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError>;

    /// The last `lines` lines of what the agent printed, and then each new one.
    async fn follow(&self, agent: &AgentName, lines: u32) -> Result<Lines, HostError>;

    /// Why agents run without a sandbox; `None` when they have one.
    fn unsandboxed(&self) -> Option<String>;
}

/// A tag of a config repo as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagState {
    /// The object the ref names (the tag object of an annotated tag); what compare-and-swap compares.
    pub object: CommitOid,
    /// The commit it leads to.
    pub commit: CommitOid,
    /// The annotation; empty for a lightweight tag.
    pub message: String,
}

/// The refs of a config repo as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepoState {
    /// Where `refs/heads/main` points.
    pub main: Option<CommitOid>,
    /// The tags by name without `refs/tags/`, as in `proposal/1`.
    pub tags: BTreeMap<String, TagState>,
}

/// A compare-and-swap of one ref.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RefUpdate {
    /// Moves `main`.
    Main {
        /// Where it must be; `None`: it must not exist.
        from: Option<CommitOid>,
        /// Where it goes.
        to: CommitOid,
    },
    /// Writes an annotated tag.
    Tag {
        /// Its name without `refs/tags/`.
        name: String,
        /// The object its ref must name; `None`: it must not exist.
        from: Option<CommitOid>,
        /// The commit it leads to.
        commit: CommitOid,
        /// The annotation.
        message: String,
        /// The time written into the tag object, so that the same tag is the same object.
        at: Timestamp,
    },
    /// Deletes a tag.
    DeleteTag {
        /// Its name without `refs/tags/`.
        name: String,
        /// The object its ref must name.
        from: CommitOid,
    },
}

/// A commit taken in from an agent. Its texts are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The commit.
    pub commit: CommitOid,
    /// The first line of its message, control characters replaced, at most 200 characters.
    pub title: String,
    /// The rest of its message, likewise, at most 8 KiB.
    pub reason: String,
}

/// Config repos: one bare repository per agent, owned by the daemon, never a work tree.
#[async_trait]
pub trait Repos: Send + Sync {
    /// Makes the repo with a seed commit on `main`, unless it is there. The same files give the same commit.
    async fn ensure(
        &self,
        agent: &AgentName,
        seed: &BTreeMap<String, String>,
    ) -> Result<CommitOid, HostError>;

    /// Reads the refs; `None` when there is no repo. In process: starts no program.
    async fn observe(&self, agent: &AgentName) -> Result<Option<RepoState>, HostError>;

    /// Carries out one compare-and-swap. Succeeds when the ref is already as wanted.
    async fn update_ref(&self, agent: &AgentName, update: &RefUpdate) -> Result<(), HostError>;

    /// Whether `ancestor` is `descendant` or one of its ancestors.
    async fn is_ancestor(
        &self,
        agent: &AgentName,
        ancestor: &CommitOid,
        descendant: &CommitOid,
    ) -> Result<bool, HostError>;

    /// The commit that a bundle says it offers: an agent's claim, of which nothing is checked.
    async fn offered(&self, agent: &AgentName, bundle: &Utf8Path) -> Result<CommitOid, HostError>;

    /// Takes in a bundle that an agent sent: verified, checked, fetched into quarantine. Exactly one commit is
    /// accepted: the bundle's only ref. It must descend from `main` and differ from it. It is kept from
    /// garbage collection, but no branch or tag moves.
    async fn import(
        &self,
        agent: &AgentName,
        bundle: &Utf8Path,
        main: &CommitOid,
    ) -> Result<Imported, HostError>;

    /// Writes a bundle of `main` and all tags to `target`.
    async fn export(&self, agent: &AgentName, target: &Utf8Path) -> Result<(), HostError>;

    /// Makes a commit on top of `parent` that holds what `content` holds. The same arguments give the same commit. No
    /// branch or tag moves.
    async fn repeat(
        &self,
        agent: &AgentName,
        parent: &CommitOid,
        content: &CommitOid,
        message: &str,
        at: Timestamp,
    ) -> Result<CommitOid, HostError>;

    /// Makes a commit on top of `parent` that holds these files and nothing else. The same arguments give the same
    /// commit. No branch or tag moves.
    async fn commit(
        &self,
        agent: &AgentName,
        parent: &CommitOid,
        files: &BTreeMap<String, String>,
        message: &str,
        at: Timestamp,
    ) -> Result<CommitOid, HostError>;

    /// Deletes the repo. Only for a draft: nothing of it was ever deployed. Succeeds when there is none.
    async fn delete(&self, agent: &AgentName) -> Result<(), HostError>;

    /// Reads one file of a commit, at most `max` bytes; `None` when it is not there.
    async fn read_file(
        &self,
        agent: &AgentName,
        commit: &CommitOid,
        path: &str,
        max: u64,
    ) -> Result<Option<Vec<u8>>, HostError>;

    /// Writes the commit's raw blobs below `target`, which must not exist yet. No filters, no substitution;
    /// symbolic links, submodules and hostile names are refused.
    async fn write_tree(
        &self,
        agent: &AgentName,
        commit: &CommitOid,
        target: &Utf8Path,
    ) -> Result<(), HostError>;

    /// A unified diff for people, at most `max` bytes, control characters replaced.
    async fn diff(
        &self,
        agent: &AgentName,
        from: &CommitOid,
        to: &CommitOid,
        max: usize,
    ) -> Result<String, HostError>;
}

/// An agent's folders as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FolderState {
    /// Whether the agent's folders exist.
    pub prepared: bool,
    /// The digest in `launch/launch.json`.
    pub toplevel: Option<Digest>,
    /// The digest in `config/agent.json`.
    pub config: Option<Digest>,
}

/// What the archive keeps of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ArchiveState {
    /// Nothing.
    Absent,
    /// What this daemon moved there.
    Ours,
    /// A folder of that name without our mark.
    Foreign,
}

/// The file system below the state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The folder, for people.
    pub folder: String,
    /// What is left for this process, in bytes.
    pub free: u64,
    /// What there is, in bytes.
    pub total: u64,
}

/// The agents' folders: `launch/`, `config/`, `state/`, `sock/`.
#[async_trait]
pub trait Folders: Send + Sync {
    /// Reads what is there.
    async fn observe(&self, agent: &AgentName) -> Result<FolderState, HostError>;

    /// Makes the folders.
    async fn prepare(&self, agent: &AgentName) -> Result<(), HostError>;

    /// Writes launch file, config file and the commit's tree, each atomically, the config file last.
    async fn activate(
        &self,
        agent: &AgentName,
        system: &str,
        launch: &LaunchFile,
        config: &ConfigFile,
    ) -> Result<(), HostError>;

    /// How much room is left where all of this lies.
    async fn space(&self) -> Result<Space, HostError>;

    /// Moves the agent's state and repo to the archive and marks them as ours. Succeeds when they are there already.
    async fn archive(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError>;

    /// Whether the archive keeps something of this agent, and whether it bears the mark of [`Self::archive`].
    async fn archived(&self, agent: &AgentName, uid: AgentUid) -> Result<ArchiveState, HostError>;

    /// Moves state and repo back from the archive. Succeeds when they are back already.
    async fn restore(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError>;

    /// Puts what the archive keeps of this agent aside, to be deleted: from then on it cannot be restored. Refuses what does
    /// not bear our mark; succeeds when nothing is there.
    async fn doom(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError>;

    /// Deletes what the archive keeps of this agent. Refuses what does not bear our mark; succeeds when nothing is there.
    async fn purge(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError>;
}

/// Files staged for drafts: bytes that no agent sees until the operator agrees.
#[async_trait]
pub trait Staging: Send + Sync {
    /// Keeps the bytes of one file for a draft, by their digest.
    async fn stage(&self, uid: AgentUid, bytes: Vec<u8>) -> Result<Digest, HostError>;

    /// The bytes of a staged file; `None` when they are not there or not what they should be.
    async fn read(&self, uid: AgentUid, digest: &Digest) -> Result<Option<Vec<u8>>, HostError>;

    /// Deletes what is staged for a draft, but for these files.
    async fn keep(&self, uid: AgentUid, keep: BTreeSet<Digest>) -> Result<(), HostError>;

    /// Deletes what is staged for anybody but these drafts.
    async fn keep_drafts(&self, drafts: BTreeSet<AgentUid>) -> Result<(), HostError>;

    /// Puts staged files into the agent's `/state`, which must be there. A file that is there already stays as it is;
    /// when it is another one, or something else is in the way, this is a [`HostError::Refused`]. Succeeds when all
    /// are there already.
    async fn lay_down(
        &self,
        agent: &AgentName,
        uid: AgentUid,
        files: &BTreeMap<StatePath, StagedFile>,
    ) -> Result<(), HostError>;

    /// Deletes the folders and the staged files of a draft that was given up. Refuses when an agent was ever started
    /// from these folders.
    async fn discard(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError>;
}

/// What a harness last said, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HarnessState {
    /// The report.
    pub report: Report,
    /// When it came; while the agent stays busy, when it was first said to be.
    pub at: Timestamp,
}

impl HarnessState {
    /// Whether an interruption now would cut a turn short.
    pub fn is_busy(&self) -> bool {
        self.report.turn.is_busy() || self.report.lease.is_some()
    }
}

/// What a harness is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The config that is written.
    pub config: Option<Digest>,
    /// Take no turns.
    pub paused: bool,
    /// The operator's model, in place of the config's.
    pub model: Option<String>,
}

/// What harnesses report over their sockets. Memory only: after a restart of the daemon it is unknown until they call.
pub trait HarnessLink: Send + Sync {
    /// The last report of this agent's current run; `None`: unknown.
    fn state(&self, agent: &AgentName) -> Option<HarnessState>;

    /// Forgets the report, because the run it came from is being ended.
    fn forget(&self, agent: &AgentName);

    /// Tells the harness something. It answers with a new report when that changes anything it reports.
    fn announce(&self, agent: &AgentName, what: Announcement);
}
