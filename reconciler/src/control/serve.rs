//! The daemon from start to end: folders, lock, ledger, doors, loop, shutdown.

mod builder;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::spec::{RuntimeKind, RuntimeSpec, Spec};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::lock::{self, LockError};
use super::reconciler::Settings;
use super::{Key, PassError, Reconciler, egress, run};
use crate::api::Context;
use crate::api::doors::{AgentDoors, DoorError, check_path, open_admin, open_egress};
use crate::broker::Broker;
use crate::cli::ServeArgs;
use crate::export::Export;
use crate::host::clock::{RandomIds, SystemClock};
use crate::host::egress_service;
use crate::host::folders::AgentFolders;
use crate::host::git::GitRepos;
use crate::host::harness_link::Link;
use crate::host::layout::Layout;
use crate::host::nspawn::{NspawnOptions, NspawnRuntime};
use crate::host::open_files;
use crate::host::own_process::ProcSelf;
use crate::host::process::{DEFAULT_GRACE, Notify, ProcessOptions, ProcessRuntime, Sandbox};
use crate::host::spec_file::SpecAt;
use crate::host::staging::StagedFiles;
use crate::host::{Clock, Host, HostError, Ids as _, Repos, Runtime, SpecFile as _};
use crate::ledger::{self, Ledger, LedgerError, OpenError};
use crate::model::records::AgentLife;
use crate::recover::lost::{self, Lost};
use crate::spec;

/// How often what is too old is deleted from the ledger.
const PRUNE_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another daemon has this state folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The ledger is gone, but what it knew of is not.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A folder or file could not be made.
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
    /// A program that is needed is not there.
    #[error("cannot find {0}: install it, or put it on the PATH of the daemon")]
    NoProgram(&'static str),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What plans are made from cannot be gathered.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A door to the outside failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The spec cannot be watched.
    #[error(transparent)]
    Watch(#[from] spec::WatchError),
}

/// What becomes of the agents when the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// They go on; the next daemon adopts them.
    LeaveAgents,
    /// They are stopped: nobody will come back for them.
    StopAgents,
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let (tell, shutdown) = watch::channel(false);
    tokio::spawn(async move {
        wait_for_signal().await;
        // The receiver only goes away when the daemon ends.
        let _ended = tell.send(true);
    });
    serve_until(args, shutdown, AtEnd::LeaveAgents).await
}

/// Returns when the process is told to end.
pub async fn wait_for_signal() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be caught; only SIGKILL ends this daemon");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Runs the daemon until `shutdown` turns true.
///
/// # Errors
/// When it cannot start.
pub async fn serve_until(
    args: ServeArgs,
    shutdown: watch::Receiver<bool>,
    at_end: AtEnd,
) -> Result<(), ServeError> {
    serve_watched(args, shutdown, at_end, |_| {}, |_| {}).await
}

