//! The launcher: a short-lived stage between daemon and sandbox that makes sure an agent runs at most once.
//!
//! The daemon starts its own program with these arguments. The launcher leaves the daemon's session, takes the
//! agent's lock, reads the launch file again, notes in `run.json` who it is, and becomes `bwrap` by exec. Because the
//! process stays the same, there is no moment at which an agent runs without a record, whoever crashes when.
//!
//! Two things it inherits matter. Its stdin is a socket to the daemon with one byte in it. Whoever has come so far that
//! only the harness remains to be started takes the byte and closes the socket; whoever fails before closes it with the
//! byte unread, and the daemon can tell. Its stderr is a pipe to the daemon, replaced by the log at exec, so
//! that what comes out of it is a reason for not starting. Neither reaches the agent.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{PollFd, Timespec};
use rustix::fs::{CWD, FlockOperation, MemfdFlags, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, FdFlags};
use shared::spec::{DriverKind, Network};
use shared::{AgentName, Digest};

use super::binds;
use super::proc::{self, Stat};
use super::record::{Run, RunFiles, RunRecord};
use super::sandbox::{self, Bwrap, strings};
use super::secrets;
use crate::host::clock::SystemClock;
use crate::host::folders::{read_launch, remove_leftovers, write_atomic};
use crate::host::layout::Layout;
use crate::host::open_files;
use crate::host::{Clock as _, HostError, Launch};

/// How long the launcher waits for somebody who tests the lock, or for the remains of the run before.
const LOCK_TIME: Duration = Duration::from_secs(2);
/// The size at which the log is put aside.
const MAX_LOG: u64 = 4 * 1024 * 1024;

/// Which agent to launch, and how. Only the daemon passes these.
#[derive(Debug, Clone, clap::Args)]
pub struct LaunchArgs {
    /// The daemon's state folder
    #[arg(long)]
    pub state: Utf8PathBuf,
    /// The daemon's run folder
    #[arg(long)]
    pub run_dir: Utf8PathBuf,
    /// The agent
    #[arg(long)]
    pub agent: AgentName,
    /// The digest of the launch that is wanted
    #[arg(long)]
    pub digest: Digest,
    /// The identity of this run
    #[arg(long)]
    pub run: String,
    /// The sandbox program; without it there is no sandbox
    #[arg(long)]
    pub bwrap: Option<Utf8PathBuf>,
    /// The sandbox program can forbid user namespaces
    #[arg(long, requires = "bwrap")]
    pub disable_userns: bool,
    /// The sandbox program binds open folders
    #[arg(long, requires = "bwrap")]
    pub bind_fd: bool,
    /// Launch any driver without a sandbox
    #[arg(long)]
    pub unsafe_no_sandbox: bool,
}

impl LaunchArgs {
    /// The arguments as words of a command line.
    pub(super) fn to_words(&self) -> Vec<String> {
        let Self {
            state,
            run_dir,
            agent,
            digest,
            run,
            bwrap,
            disable_userns,
            bind_fd,
            unsafe_no_sandbox,
        } = self;
        let mut words = strings([
            "--state",
            state.as_str(),
            "--run-dir",
            run_dir.as_str(),
            "--agent",
            agent.as_str(),
            "--digest",
            digest.as_str(),
            "--run",
            run,
        ]);
        if let Some(bwrap) = bwrap {
            words.extend(strings(["--bwrap", bwrap.as_str()]));
        }
        for (flag, word) in [
            (disable_userns, "--disable-userns"),
            (bind_fd, "--bind-fd"),
            (unsafe_no_sandbox, "--unsafe-no-sandbox"),
        ] {
            if *flag {
                words.push(word.to_owned());
            }
        }
        words
    }

    fn sandbox(&self) -> Option<Bwrap> {
        self.bwrap.clone().map(|program| Bwrap {
            program,
            disable_userns: self.disable_userns,
            bind_fd: self.bind_fd,
        })
    }
}

