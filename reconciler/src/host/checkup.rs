//! Gathers the facts that [`crate::doctor`] judges. Changes nothing, and works with the daemon up, down, or half broken.

mod bus;
mod containers;
mod egress;
mod nix;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rustix::fs::StatVfsMountFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::PidfdFlags;
use shared::AgentName;
use shared::spec::{RuntimeKind, Spec};

use super::git::GitRepos;
use super::layout::Layout;
use super::nix::find;
use super::process::{self, Sandbox};
use super::remains::{self, entries};
use crate::doctor::{Entries, Facts, Folder, LedgerFacts};
use crate::ledger::{self, Condition};
use crate::model::inventory::Known;
use crate::untrusted::line;

/// How long a program may take to say its version.
const VERSION_TIME: Duration = Duration::from_secs(10);
/// The part of a mode that is no kind of file.
const PERMISSIONS: u32 = 0o7777;
/// How long all repos together are checked.
const REPOS_TIME: Duration = Duration::from_secs(120);

/// What to look at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The folders.
    pub layout: Layout,
    /// The spec.
    pub spec: Utf8PathBuf,
    /// The harness program.
    pub harness: Known<Utf8PathBuf>,
    /// The process that has the state folder's lock.
    pub holder: Known<Option<String>>,
    /// Now.
    pub now: Timestamp,
}

/// Gathers everything but what the daemon says.
pub async fn gather(subject: Subject, search_path: &OsStr) -> Facts {
    let layout = subject.layout.clone();
    let programs = Programs {
        here: search_path,
        daemons: subject
            .holder
            .as_ref()
            .ok()
            .and_then(|pid| path_of(pid.as_deref()?)),
    };
    let git = programs.find("git");
    let found = {
        let layout = layout.clone();
        blocking(move || (entries_of(&layout), ledger_of(&layout))).await
    };
    let (entries, ledger) = match found {
        Ok((entries, ledger)) => (entries, ledger),
        Err(why) => (Err(why.clone()), Err(why)),
    };
    let state = folder(layout.state());
    let user = rustix::process::geteuid().as_raw();
    let repos = match (&git, &entries) {
        // As root it would act on what another user wrote into a repo's settings.
        _ if user == 0
            && state
                .as_ref()
                .is_ok_and(|state| state.owner.is_some_and(|owner| owner != 0)) =>
        {
            Err(
                "git is not run as root on another user's repos: runuser -u hyperhive -- hive doctor"
                    .to_owned(),
            )
        }
        (Ok(git), Ok(entries)) => Ok(repos(&layout, git, entries).await),
        _ => Ok(Vec::new()),
    };
    let longest = |names: &Entries| {
        let names = names
            .agents
            .iter()
            .filter_map(|name| name.parse::<AgentName>().ok());
        names.map(|name| layout.agent_socket(&name).as_str().len()).max()
    };
    let longest = entries.as_ref().ok().and_then(longest).unwrap_or_default();
    let found = {
        let (file, layout) = (subject.spec.clone(), layout.clone());
        blocking(move || spec_of(&file, &layout)).await
    };
    let declared = found.and_then(|found| found);
    let spec = declared.as_ref().ok().and_then(|found| found.spec.as_ref());
    let in_containers = match spec {
        Some(spec) => spec.runtime.kind == RuntimeKind::Nspawn,
        // A host that was made for them.
        None => containers::agents_unit().is_some(),
    };
    let containers = match in_containers {
        true => Some(containers::gather(&subject, spec).await),
        false => None,
    };
    let service = in_containers.then(|| containers::paths(&subject).egress);
    Facts {
        now: subject.now,
        user,
        git: match git {
            Ok(git) => version(&git).await,
            Err(why) => Err(why),
        },
        harness: match &subject.harness {
            Ok(harness) => version(harness).await,
            Err(why) => Err(why.clone()),
        },
        sandbox: match Sandbox::probe(search_path).await {
            Sandbox::Bwrap(bwrap) => Ok(format!("{} makes sandboxes", bwrap.program)),
            Sandbox::None { why } => Err(why),
        },
        pidfd: pidfd(),
        inotify: watchable(),
        state,
        run: folder(layout.run()),
        socket_path: longest.max(layout.admin_socket().as_str().len()),
        holder: subject
            .holder
            .map(|holder| holder.map(|pid| format!("process {pid}"))),
        ledger,
        egress: egress::gather(spec, &layout, service).await,
        nix: nix::gather(spec, &programs).await,
        containers,
        spec: declared.as_ref().map(Declared::counted).map_err(String::clone),
        secrets: declared.map(|found| found.secrets).unwrap_or_default(),
        repos,
        entries,
        daemon: Err("it was not asked".to_owned()),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// The text of a file of the kernel's.
fn look(path: &Utf8Path) -> Known<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))
}

