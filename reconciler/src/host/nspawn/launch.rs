//! `hive launch`: all that the hive does as root.
//!
//! It is what the unit of an agent starts. The daemon, which is not root, has written down what it wants; the launcher holds
//! that against what the operator declared, in a file that only root can write, makes the container's tree, gives state
//! and sockets to the container's user ids, notes what runs, and becomes `systemd-nspawn` by exec. A daemon that was
//! taken over gets no more from here than the operator declared for that agent.

mod judge;

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use shared::AgentName;
use shared::secret::SecretValue;
use shared::spec::Spec;

use super::command::{Container, Mount};
use super::programs::{self, STORE};
use super::record::{self, LaunchFailure, LaunchRecord};
use super::{names, tree};
use crate::host::folders::{read_bounded, read_launch, write_atomic};
use crate::host::layout::Layout;
use crate::host::process::{check_binds, read_secrets};
use crate::host::{HostError, Launch};
use crate::model::user_range::UserRange;
use crate::spec;

/// The largest spec that is read.
const MAX_SPEC: u64 = 64 * 1024 * 1024;
/// What is done again with the same input leads to the same (`EX_CONFIG`).
const EXIT_REFUSED: u8 = 78;

/// The agent to launch, and where everything lies. Written into the unit by whoever installed it.
#[derive(Debug, Clone, clap::Args)]
pub struct LaunchArgs {
    /// The spec; it must be root's
    #[arg(long, value_name = "FILE", default_value = "/etc/hyperhive/hive.json")]
    pub spec: Utf8PathBuf,
    /// The daemon's state folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hyperhive")]
    pub state: Utf8PathBuf,
    /// The daemon's run folder
    #[arg(long, value_name = "DIR", default_value = "/run/hyperhive")]
    pub run: Utf8PathBuf,
    /// The folder of the agents' egress sockets
    #[arg(long, value_name = "DIR", default_value = super::EGRESS)]
    pub egress: Utf8PathBuf,
    /// The folder in which containers get their trees; root's alone
    #[arg(long, value_name = "DIR", default_value = super::ROOTS)]
    pub roots: Utf8PathBuf,
    /// The program systemd-nspawn
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/systemd-nspawn")]
    pub nspawn: Utf8PathBuf,
    /// The harness program; by default hive-harness beside this program
    #[arg(long, value_name = "FILE")]
    pub harness: Option<Utf8PathBuf>,
    /// systemd's id of this run
    #[arg(long, value_name = "ID", value_parser = parse_invocation)]
    pub invocation: String,
    /// The agent
    #[arg(value_name = "AGENT")]
    pub agent: AgentName,
}

fn parse_invocation(text: &str) -> Result<String, String> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id
        .then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "not systemd's id of a run: start the agent by its unit".to_owned())
}

/// Becomes the agent's container.
///
/// # Errors
/// When it did not come to that. The reason is noted for the daemon too; print it and exit with [`exit_code`].
pub fn run(args: &LaunchArgs) -> Result<Infallible, HostError> {
    let error = match become_container(args) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let failure = LaunchFailure {
        invocation: args.invocation.clone(),
        message: error.chain(),
        refused: error.is_terminal(),
    };
    let noted = serde_json::to_vec(&failure)
        .map_err(|error| HostError::failed("the reason", error.to_string()))
        .and_then(|bytes| {
            write_atomic(
                &record::failure_file(super::records(), &args.agent),
                &bytes,
                0o644,
            )
        });
    // Without the note the daemon still sees that the unit failed, and the journal has the reason.
    noted.unwrap_or_default();
    Err(error)
}

/// The exit status that tells what to make of an error.
pub fn exit_code(error: &HostError) -> u8 {
    if error.is_terminal() { EXIT_REFUSED } else { 1 }
}

