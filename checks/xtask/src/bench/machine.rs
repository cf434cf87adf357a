//! On what was measured, for whoever compares two runs.

use std::fmt;
use std::fs;
use std::thread;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// The machine, and how busy it was with other things.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    memory_mb: u64,
    kernel: String,
    /// The load of the last minute, before and after.
    load: [String; 2],
}

impl Machine {
    /// Before measuring.
    pub(crate) fn before() -> Result<Self> {
        let field = |file: &str, name: &str| -> Option<String> {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?.to_owned();
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Ok(Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            memory_mb: kib / 1000,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .context("reading the kernel's version")?
                .trim()
                .to_owned(),
            load: [load()?, String::new()],
        })
    }

    /// After measuring.
    pub(crate) fn after(self) -> Result<Self> {
        let [before, _] = self.load;
        Ok(Self {
            load: [before, load()?],
            ..self
        })
    }
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("reading the load")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cores,
            processor,
            memory_mb,
            kernel,
            load: [before, after],
        } = self;
        write!(
            f,
            "{cores} cores ({processor}), {memory_mb} MB, Linux {kernel}; load {before} before, {after} after"
        )
    }
}