/// Where programs are looked for.
struct Programs<'a> {
    /// By this process.
    here: &'a OsStr,
    /// By the daemon that runs; `None`: that is not known.
    daemons: Option<OsString>,
}

impl Programs<'_> {
    /// A program that both find. What is found here is what may be run: root does not run what the daemon's user chose.
    fn find(&self, name: &str) -> Known<Utf8PathBuf> {
        let found = find(self.here, name).ok_or_else(|| format!("{name} was not found"))?;
        match &self.daemons {
            Some(path) if find(path, name).is_none() => Err(format!(
                "the daemon does not find {name}, which is {found}: its PATH is {}",
                line(&path.to_string_lossy(), 300)
            )),
            _ => Ok(found),
        }
    }
}

/// The PATH that a process was started with, where it may be read.
fn path_of(pid: &str) -> Option<OsString> {
    let pid: u32 = pid.parse().ok()?;
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let path = variables.find_map(|variable| variable.strip_prefix(b"PATH="))?;
    Some(OsStr::from_bytes(path).to_owned())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Known<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
async fn version(program: &Utf8Path) -> Known<String> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_TIME, output)
        .await
        .map_err(|_| format!("{program} does not say its version"))?
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().next().unwrap_or_default().trim();
    if output.status.success() && !line.is_empty() {
        Ok(line.chars().take(200).collect())
    } else {
        Err(format!("{program} does not say its version"))
    }
}

fn pidfd() -> Known<()> {
    let opened = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    opened
        .map(drop)
        .map_err(|errno| format!("the kernel has no process handles: {errno}"))
}

fn watchable() -> Known<()> {
    let watch = || {
        let watcher = inotify::init(CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watcher, "/", WatchFlags::CREATE)
    };
    watch()
        .map(drop)
        .map_err(|errno| format!("no folder can be watched: {errno}"))
}

fn folder(path: &Utf8Path) -> Known<Folder> {
    let mut folder = Folder {
        path: path.to_owned(),
        ..Folder::default()
    };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(folder),
        metadata => metadata.map_err(|error| format!("{path} cannot be looked at: {error}"))?,
    };
    if !metadata.is_dir() {
        return Err(format!("{path} is not a folder"));
    }
    folder.owner = Some(metadata.uid());
    folder.mode = metadata.mode() & PERMISSIONS;
    let failed = |errno: rustix::io::Errno| format!("the file system of {path} cannot be asked: {errno}");
    let free = rustix::fs::statvfs(path.as_std_path()).map_err(failed)?;
    folder.read_only = free.f_flag.contains(StatVfsMountFlags::RDONLY);
    folder.free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
    folder.free_files = (free.f_files > 0).then_some(free.f_favail);
    let kind = rustix::fs::statfs(path.as_std_path()).map_err(failed)?;
    folder.file_system = file_system(kind.f_type & 0xffff_ffff);
    Ok(folder)
}

