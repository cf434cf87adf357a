//! A pass over a hive in which all is as it should be: the whole daemon, doors and all, but in this process, so that it
//! can be told when to look, and its cost can be told from all else.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use reconciler::cli::{LogArgs, LogFormat, ServeArgs};
use reconciler::control::Key;
use reconciler::control::serve::{AtEnd, serve_watched};
use reconciler::host::clock::{RandomIds, SystemClock};
use reconciler::host::folders::AgentFolders;
use reconciler::host::git::GitRepos;
use reconciler::host::harness_link::Link;
use reconciler::host::own_process::ProcSelf;
use reconciler::host::plain::PlainBuilder;
use reconciler::host::process::{DEFAULT_GRACE, ProcessOptions, ProcessRuntime, Sandbox};
use reconciler::host::spec_file::SpecAt;
use reconciler::host::staging::StagedFiles;
use reconciler::host::{Clock, Host, Repos};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot, watch};

use super::Effort;
use super::hive::{Hive, PROGRAM};
use super::kernel::{Deeds, own_cpu};
use super::raw::Observations;
use super::row::{Budget, Row, median, ms, number};

/// The doors that `hive serve` has.
pub(crate) async fn host(hive: &Hive) -> Result<Host> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let layout = hive.layout.clone();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let git = GitRepos::find_git(&path).context("no git")?;
    let repos: Arc<dyn Repos> = Arc::new(GitRepos::new(layout.clone(), git));
    let runtime = ProcessRuntime::new(ProcessOptions {
        layout: layout.clone(),
        sandbox: Sandbox::probe(&path).await,
        launcher: vec![PROGRAM.to_owned(), "launch-process".to_owned()],
        grace: DEFAULT_GRACE,
        unsafe_no_sandbox: false,
        clock: Arc::clone(&clock),
        notify: Arc::new(|_| {}),
    })?;
    Ok(Host {
        own_process: Arc::new(ProcSelf),
        ids: Arc::new(RandomIds),
        runtime: Arc::new(runtime),
        builder: Arc::new(PlainBuilder::new(layout.clone(), Arc::clone(&repos))),
        repos,
        staging: Arc::new(StagedFiles::new(layout.clone())),
        folders: Arc::new(AgentFolders::new(layout)),
        harness: Arc::new(Link::new(Arc::clone(&clock))),
        spec: Arc::new(SpecAt(hive.spec_path.clone())),
        clock,
    })
}

pub(crate) fn harness() -> camino::Utf8PathBuf {
    Utf8Path::new(PROGRAM).with_file_name("hive-harness")
}

pub(crate) fn measure(hive: &Hive, effort: Effort) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(passes(hive, effort.choose(9, 5)))
}

/// The processor time of this process, once it does nothing more: doors are looked after when passes are over.
async fn at_rest() -> Duration {
    let mut last = own_cpu();
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = own_cpu();
        if now - last < Duration::from_micros(300) {
            return now;
        }
        last = now;
    }
}

async fn passes(hive: &Hive, rounds: usize) -> Result<()> {
    let args = ServeArgs {
        spec: hive.spec_path.clone(),
        state: hive.layout.state().to_owned(),
        run: hive.layout.run().to_owned(),
        harness: Some(harness()),
        logging: LogArgs {
            log: "warn".to_owned(),
            log_format: LogFormat::Text,
        },
    };
    let (end, ended) = watch::channel(false);
    let (passed, mut passes) = mpsc::unbounded_channel();
    let (start, started) = oneshot::channel();
    let daemon = tokio::spawn(serve_watched(
        args,
        ended,
        AtEnd::LeaveAgents,
        // The receivers only go away when the measurement fails.
        |reconciler| drop(start.send(Arc::clone(reconciler))),
        move |_| passed.send(()).unwrap_or_default(),
    ));
    let reconciler = started.await.context("the daemon did not start")?;
    // The first looks at everything, and the first reports of the agents that run.
    while let Ok(Some(())) = tokio::time::timeout(Duration::from_secs(5), passes.recv()).await {}
    let names: Vec<_> = {
        let records = reconciler.ledger().agents().await?.complete()?;
        records.into_iter().map(|record| record.name).collect()
    };
    let count = names.len();
    let observations = Observations::new(&hive.layout)?;
    observations.read()?;
    let beside = Connection::open_with_flags(hive.layout.ledger(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // Changes with every transaction of another connection.
    let version = || beside.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));

    let (mut cpu, mut wall, mut raw_cpu, mut raw_wall) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut to_disk, mut written, mut with_children, mut with_writes) = (0, 0, 0_u64, 0_u64);
    for _ in 0..rounds {
        let (clock, started) = (own_cpu(), Instant::now());
        let read = observations.read()?;
        anyhow::ensure!(read > 0, "nothing was read");
        raw_cpu.push(own_cpu() - clock);
        raw_wall.push(started.elapsed());

        let (before, data) = (Deeds::of(std::process::id())?, version()?);
        let (clock, started) = (own_cpu(), Instant::now());
        reconciler.nudge(Key::Hive);
        for name in &names {
            reconciler.nudge(Key::Agent(name.clone()));
        }
        for _ in 0..=count {
            passes.recv().await.context("the loop has ended")?;
        }
        wall.push(started.elapsed());
        cpu.push(at_rest().await - clock);
        let after = Deeds::of(std::process::id())?;
        to_disk += after.to_disk - before.to_disk;
        written += after.written - before.written;
        with_children += u64::from(after.started_children(&before));
        with_writes += u64::from(version()? != data);
    }
    end.send_replace(true);
    daemon.await??;

    let each = |total: u64| number(total) / number(rounds as u64);
    Row::new("converged pass: time on a processor", ms(median(&cpu)), "ms")
        .of(count)
        .beside("the same reads, nothing made of them", ms(median(&raw_cpu)))
        .within(Budget::RatioAtMost(2.0))
        .note(format!("the middle of {rounds}, all threads"))
        .print()?;
    Row::new(
        "converged pass: from first nudge to last pass",
        ms(median(&wall)),
        "ms",
    )
    .of(count)
    .beside("the same reads, one after the other", ms(median(&raw_wall)))
    .print()?;
    Row::new("converged pass: bytes to disk", number(to_disk), "B")
        .of(count)
        .within(Budget::AtMost(0.0))
        .note(format!(
            "write_bytes over {rounds} passes; threads and the loop woke each other with {:.0} B a pass",
            each(written)
        ))
        .print()?;
    Row::new(
        "converged pass: ledger transactions",
        number(with_writes),
        "passes",
    )
    .of(count)
    .within(Budget::AtMost(0.0))
    .note("passes after which another connection saw a change; no step begins without one")
    .print()?;
    Row::new("converged pass: child processes", number(with_children), "passes")
        .of(count)
        .within(Budget::AtMost(0.0))
        .note("passes in which a child lived or the kernel credited one's page faults")
        .print()
}