fn become_container(args: &LaunchArgs) -> Result<Infallible, HostError> {
    if !rustix::process::geteuid().is_root() {
        let why = "only root can make a container: systemctl start hyperhive-agent@NAME does it";
        return Err(HostError::refused("hive launch", why));
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    tree::ensure(super::records(), 0o755)?;
    let agent = &args.agent;
    let layout = Layout::new(real(&args.state)?, real(&args.run)?);
    let spec = read_spec(&args.spec)?;
    let file = read_launch(&layout.launch_file(agent))?;
    let launch = &file.launch;
    let declared = judge::declared(&spec, agent);
    let range = judge::launch(
        agent,
        launch,
        declared,
        &judge::Programs::of(&spec, &harness(args)?),
    )?;
    judge::alone(super::records(), agent, range)?;
    let init = init(launch, declared.system.as_deref())?;

    let mut mounts = vec![Mount::shown(STORE, STORE)];
    mounts.extend(own_folders(&layout, agent, range)?);
    if launch.goes_out_by_sockets() {
        mounts.push(egress_folder(&args.egress, agent, range)?);
    }
    for program in programs::of(launch)
        .iter()
        .filter(|program| program.needs_mount())
    {
        mounts.push(Mount::shown(program.source.clone(), program.inside.as_str()));
    }
    let may_write = |folder: &Utf8Path, owner: u32| judge::may_write(folder, owner, range);
    for bind in check_binds(agent, &launch.binds, &layout, &may_write)? {
        mounts.push(Mount {
            source: bind.source,
            target: bind.target,
            read_only: bind.read_only,
        });
    }
    let secrets = read_secrets(launch, &layout)?;
    if !secrets.is_empty() {
        mounts.push(Mount::shown(
            keep_secrets(&secrets.into_iter().collect::<Vec<_>>(), range)?,
            "/run/hive-credentials",
        ));
    }
    let root = args.roots.join(agent.as_str());
    tree::make_root(&args.roots, &root)?;

    let record = LaunchRecord {
        invocation: args.invocation.clone(),
        toplevel: file.digest.clone(),
        range,
    };
    let bytes =
        serde_json::to_vec(&record).map_err(|error| HostError::failed("the record", error.to_string()))?;
    write_atomic(&record::record_file(super::records(), agent), &bytes, 0o644)?;

    let container = Container {
        agent,
        id: launch.uid.0,
        range,
        network: launch.network,
        root: &root,
        init: &init,
        mounts: &mounts,
    };
    let error = nspawn(&args.nspawn)
        .args(container.words())
        // The folder belongs to this unit alone, and the unit cannot run twice.
        .env("SYSTEMD_NSPAWN_LOCK", "0")
        // In a tree that has no systemd of its own, nspawn cannot tell which cgroups the system inside knows.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .exec();
    Err(HostError::io("start", args.nspawn.as_str())(error))
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
fn nspawn(program: &Utf8Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    command
}

/// A folder by its real path: above the hive's own folders, links are the operator's.
fn real(folder: &Utf8Path) -> Result<Utf8PathBuf, HostError> {
    folder
        .canonicalize_utf8()
        .map_err(HostError::io("find", folder.as_str()))
}

/// The spec, which must be root's: it says what the daemon may ask for.
fn read_spec(path: &Utf8Path) -> Result<Spec, HostError> {
    let path = real(path)?;
    let stat = path.metadata().map_err(HostError::io("look at", path.as_str()))?;
    if stat.uid() != 0 || stat.mode() & 0o022 != 0 {
        let why = "it belongs to another user than root, or others can write it: chown root and chmod go-w";
        return Err(HostError::refused(path.as_str(), why));
    }
    let bytes = read_bounded(&path, MAX_SPEC)?
        .ok_or_else(|| HostError::refused(path.as_str(), "it is no file, or too large"))?;
    let parsed = spec::parse(&bytes);
    parsed.spec.ok_or_else(|| {
        let fault = parsed
            .faults
            .first()
            .map_or_else(String::new, |fault| fault.message.clone());
        HostError::refused(
            path.as_str(),
            format!("it is no valid spec: {fault}; hive spec check names all faults"),
        )
    })
}

fn harness(args: &LaunchArgs) -> Result<Utf8PathBuf, HostError> {
    if let Some(harness) = &args.harness {
        return Ok(harness.clone());
    }
    let own = std::env::current_exe().map_err(HostError::io("find", "this program"))?;
    let own = Utf8PathBuf::from_path_buf(own)
        .map_err(|path| HostError::refused(path.to_string_lossy(), "its path is no UTF-8"))?;
    Ok(own.with_file_name("hive-harness"))
}

/// The guest's first program. Its system lies in the store, which only root and Nix write, or is the declared one.
fn init(launch: &Launch, declared: Option<&str>) -> Result<Utf8PathBuf, HostError> {
    let Some(system) = &launch.system else {
        let why = format!(
            "no operating system is declared for its container: set agents.{}.system, or use builder.kind \"nix\"",
            launch.agent
        );
        return Err(HostError::refused(format!("the start of {}", launch.agent), why));
    };
    if !system.starts_with(STORE) {
        let why = match declared == Some(system.as_str()) {
            true => format!("a guest's system must lie in {STORE}, which the container sees"),
            false => "it is not what the spec declares".to_owned(),
        };
        return Err(HostError::refused(
            format!("the system {system} of {}", launch.agent),
            why,
        ));
    }
    let init = system.join("init");
    match init.symlink_metadata() {
        Ok(_) => Ok(init),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(HostError::failed(
            format!("the system {system} of {}", launch.agent),
            "it has no init, or is gone from the store: hive rebuild builds it again",
        )),
        Err(error) => Err(HostError::io("look at", init.as_str())(error)),
    }
}

/// The agent's own folders, given to its user ids.
fn own_folders(layout: &Layout, agent: &AgentName, range: UserRange) -> Result<Vec<Mount>, HostError> {
    let state = layout.agent_state(agent);
    tree::give(&tree::open_below(layout.state(), &state)?, &state, range)?;
    let sock = layout.sock(agent);
    tree::share_sockets(&tree::open_below(layout.run(), &sock)?, &sock, range)?;
    let config = layout.config(agent);
    tree::open_below(layout.state(), &config)?;
    Ok(vec![
        Mount::shown(config, "/config"),
        Mount {
            source: state,
            target: "/state".into(),
            read_only: false,
        },
        // A socket can be connected to through a read-only mount, but not be replaced.
        Mount::shown(sock, "/run/hive"),
    ])
}

/// Where the agent's way out begins. The egress service may be slower than this start: its folder for the agent is made here,
/// and is the service's. Without the service's own folder the agent would be cut off for the whole run, whatever came later.
fn egress_folder(egress: &Utf8Path, agent: &AgentName, range: UserRange) -> Result<Mount, HostError> {
    let service = match egress.symlink_metadata() {
        Ok(found) if found.is_dir() => found.uid(),
        Ok(_) => return Err(HostError::refused(egress.as_str(), "it is no folder: remove it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(HostError::failed(
                "the way out",
                format!(
                    "there is no {egress}: as root systemd-tmpfiles --create; or set agents.{agent}.network to \"none\""
                ),
            ));
        }
        Err(error) => return Err(HostError::io("look at", egress.as_str())(error)),
    };
    let folder = egress.join(agent.as_str());
    match std::fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(HostError::io("make the folder", folder.as_str())(error));
        }
        _ => {}
    }
    let open = tree::open_below(egress, &folder)?;
    fchown(&open, Some(service), None).map_err(HostError::io("give away", folder.as_str()))?;
    tree::share_sockets(&open, &folder, range)?;
    Ok(Mount::shown(folder, "/run/hive-egress"))
}