/// The name of a file system by its number in the kernel.
fn file_system(number: i64) -> String {
    let name = match number {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x794c_7630 => "overlay",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x6969 => "nfs",
        0xff53_4d42 => "cifs",
        0xfe53_4d42 => "smb2",
        0x0102_1997 => "9p",
        0x6573_5546 => "fuse",
        _ => return format!("file system {number:#x}"),
    };
    name.to_owned()
}

fn entries_of(layout: &Layout) -> Known<Entries> {
    let gathered = || {
        let agents = entries(&layout.agents())?;
        let mut running = Vec::new();
        for name in agents.iter().filter_map(|entry| entry.parse::<AgentName>().ok()) {
            if let Some(pid) = process::running(layout, &name)? {
                running.push((name, pid));
            }
        }
        Ok(Entries {
            agents,
            repos: entries(&layout.repos())?,
            archive: entries(&layout.archives())?,
            incoming: entries(&layout.incoming())?,
            systems: entries(&layout.systems())?.len(),
            running,
        })
    };
    gathered().map_err(|error: super::HostError| error.chain())
}

fn ledger_of(layout: &Layout) -> Known<LedgerFacts> {
    let path = layout.ledger();
    let told = |error: ledger::OpenError| crate::error_chain(&error);
    let mut facts = LedgerFacts {
        size: std::fs::metadata(&path)
            .map(|file| file.len())
            .unwrap_or_default(),
        damage: None,
        missing: false,
        interrupted: ledger::interrupted(&path).map_err(told)?.is_some(),
        newest: None,
        live: BTreeSet::new(),
        known: BTreeSet::new(),
    };
    match ledger::condition(&path).map_err(told)? {
        Condition::Whole => {}
        Condition::Missing => {
            facts.missing = true;
            return Ok(facts);
        }
        Condition::Damaged { detail } => {
            facts.damage = Some(detail);
            return Ok(facts);
        }
    }
    let salvage = ledger::salvage(&path).map_err(told)?;
    facts.newest = salvage.newest_event();
    facts.known = salvage.agents.iter().map(|row| row.uid).collect();
    let live = salvage.agents.into_iter().filter(|row| !row.life.is_over());
    facts.live = live.map(|row| row.name).collect();
    Ok(facts)
}

/// What the spec file says.
struct Declared {
    spec: Option<Spec>,
    faults: Vec<String>,
    /// The secret files.
    secrets: Vec<(String, Known<u32>)>,
}

impl Declared {
    /// How many agents are declared, and the faults.
    fn counted(&self) -> (usize, Vec<String>) {
        let agents = self.spec.as_ref().map_or(0, |spec| spec.agents.len());
        (agents, self.faults.clone())
    }
}

fn spec_of(path: &Utf8Path, layout: &Layout) -> Known<Declared> {
    let bytes = crate::spec::read(path).map_err(|error| crate::error_chain(&error))?;
    let parsed = crate::spec::parse(&bytes);
    let faults = parsed.all_faults().map(ToString::to_string).collect();
    let agents = parsed.spec.iter().flat_map(|spec| &spec.agents);
    let secrets = agents.flat_map(|(agent, spec)| process::inspect_secrets(agent, spec, layout));
    Ok(Declared {
        secrets: secrets.collect(),
        faults,
        spec: parsed.spec,
    })
}

async fn repos(layout: &Layout, git: &Utf8Path, entries: &Entries) -> Vec<(AgentName, Known<()>)> {
    let git = GitRepos::new(layout.clone(), git.to_owned());
    let mut checked = Vec::new();
    let until = tokio::time::Instant::now() + REPOS_TIME;
    for name in entries.repos.iter().filter_map(|entry| remains::repo_name(entry)) {
        let outcome = match tokio::time::timeout_at(until, git.check(&name)).await {
            Ok(outcome) => outcome.map_err(|error| error.chain()),
            // Those that come first have been looked at; a larger hive is checked with git itself.
            Err(_) => break,
        };
        checked.push((name, outcome));
    }
    checked
}
