//! The guest's system: a real systemd from a path that Nix built.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use camino::Utf8PathBuf;

use crate::agent::Agent;
use crate::{program, wait};

/// Where a nest has the harness: agents see the store and nothing else of the host.
pub(crate) const HARNESS: &str = "/nix/store/00000000000000000000000000000000-hive-harness/bin/hive-harness";

/// The store path of the guest's system.
pub(crate) fn system() -> Result<Utf8PathBuf> {
    let root = "/nix/var/nix/gcroots/guest";
    let path = fs::read_link(root).with_context(|| format!("reading {root}"))?;
    Utf8PathBuf::from_path_buf(path)
        .ok()
        .context("a store path is UTF-8")
}

/// Waits until the guest's own systemd has started everything; no unit of it may have failed.
pub(crate) fn is_content(agent: &Agent) -> Result<()> {
    let machine = agent.machine.as_str();
    let state = || {
        // It exits with a failure unless it is `running`, which is no failure to ask.
        Ok(program::run("systemctl", ["-M", machine, "is-system-running"])
            .unwrap_or_else(|error| format!("{error:#}")))
    };
    let state = wait::until("the guest's systemd is up", state, |it| {
        it.trim() == "running" || it.contains("degraded")
    })?;
    let failed = program::run("systemctl", ["-M", machine, "--failed", "--no-legend", "--plain"])?;
    ensure!(
        state.trim() == "running",
        "the guest's systemd is {}; failed: {failed}",
        state.trim()
    );
    Ok(())
}