/// Puts the secrets into memory that only this unit sees and that goes with it.
fn keep_secrets(secrets: &[(String, SecretValue)], range: UserRange) -> Result<Utf8PathBuf, HostError> {
    let folder = super::records().join("secrets");
    tree::ensure(&folder, 0o755)?;
    own_mounts().map_err(|errno| HostError::io("hide mounts from the host", "the unit")(errno.into()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(
        "tmpfs",
        folder.as_std_path(),
        "tmpfs",
        flags,
        Some(c"mode=0755,size=16m"),
    )
    .map_err(|errno| HostError::io("mount memory for secrets at", folder.as_str())(errno.into()))?;
    for (name, value) in secrets {
        let path = folder.join(name);
        let failed = |error| HostError::io("write", path.as_str())(error);
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::EXCL).bits()).unwrap_or_default();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .custom_flags(flags)
            .open(&path)
            .map_err(failed)?;
        io::Write::write_all(&mut file, value.bytes()).map_err(failed)?;
        fchown(&file, Some(range.agent()), Some(range.agent())).map_err(failed)?;
    }
    Ok(folder)
}

/// What is mounted from now on is seen by this process and those that it starts. The unit could say so (`PrivateMounts=`),
/// but systemd takes a tenth of a container's start for that, and most agents have no secrets.
#[expect(
    unsafe_code,
    reason = "the call is unsafe for tables of descriptors that threads share, and these are not unshared"
)]
fn own_mounts() -> Result<(), rustix::io::Errno> {
    // SAFETY: only `UnshareFlags::FILES` could take descriptors from other threads, of which there are none.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    // What the host mounts is still seen here, and nothing goes the other way.
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
}

/// What an operator starts by hand to see why an agent does not start.
pub fn unit_of(agent: &AgentName) -> String {
    names::unit(agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_not_started_without_the_folder_in_which_its_way_out_begins() {
        let keep = tempfile::tempdir().unwrap();
        let missing = Utf8Path::from_path(keep.path()).unwrap().join("egress");
        let range = UserRange::of_slot(0).unwrap();
        let error = egress_folder(&missing, &"alice".parse().unwrap(), range).unwrap_err();
        // It may come at any time.
        assert!(!error.is_terminal());
        let told = error.chain();
        assert!(
            told.contains(missing.as_str()) && told.contains("systemd-tmpfiles --create"),
            "{told}"
        );
        assert!(!missing.exists(), "it is the service's, and not root's to make");
    }
}