/// Why the launcher did not become the agent.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Another run of the agent holds the lock.
    #[error("{agent} runs already, or is being started by another launcher")]
    Taken {
        /// The agent.
        agent: AgentName,
    },
    /// The launch file changed after the daemon asked.
    #[error("the launch file of {agent} is no longer the one that was asked for ({wanted}); ask again")]
    Changed {
        /// The agent.
        agent: AgentName,
        /// The digest that was asked for.
        wanted: Digest,
    },
    /// A file or a bind is at fault.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The operating system refused an operation.
    #[error("cannot {op}")]
    System {
        /// The operation, as a verb.
        op: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    fn system<E: Into<io::Error>>(op: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            op,
            source: source.into(),
        }
    }

    /// The exit status that tells the daemon what to make of it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Taken { .. } => EXIT_TAKEN,
            Self::Host(error) if error.is_terminal() => EXIT_REFUSED,
            Self::Changed { .. } | Self::Host(_) | Self::System { .. } => 1,
        }
    }
}

/// Another run has the lock (`EX_TEMPFAIL`).
pub(super) const EXIT_TAKEN: u8 = 75;
/// The launch is at fault (`EX_CONFIG`).
pub(super) const EXIT_REFUSED: u8 = 78;

/// Becomes the agent's sandbox, or its harness.
///
/// # Errors
/// When it did not come to that. Print the error to stderr and exit with [`LaunchError::exit_code`].
pub fn run(args: &LaunchArgs) -> Result<Infallible, LaunchError> {
    close_on_exec().map_err(LaunchError::system("close inherited descriptors"))?;
    // The daemon's session may end, its terminal may close: the agent stays.
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) => return Err(LaunchError::system("leave the session")(errno)),
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    open_files::lower().map_err(LaunchError::system("set the limit of open files"))?;

    let layout = Layout::new(args.state.clone(), args.run_dir.clone());
    let files = RunFiles::new(layout.launch(&args.agent));
    let lock = take_lock(&files, &args.agent)?;

    let launch = read_launch(&layout.launch_file(&args.agent))?;
    if launch.digest != args.digest || launch.launch.agent != args.agent {
        return Err(LaunchError::Changed {
            agent: args.agent.clone(),
            wanted: args.digest.clone(),
        });
    }
    let mut inherited = Vec::new();
    let mut command = match args.sandbox() {
        Some(bwrap) => sandboxed(&bwrap, &launch.launch, &layout, &lock, &mut inherited)?,
        None => unsandboxed(&launch.launch, &layout, args.unsafe_no_sandbox)?,
    };
    let log = open_log(&files)?;
    let errors = log.try_clone().map_err(LaunchError::system("open the log"))?;
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);

    // First the old run's account goes, then the new record comes: never the new run with the old one's end.
    rustix::fs::ftruncate(&lock, 0).map_err(LaunchError::system("empty the lock file"))?;
    write_record(args, &files)?;
    if args.bwrap.is_none() {
        // What `bwrap` does at the same point. Nothing to take is fine too: then the daemon is gone.
        rustix::io::read(rustix::stdio::stdin(), &mut [0; 1]).map_err(LaunchError::system("read stdin"))?;
    }
    let error = command.exec();
    Err(LaunchError::System {
        op: "start the program",
        source: error,
    })
}

/// Makes sure that nothing the daemon was given by whoever started it (a terminal, a pipe, a socket) reaches the agent.
/// The daemon's own descriptors are closed by exec; inherited ones are what they were made.
#[expect(
    unsafe_code,
    reason = "descriptors that this program did not open have no safe form"
)]
fn close_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?
            .file_name()
            .to_str()
            .and_then(|fd| fd.parse().ok())
            .filter(|fd| *fd > 2)
        else {
            continue;
        };
        // SAFETY: nothing else runs in this process yet, so what is listed is open, the listing itself included, and
        // stays open for this one call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

/// Takes the agent's lock for the lifetime of what this process becomes.
fn take_lock(files: &RunFiles, agent: &AgentName) -> Result<OwnedFd, LaunchError> {
    let boot_id = proc::boot_id().map_err(LaunchError::system("read the boot id"))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::open(files.lock().as_std_path(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| HostError::io("open", files.lock())(errno.into()))?;
    let deadline = Instant::now() + LOCK_TIME;
    loop {
        let taken = match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK) => false,
            Err(errno) => return Err(LaunchError::system("lock run.lock")(errno)),
        };
        // With the lock in hand this still matters: the harness may have outlived its `bwrap`.
        let last = Run::read(files)?;
        let alive = last.map(|last| last.is_alive(&boot_id)).transpose();
        if alive
            .map_err(LaunchError::system("look at the last run"))?
            .unwrap_or(false)
        {
            return Err(LaunchError::Taken { agent: agent.clone() });
        }
        if taken {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            return Err(LaunchError::Taken { agent: agent.clone() });
        }
        // A daemon that tests the lock, a rival that will fail, or a `bwrap` that is about to end.
        pause(Duration::from_millis(10))?;
    }
}

