//! What the kernel says a process has done.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// What a process has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deeds {
    /// Bytes it sent towards a disk.
    pub(crate) to_disk: u64,
    /// Bytes it gave to any write call: files, sockets, and what threads wake each other with.
    pub(crate) written: u64,
    /// Page faults of children that have ended. No program runs without any, so that the same number means no child.
    faults_of_children: u64,
    /// Children that live.
    children: BTreeSet<i32>,
    /// Ticks of a hundredth of a second on a processor.
    ticks: u64,
}

impl Deeds {
    /// Those of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        let (_, fields) = stat.rsplit_once(") ").context("a malformed stat line")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // Counted from the state, which is the third field of the line.
        let field = |number: usize| -> Result<u64> {
            let text = fields.get(number - 3).context("a short stat line")?;
            text.parse().context("a number in a stat line")
        };
        let mut children = BTreeSet::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread that has ended meanwhile has left its children to another.
            let listed = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            children.extend(
                listed
                    .split_whitespace()
                    .filter_map(|child| child.parse::<i32>().ok()),
            );
        }
        Ok(Self {
            to_disk: io(pid, "write_bytes")?,
            written: io(pid, "wchar")?,
            faults_of_children: field(11)?,
            children,
            ticks: field(14)? + field(15)?,
        })
    }

    /// Whether a child was started or has ended since.
    pub(crate) fn started_children(&self, since: &Self) -> bool {
        self.faults_of_children != since.faults_of_children || self.children != since.children
    }

    /// Time on a processor since.
    pub(crate) fn on_cpu(&self, since: &Self) -> Duration {
        Duration::from_millis(10 * (self.ticks - since.ticks))
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

fn io(pid: u32, field: &str) -> Result<u64> {
    let text = read(pid, "io")?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    value
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("no {field}"))
}

/// Resident memory of a process in MB of a million bytes.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let status = read(pid, "status")?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u32>().ok())
        .context("no VmRSS: the process has ended")?;
    Ok(f64::from(kib) * 1.024 / 1000.0)
}

/// Time that all threads of this process have spent on a processor.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