/// The same, while somebody looks on: `started` is shown the reconciler before its first pass, `on_pass` the key of every
/// pass that has ended.
///
/// # Errors
/// When it cannot start.
pub async fn serve_watched(
    args: ServeArgs,
    shutdown: watch::Receiver<bool>,
    at_end: AtEnd,
    started: impl FnOnce(&Arc<Reconciler>) + Send,
    on_pass: impl Fn(&Key) + Send,
) -> Result<(), ServeError> {
    let layout = prepare(&args)?;
    let _lock = lock::take(&layout).await?;
    if let Err(error) = open_files::raise() {
        tracing::warn!(
            error = error.to_string(),
            "the limit of open files stays as it is"
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = Arc::new(RandomIds);
    lost::check(&layout)?;
    let ledger = Ledger::open(&layout.ledger(), clock.now(), ids.hive_id())
        .await
        .map_err(Box::new)?;
    let link = Arc::new(Link::new(Arc::clone(&clock)));
    let (early, mut early_nudges) = mpsc::unbounded_channel::<AgentName>();
    let host = host(&args, &layout, clock, ids, &link, early).await?;
    let settings = Settings {
        harness: default_harness(&args).await?,
        max_transitions: 4,
    };
    let (reconciler, nudged) = Reconciler::new(host.clone(), ledger.clone(), settings);
    let broker = Broker::new(ledger.clone());
    let context = Context {
        reconciler: Arc::clone(&reconciler),
        broker: broker.clone(),
        link,
        layout: layout.clone(),
        shutdown: shutdown.clone(),
    };
    let ended = reconciler.nudger();
    tokio::spawn(async move {
        while let Some(agent) = early_nudges.recv().await {
            if ended.send(Key::Agent(agent)).is_err() {
                break;
            }
        }
    });
    if let Err(error) = reconciler.sweep_staged().await {
        tracing::warn!(
            error = crate::error_chain(&error),
            "staged files of no draft were not deleted"
        );
    }
    let mut doors = AgentDoors::new(context.clone(), host.runtime.kind());
    for record in ledger.agents().await?.items {
        keep_door(&host, &mut doors, &record.name, &record.life).await;
    }
    let _admin = open_admin(context.clone(), &layout.admin_socket())?;
    let _egress = open_egress(context, &layout.egress_socket())?;
    let spec_nudger = reconciler.nudger();
    let _watcher = spec::watch(args.spec.clone(), move || {
        // The receiver only goes away when the daemon ends.
        let _ended = spec_nudger.send(Key::Hive);
    })?;
    let (passes, passed) = mpsc::unbounded_channel();
    let deadlines = tokio::spawn(super::deadlines::watch(Arc::clone(&reconciler), broker));
    let (looks, looked) = mpsc::unbounded_channel();
    let (tell_needed, needed) = watch::channel(false);
    let projector = tokio::spawn(egress::project(
        Arc::clone(&reconciler),
        layout.clone(),
        looked,
        tell_needed,
    ));
    let ways_out = match host.runtime.kind() {
        RuntimeKind::Process => tokio::spawn(egress_service::supervise(
            own_program()?,
            layout.clone(),
            Arc::clone(&host.ids),
            needed,
        )),
        // Where there are containers, systemd runs it, under a user of its own.
        RuntimeKind::Nspawn => tokio::spawn(async move { drop(needed) }),
    };
    let keeper = tokio::spawn(keep_doors(host.clone(), ledger.clone(), doors, passed));
    let pruner = tokio::spawn(prune(ledger.clone(), host.clock.clone()));
    let storage = tokio::spawn(super::storage::watch(Arc::clone(&reconciler)));
    let heart = tokio::spawn(heartbeat(Arc::clone(&reconciler)));
    tracing::info!(
        socket = layout.admin_socket().as_str(),
        state = layout.state().as_str(),
        "daemon is up"
    );
    systemd(&[sd_notify::NotifyState::Ready]);
    started(&reconciler);
    run::run(Arc::clone(&reconciler), nudged, shutdown, move |key| {
        systemd(&[sd_notify::NotifyState::Watchdog]);
        // The keeper only goes away when the daemon ends.
        let _ended = passes.send(key.clone());
        let _ended = looks.send(key.clone());
        on_pass(key);
    })
    .await;
    systemd(&[sd_notify::NotifyState::Stopping]);
    for task in [pruner, storage, heart, deadlines, projector, ways_out] {
        task.abort();
    }
    keeper.abort();
    if at_end == AtEnd::StopAgents {
        for record in ledger.agents().await?.items {
            if let Err(error) = host.runtime.stop(&record.name).await {
                tracing::error!(agent = %record.name, error = error.chain(), "the agent could not be stopped");
            }
        }
    }
    remove_socket(&layout.admin_socket());
    tracing::info!("daemon has ended");
    Ok(())
}

fn systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = error.to_string(), "systemd was not told");
    }
}

/// Passes feed the watchdog, so there must be one often enough.
async fn heartbeat(reconciler: Arc<Reconciler>) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        reconciler.nudge(Key::Hive);
    }
}

async fn prune(ledger: Ledger, clock: Arc<dyn Clock>) {
    let mut ticks = tokio::time::interval(PRUNE_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = ledger.prune(clock.now()).await {
            tracing::warn!(
                error = crate::error_chain(&error),
                "old rows could not be deleted"
            );
        }
    }
}

/// Opens the doors of agents that have folders, and closes those of agents that are gone.
async fn keep_doors(
    host: Host,
    ledger: Ledger,
    mut doors: AgentDoors,
    mut passed: mpsc::UnboundedReceiver<Key>,
) {
    while let Some(key) = passed.recv().await {
        let Key::Agent(name) = key else { continue };
        match ledger.record(&name).await {
            Ok(Some(record)) => keep_door(&host, &mut doors, &name, &record.life).await,
            Ok(None) => doors.close(&name),
            Err(error) => {
                tracing::warn!(agent = %name, error = crate::error_chain(&error), "door not looked at");
            }
        }
    }
}

