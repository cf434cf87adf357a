//! What containers need of a host: units, systemd, polkit, users, user ids, limits of the kernel.

mod machine;
mod units;

use std::collections::BTreeSet;

use camino::Utf8PathBuf;
use shared::AgentName;

use super::judgement::Judgement;
use super::{Facts, Folder};
use crate::model::inventory::Known;

/// What is looked at where agents run in containers.
#[derive(Debug, Clone)]
pub struct Containers {
    /// How many agents the spec declares.
    pub agents: usize,
    /// The controllers that limits in the spec count on, each with an agent that has such a limit.
    pub limited: Vec<(&'static str, AgentName)>,
    /// What `hive units` renders, held against what is there.
    pub installed: Known<Installed>,
    /// systemd, as it answers on the bus.
    pub systemd: Known<Systemd>,
    /// The machines that machined knows.
    pub machines: Known<Vec<Machine>>,
    /// polkit: whether it lets the daemon start an agent's unit; `None`: it answers, and could not be asked that.
    pub polkit: Known<Option<bool>>,
    /// Users and groups.
    pub accounts: Known<Accounts>,
    /// Who can write the spec.
    pub spec_file: Known<Guarded>,
    /// User and group ids that somebody has.
    pub taken: Known<Vec<Taken>>,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Known<u64>,
    /// Control groups.
    pub cgroups: Known<Cgroups>,
    /// The folder of the containers' trees.
    pub roots: Known<Folder>,
}

/// Unit files, polkit rule and list of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The files.
    pub files: Vec<InstalledFile>,
    /// The command that installs them anew, for the same paths.
    pub command: String,
    /// Where the units' state, run folder or spec is not the one that is looked at: as flags.
    pub elsewhere: Vec<String>,
    /// The program `hive` that they start.
    pub hive: Utf8PathBuf,
    /// This program.
    pub own: Utf8PathBuf,
    /// Programs that they start and that are not there.
    pub missing: Vec<Utf8PathBuf>,
}

/// One of these files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFile {
    /// Where it is, or where it belongs.
    pub path: Utf8PathBuf,
    /// Whether there is no other way to what it says, as there is to users.
    pub needed: bool,
    /// How it is.
    pub state: Known<FileState>,
}

/// How an installed file compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// As this program renders it.
    Same,
    /// It is not there.
    Missing,
    /// This is the first line that is another.
    Differs(String),
}

/// What systemd says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Systemd {
    /// Its version, in its own words.
    pub version: String,
    /// An agent's unit, as it would be made from the template.
    pub agent: Unit,
    /// The daemon's unit.
    pub daemon: Unit,
    /// The unit of the egress service.
    pub egress: Unit,
    /// Units of ours whose files changed since they were read.
    pub stale: Vec<String>,
}

/// A unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `LoadState`.
    pub load: String,
    /// Why it was not loaded; empty: it was.
    pub error: String,
    /// `ActiveState`.
    pub active: String,
    /// `UnitFileState`.
    pub enabled: String,
    /// Files of others that change it.
    pub drop_ins: Vec<String>,
}

/// A machine of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// The id on the host of its root, when it is known; 0: it has no ids of its own.
    pub shift: Option<u32>,
}

/// Users and groups of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// The id of the daemon's user.
    pub daemon: Option<u32>,
    /// The id of the egress service's user.
    pub egress: Option<u32>,
    /// Groups that the units name and that are not there.
    pub missing_groups: Vec<&'static str>,
}

/// A file, and the folders that decide what is called so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// The real file.
    pub file: Place,
    /// Its folder, and that of a link to it.
    pub folders: Vec<Place>,
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub path: Utf8PathBuf,
    /// The user it belongs to.
    pub owner: u32,
    /// Its permissions: the mode without the kind of file.
    pub mode: u32,
}

/// Ids that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Who.
    pub whose: String,
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// Control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// 1 or 2.
    pub version: u8,
    /// The controllers that are there.
    pub controllers: BTreeSet<String>,
}

/// A check: what it is called, and how it judges.
pub(super) type Check = (&'static str, fn(&Containers, &Facts) -> Judgement);

/// All checks, in the order in which they are shown.
pub(super) const CHECKS: [Check; 12] = [
    ("unit files", units::unit_files),
    ("unit programs", units::unit_programs),
    ("systemd", units::systemd),
    ("loaded units", units::loaded_units),
    ("start of the host", units::start_of_the_host),
    ("users", machine::users),
    ("polkit", machine::polkit),
    ("spec file", machine::spec_file),
    ("user ids", machine::user_ids),
    ("inotify instances", machine::inotify_instances),
    ("control groups", machine::control_groups),
    ("containers", machine::running),
];
