//! The anchors: what cannot be had for less.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use gix::refs::FullName;
use gix::refs::file::Store;
use reconciler::host::layout::Layout;
use rusqlite::{Connection, OpenFlags, Row, ToSql};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shared::AgentName;

/// The text of a message that is sent.
pub(crate) const BODY: &str = "The page about the harbour needs a new map: the old one ends at the breakwater, and the \
    ferry has moved to the north pier. Please draw it again and tell the others when it is done. Thank you very much!";

/// More commits than the log has pages before SQLite begins anew at its start.
const WARM_UP: usize = 2000;

/// A table and one row for each commit, with every commit synced, as the ledger does it.
pub(crate) struct Commits(Connection);

impl Commits {
    /// In a file beside this one.
    pub(crate) fn beside(ledger: &Utf8Path) -> Result<Self> {
        let db = Connection::open(ledger.with_file_name("anchor.db"))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "journal_size_limit", 16 << 20)?;
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
        )?;
        // A log that grows takes the disk longer than one that is written over again, as that of a daemon in use is.
        let commits = Self(db);
        commits.0.pragma_update(None, "synchronous", "OFF")?;
        for _ in 0..WARM_UP {
            commits.one()?;
        }
        commits.0.pragma_update(None, "synchronous", "FULL")?;
        Ok(commits)
    }

    /// How long one commit takes.
    pub(crate) fn one(&self) -> Result<Duration> {
        let started = Instant::now();
        let mut insert = self.0.prepare_cached("INSERT INTO messages (body) VALUES (?1)")?;
        insert.execute([BODY])?;
        Ok(started.elapsed())
    }
}

/// How long it takes to hear of a process's end from its handle.
pub(crate) fn death() -> Result<Duration> {
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "read line"])
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let started = Instant::now();
    pidfd_send_signal(&handle, Signal::KILL)?;
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], None)?;
    let heard = started.elapsed();
    child.wait()?;
    Ok(heard)
}

/// Reads of all agents what a converged pass reads of them, and makes nothing of it.
pub(crate) struct Observations {
    layout: Layout,
    db: Connection,
    main: FullName,
    /// Each agent, its uid, and the systems that it has.
    agents: Vec<(AgentName, String, Vec<Utf8PathBuf>)>,
}

/// What the ledger keeps of an agent, by uid.
const OF_AN_AGENT: [&str; 9] = [
    "agents",
    "proposals",
    "gates",
    "builds",
    "attempts",
    "probations",
    "quarantine",
    "overrides",
    "failures",
];

impl Observations {
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
        let db = Connection::open_with_flags(layout.ledger(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.set_prepared_statement_cache_capacity(64);
        let agents = {
            let mut select = db.prepare(
                "SELECT name, uid, doc -> '$.deployed.output.system' FROM agents WHERE life <> 'archived'",
            )?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let agent = |row: rusqlite::Result<(String, String, Option<String>)>| -> Result<_> {
                let (name, uid, system) = row?;
                let system: Option<String> = system.as_deref().map(serde_json::from_str).transpose()?;
                let systems = system.into_iter().map(Utf8PathBuf::from).collect();
                Ok((name.parse()?, uid, systems))
            };
            rows.map(agent).collect::<Result<Vec<_>>>()?
        };
        Ok(Self {
            layout: layout.clone(),
            db,
            main: FullName::try_from("refs/heads/main").map_err(|error| anyhow::anyhow!("{error:#}"))?,
            agents,
        })
    }

    /// Reads it once; how many bytes and files that were, so that nothing is left out.
    pub(crate) fn read(&self) -> Result<u64> {
        let mut sum = 0;
        for (name, uid, systems) in &self.agents {
            sum += self.rows(name, uid)? + self.refs(name)? + self.folders(name)? + self.run(name)?;
            for system in systems {
                sum += u64::from(fs::exists(system.join("system.json"))?);
            }
        }
        Ok(sum)
    }

    fn rows(&self, name: &AgentName, uid: &str) -> Result<u64> {
        let snapshot = self.db.unchecked_transaction()?;
        let mut sum = self.all(
            "SELECT * FROM agents WHERE name = ?1 AND life <> 'archived'",
            &name.as_str(),
        )?;
        for table in OF_AN_AGENT {
            sum += self.all(&format!("SELECT * FROM {table} WHERE uid = ?1"), &uid)?;
        }
        let queued = "SELECT count(*) FROM messages WHERE to_addr = ?1 AND state = 'queued'";
        sum += self.all(queued, &name.as_str())?;
        snapshot.finish()?;
        Ok(sum)
    }

    fn all(&self, sql: &str, key: &dyn ToSql) -> Result<u64> {
        let mut statement = self.db.prepare_cached(sql)?;
        let columns = statement.column_count();
        let bytes = |row: &Row<'_>| -> rusqlite::Result<u64> {
            let mut sum = 0;
            for column in 0..columns {
                if let Ok(text) = row.get_ref(column)?.as_str() {
                    sum += text.len() as u64;
                }
            }
            Ok(sum)
        };
        let mut rows = statement.query([key])?;
        let mut sum = 0;
        while let Some(row) = rows.next()? {
            sum += bytes(row)?;
        }
        Ok(sum)
    }

    fn refs(&self, name: &AgentName) -> Result<u64> {
        let repo = self.layout.repo(name);
        fs::symlink_metadata(repo.join("HEAD"))?;
        let store = Store::at(repo.into_std_path_buf(), gix::hash::Kind::Sha1);
        let unreadable = |error: gix::Error| anyhow::anyhow!("{error:#}");
        let main = store
            .try_find(self.main.as_ref())
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let prefix = b"refs/tags/".as_slice().try_into().map_err(unreadable)?;
        let tags = store.iter().map_err(unreadable)?;
        let tags = tags.prefixed(prefix)?.count();
        Ok(u64::from(main.is_some()) + tags as u64)
    }

    fn folders(&self, name: &AgentName) -> Result<u64> {
        let layout = &self.layout;
        for folder in [
            layout.agent(name),
            layout.launch(name),
            layout.config(name),
            layout.agent_state(name),
            layout.sock(name),
        ] {
            fs::symlink_metadata(folder)?;
        }
        let mut sum = 0;
        for file in [layout.launch_file(name), layout.config_file(name)] {
            sum += fs::read(file)?.len() as u64;
        }
        Ok(sum)
    }

    fn run(&self, name: &AgentName) -> Result<u64> {
        let launch = self.layout.launch(name);
        let record = read_if_there(launch.join("run.json").as_std_path())?;
        if record == 0
            && let Ok(lock) = fs::File::open(launch.join("run.lock"))
        {
            flock(&lock, FlockOperation::NonBlockingLockShared)?;
        }
        Ok(record + read_if_there(launch.join("run.lock").as_std_path())?)
    }
}

fn read_if_there(path: &Path) -> Result<u64> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes.len() as u64),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