async fn keep_door(host: &Host, doors: &mut AgentDoors, name: &AgentName, life: &AgentLife) {
    if !matches!(life, AgentLife::Active) {
        doors.close(name);
        return;
    }
    if doors.is_open(name) {
        return;
    }
    // After a reboot the run folder is empty.
    if let Err(error) = host.folders.prepare(name).await {
        tracing::error!(agent = %name, error = error.chain(), "the agent's folders cannot be made");
        return;
    }
    if let Err(error) = doors.open(name) {
        tracing::error!(agent = %name, error = crate::error_chain(&error), "the agent's socket cannot be opened");
    }
}

fn io_error(op: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::Io { op, path, source }
}

fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, ServeError> {
    camino::absolute_utf8(path).map_err(io_error("find", path))
}

/// Checks what can be checked before anything is touched, then makes the folders.
fn prepare(args: &ServeArgs) -> Result<Layout, ServeError> {
    let layout = Layout::new(absolute(&args.state)?, absolute(&args.run)?);
    check_path(&layout.admin_socket())?;
    let private = [
        layout.state().to_owned(),
        layout.repos(),
        layout.systems(),
        layout.incoming(),
        layout.builds(),
        layout.agents(),
    ];
    for (folder, mode) in private
        .iter()
        .map(|folder| (folder.as_path(), 0o700))
        .chain([(layout.run(), 0o750)])
    {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder);
        made.map_err(io_error("make the folder", folder))?;
    }
    Ok(layout)
}

/// Makes sure that a daemon with these arguments would be the only one in its folders.
///
/// # Errors
/// When another has them, or they cannot be used.
pub async fn check_free(args: &ServeArgs) -> Result<(), ServeError> {
    Ok(lock::take(&prepare(args)?).await.map(drop)?)
}

/// Removes all that an earlier daemon with these arguments left: agents that still run, then its files.
///
/// # Errors
/// When a daemon has the folders, or an agent cannot be stopped; then nothing is removed.
pub async fn clear(args: &ServeArgs) -> Result<(), ServeError> {
    let layout = prepare(args)?;
    let _lock = lock::take(&layout).await?;
    // Stopping needs no sandbox.
    let sandbox = Sandbox::None {
        why: "nothing is started".to_owned(),
    };
    let runtime = ProcessRuntime::new(ProcessOptions {
        layout: layout.clone(),
        sandbox,
        launcher: Vec::new(),
        grace: DEFAULT_GRACE,
        unsafe_no_sandbox: false,
        clock: Arc::new(SystemClock),
        notify: Arc::new(|_| {}),
    })?;
    for entry in entries(&layout.agents())? {
        if let Some(agent) = entry.file_name().and_then(|name| name.parse::<AgentName>().ok()) {
            runtime.stop(&agent).await?;
        }
    }
    // The lock is held to the end, so its file stays.
    let lock = layout.lock();
    let left = entries(layout.state())?.into_iter().chain(entries(layout.run())?);
    for path in left.filter(|path| *path != lock) {
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Everything plans are made from, read from the folders of a daemon that is down.
///
/// # Errors
/// When a daemon runs, or something cannot be read.
pub async fn export(args: &ServeArgs) -> Result<Export, ServeError> {
    let layout = Layout::new(absolute(&args.state)?, absolute(&args.run)?);
    if ledger::is_missing(&layout.ledger()).map_err(Box::new)? {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        return Err(io_error("find the ledger", &layout.ledger())(missing));
    }
    let _lock = lock::take(&layout).await?;
    lost::check(&layout)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = Arc::new(RandomIds);
    let ledger = Ledger::open(&layout.ledger(), clock.now(), ids.hive_id())
        .await
        .map_err(Box::new)?;
    let link = Arc::new(Link::new(Arc::clone(&clock)));
    let (ended, _nobody_starts) = mpsc::unbounded_channel();
    let host = host(args, &layout, clock, ids, &link, ended).await?;
    let settings = Settings {
        harness: default_harness(args).await?,
        max_transitions: 1,
    };
    let (reconciler, _nudged) = Reconciler::new(host, ledger, settings);
    Ok(reconciler.export().await?)
}

fn entries(folder: &Utf8Path) -> Result<Vec<Utf8PathBuf>, ServeError> {
    let listed = folder.read_dir_utf8().and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path().to_owned()))
            .collect()
    });
    listed.map_err(io_error("list", folder))
}