fn pause(time: Duration) -> Result<(), LaunchError> {
    let time = Timespec::try_from(time)
        .map_err(|_| Errno::INVAL)
        .map_err(LaunchError::system("wait"))?;
    match rustix::event::poll(&mut [] as &mut [PollFd<'_>], Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(LaunchError::system("wait")(errno)),
    }
}

fn write_record(args: &LaunchArgs, files: &RunFiles) -> Result<(), LaunchError> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let stat = Stat::read(pid)
        .and_then(|stat| stat.ok_or_else(|| io::Error::other("/proc does not list this process")))
        .map_err(LaunchError::system("read the start time"))?;
    let record = RunRecord {
        run: args.run.clone(),
        pid,
        start_time: stat.start_time,
        boot_id: proc::boot_id().map_err(LaunchError::system("read the boot id"))?,
        toplevel: args.digest.clone(),
        since: SystemClock.now(),
        sandboxed: args.bwrap.is_some(),
    };
    let bytes = serde_json::to_vec(&record).map_err(LaunchError::system("write run.json"))?;
    remove_leftovers(files.folder(), "run.json")?;
    write_atomic(&files.record(), &bytes, 0o600)?;
    Ok(())
}

fn open_log(files: &RunFiles) -> Result<File, LaunchError> {
    let path = files.log();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.len() > MAX_LOG)
    {
        std::fs::rename(&path, format!("{path}.1")).map_err(HostError::io("put aside", path.as_str()))?;
    }
    let log = rustix::fs::open(path.as_std_path(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| HostError::io("open", path.as_str())(errno.into()))?;
    Ok(File::from(log))
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
fn program(path: &Utf8Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir("/");
    command
}

/// The harness without a sandbox, with the host's own paths.
fn unsandboxed(launch: &Launch, layout: &Layout, any_driver: bool) -> Result<Command, LaunchError> {
    permit_unsandboxed(launch, any_driver, "no sandbox was passed to the launcher")?;
    let (agent, state) = (&launch.agent, layout.agent_state(&launch.agent));
    let mut command = program(&launch.harness);
    command.args(serve(
        &layout.agent_socket(agent),
        &layout.config(agent),
        &state,
        launch.claude.as_deref(),
    ));
    command
        .env_clear()
        .envs(sandbox::environment(state.as_str()))
        .current_dir(&state);
    Ok(command)
}

/// Refuses what may not run without a sandbox: a driver that carries out what a model says.
pub(super) fn permit_unsandboxed(launch: &Launch, any_driver: bool, why: &str) -> Result<(), HostError> {
    secrets::permit_unsandboxed(launch, why)?;
    match launch.driver {
        DriverKind::Scripted => Ok(()),
        DriverKind::Acp | DriverKind::Claude if any_driver => Ok(()),
        DriverKind::Acp | DriverKind::Claude => Err(HostError::refused(
            format!("the start of {}", launch.agent),
            format!(
                "there is no sandbox ({why}), and without one an agent could approve its own proposals; make bwrap \
                 work, use the `scripted` driver, or set `unsafeNoSandbox`"
            ),
        )),
    }
}

/// The harness's command line.
fn serve(socket: &Utf8Path, config: &Utf8Path, state: &Utf8Path, claude: Option<&Utf8Path>) -> Vec<String> {
    let mut words = strings([
        "serve",
        "--socket",
        socket.as_str(),
        "--config",
        config.as_str(),
        "--state",
        state.as_str(),
    ]);
    if let Some(claude) = claude {
        words.extend(strings(["--claude", claude.as_str()]));
    }
    words
}

/// The sandbox around the harness. What it inherits by number is kept in `inherited` until exec.
fn sandboxed(
    bwrap: &Bwrap,
    launch: &Launch,
    layout: &Layout,
    lock: &OwnedFd,
    inherited: &mut Vec<OwnedFd>,
) -> Result<Command, LaunchError> {
    let agent = &launch.agent;
    let binds = binds::check(agent, &launch.binds, layout, &binds::daemons_own)?;
    // What `dup` makes is inherited. The lock's copy is the same lock: `bwrap` keeps it to write its account, and
    // closes it for the harness, which could otherwise let go of it.
    let mut inherit = |fd: OwnedFd| {
        let number = fd.as_raw_fd().to_string();
        inherited.push(fd);
        number
    };
    let account = inherit(rustix::io::dup(lock).map_err(LaunchError::system("keep the lock"))?);
    let ready = inherit(rustix::io::dup(rustix::stdio::stdin()).map_err(LaunchError::system("keep stdin"))?);

    let mut words = sandbox::isolation(bwrap, launch.network, agent.as_str());
    words.extend(sandbox::root());
    for (path, text) in sandbox::names(agent, launch.network) {
        words.extend(strings([
            "--ro-bind-data",
            &inherit(memory_file(text.as_bytes())?),
            path,
        ]));
    }
    if launch.network == Network::Host {
        words.extend(sandbox::resolver());
    }
    words.extend(sandbox::hide(&[layout.state(), layout.run()]));
    words.extend(strings(["--ro-bind", launch.harness.as_str(), sandbox::HARNESS]));
    if let Some(claude) = &launch.claude {
        // Where it is not, the agent says so itself: better than one that cannot start for want of a driver.
        words.extend(strings(["--ro-bind-try", claude.as_str(), sandbox::CLAUDE]));
    }
    words.extend(strings(["--ro-bind", layout.config(agent).as_str(), "/config"]));
    words.extend(strings(["--bind", layout.agent_state(agent).as_str(), "/state"]));
    // A socket can be connected to through a read-only bind, but not be replaced.
    words.extend(strings(["--ro-bind", layout.sock(agent).as_str(), "/run/hive"]));
    if launch.goes_out_by_sockets() {
        // What is behind it may come and go; a folder that is not there is no reason not to start.
        let folder = layout.egress_of(agent);
        words.extend(strings(["--ro-bind-try", folder.as_str(), sandbox::EGRESS]));
    }
    for bind in &binds {
        let option = if bind.read_only { "--ro-bind" } else { "--bind" };
        if bwrap.bind_fd {
            let folder = inherit(open_without_links(&bind.source)?);
            words.extend(strings([&format!("{option}-fd"), &folder, bind.target.as_str()]));
        } else {
            words.extend(strings([option, bind.source.as_str(), bind.target.as_str()]));
        }
    }
    let mut secrets = Vec::new();
    for (name, value) in secrets::read(launch, layout)? {
        secrets.push((name, inherit(memory_file(value.bytes())?)));
    }
    words.extend(sandbox::credentials(&secrets));
    words.extend(sandbox::seal());
    words.extend(strings([
        "--chdir",
        "/state",
        "--json-status-fd",
        &account,
        "--block-fd",
        &ready,
    ]));
    words.extend(strings(["--", sandbox::HARNESS]));
    words.extend(serve(
        "/run/hive/hive.sock".into(),
        "/config".into(),
        "/state".into(),
        launch.claude.as_ref().map(|_| sandbox::CLAUDE.into()),
    ));

    let mut command = program(&bwrap.program);
    command.args(words);
    Ok(command)
}

/// A file without a name, to be inherited.
fn memory_file(content: &[u8]) -> Result<OwnedFd, LaunchError> {
    let make = || -> io::Result<OwnedFd> {
        let file = rustix::fs::memfd_create("hive", MemfdFlags::empty())?;
        io::Write::write_all(&mut File::from(file.try_clone()?), content)?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
        Ok(file)
    };
    make().map_err(LaunchError::system("make a memory file"))
}

/// Opens the folder that was checked; fails when a link has taken the place of any part of its path since.
fn open_without_links(path: &Utf8Path) -> Result<OwnedFd, LaunchError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    rustix::fs::openat2(
        CWD,
        path.as_std_path(),
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .map_err(|errno| HostError::io("open", path.as_str())(errno.into()).into())
}

#[cfg(test)]
mod tests;