fn remove_socket(path: &Utf8Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(error = error.to_string(), "the admin socket was not removed");
    }
}

/// The folders in which programs are looked for, as a shell would.
#[expect(
    clippy::disallowed_methods,
    reason = "PATH is how a system says where its programs are"
)]
pub(crate) fn search_path() -> OsString {
    std::env::var_os("PATH")
        .unwrap_or_else(|| "/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin".into())
}

fn own_program() -> Result<Utf8PathBuf, ServeError> {
    let path = std::env::current_exe().map_err(io_error("find", Utf8Path::new("this program")))?;
    Utf8PathBuf::from_path_buf(path)
        .map_err(|_| ServeError::NoProgram("this program at a path that is UTF-8"))
}

pub(crate) fn harness_program(args: &ServeArgs) -> Result<Utf8PathBuf, ServeError> {
    if let Some(harness) = &args.harness {
        return absolute(harness);
    }
    let beside = own_program()?.with_file_name("hive-harness");
    if beside.is_file() {
        Ok(beside)
    } else {
        Err(ServeError::NoProgram("hive-harness beside the hive program"))
    }
}

/// The spec as it is now, if it can be read.
async fn declared(args: &ServeArgs) -> Result<Option<Spec>, ServeError> {
    let text = SpecAt(absolute(&args.spec)?).read().await.unwrap_or_default();
    Ok(spec::parse(&text).spec)
}

/// The harness of agents whenever the spec names none. It need not be there while the spec does.
async fn default_harness(args: &ServeArgs) -> Result<Utf8PathBuf, ServeError> {
    match declared(args).await?.and_then(|spec| spec.harness) {
        Some(harness) => Ok(harness_program(args).unwrap_or_else(|_| harness.into())),
        None => harness_program(args),
    }
}

async fn process_runtime(
    layout: &Layout,
    path: &OsStr,
    declared: &RuntimeSpec,
    clock: Arc<dyn Clock>,
    notify: Notify,
) -> Result<ProcessRuntime, ServeError> {
    let sandbox = Sandbox::probe(path).await;
    if let Sandbox::None { why } = &sandbox {
        tracing::warn!(
            why,
            "no sandbox works here: only the scripted driver runs, unless unsafeNoSandbox is set"
        );
    }
    Ok(ProcessRuntime::new(ProcessOptions {
        layout: layout.clone(),
        sandbox,
        launcher: vec![own_program()?.into_string(), "launch-process".to_owned()],
        grace: DEFAULT_GRACE,
        unsafe_no_sandbox: declared.unsafe_no_sandbox,
        clock,
        notify,
    })?)
}

async fn host(
    args: &ServeArgs,
    layout: &Layout,
    clock: Arc<dyn Clock>,
    ids: Arc<RandomIds>,
    link: &Arc<Link>,
    ended: mpsc::UnboundedSender<AgentName>,
) -> Result<Host, ServeError> {
    let path = search_path();
    let git = GitRepos::find_git(&path).ok_or(ServeError::NoProgram("git"))?;
    let repos: Arc<dyn Repos> = Arc::new(GitRepos::new(layout.clone(), git));
    let spec = Arc::new(SpecAt(absolute(&args.spec)?));
    let notify: Notify = Arc::new(move |agent| {
        // The receiver only goes away when the daemon ends.
        let _ended = ended.send(agent);
    });
    // It counts for as long as this daemon runs.
    let declared = declared(args).await?;
    let (kind, declared) = declared
        .map(|spec| (spec.builder.kind, spec.runtime))
        .unwrap_or_default();
    let builder = builder::builder(kind, declared.kind, layout, &repos, &path, own_program()?).await?;
    let runtime: Arc<dyn Runtime> = match declared.kind {
        RuntimeKind::Process => {
            Arc::new(process_runtime(layout, &path, &declared, Arc::clone(&clock), notify).await?)
        }
        RuntimeKind::Nspawn => {
            let options = NspawnOptions {
                layout: layout.clone(),
                clock: Arc::clone(&clock),
                notify,
            };
            Arc::new(NspawnRuntime::new(options).await?)
        }
    };
    Ok(Host {
        clock,
        ids,
        runtime,
        builder,
        repos,
        folders: Arc::new(AgentFolders::new(layout.clone())),
        staging: Arc::new(StagedFiles::new(layout.clone())),
        harness: Arc::clone(link) as _,
        spec,
        own_process: Arc::new(ProcSelf),
    })
}
