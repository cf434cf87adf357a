//! A hive is installed, and its agents come up.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::agent::AGENT;
use crate::hive::{self, Hive, RUN};
use crate::{guest, program, wait};

pub(crate) fn play(_boot: u32) -> Result<Then> {
    let names = ["alice", "bob"];
    let hive = Hive::install(&json!({
        "alice": hive::declared(json!({}))?,
        "bob": hive::declared(json!({ "network": "model" }))?,
    }))?;
    hive.rests(&names)?;

    let daemon = hive.bus.unit(hive::DAEMON)?;
    let owner = fs::metadata(format!("/proc/{}", daemon.pid))?.uid();
    ensure!(owner != 0, "the daemon runs as root");

    let mut machines = hive.bus.machines()?;
    machines.sort();
    ensure!(
        machines == ["hive-alice", "hive-bob"],
        "machined knows {machines:?}"
    );
    for name in names {
        let unit = hive.bus.unit(&hive::unit_of(name))?;
        ensure!(unit.active == "active", "{name}: {unit:?}");
        let agent = hive.agent(name)?;
        guest::is_content(&agent)?;
        wait::until(
            "the host's journal of the unit has what the harness says",
            || program::run("journalctl", ["-u", &agent.unit, "--no-pager"]),
            |it| it.contains("harness started"),
        )?;
        let host = program::run(
            "systemd-run",
            [
                "--machine",
                &agent.machine,
                "--quiet",
                "--wait",
                "--pipe",
                "hostname",
            ],
        )?;
        ensure!(host.trim() == name, "inside the host is called {host}");
        belongs(
            &format!("{RUN}/agents/{name}/sock"),
            None,
            agent.base + AGENT,
            0o2755,
        )?;
        belongs(
            &format!("{RUN}/agents/{name}/sock/hive.sock"),
            None,
            agent.base + AGENT,
            0o660,
        )?;
        let user = agent.base + AGENT;
        belongs(agent.state.as_str(), Some(user), user, 0o700)?;
    }
    ensure!(
        hive.agent("alice")?.base != hive.agent("bob")?.base,
        "two agents have the same ids"
    );

    program::run(hive::HIVE, ["send", "alice", "hello"])?;
    hive.tells("hello yourself")?;
    Ok(Then::Done)
}

fn belongs(path: &str, owner: Option<u32>, group: u32, mode: u32) -> Result<()> {
    let found = fs::metadata(path).with_context(|| format!("looking at {path}"))?;
    ensure!(
        owner.is_none_or(|owner| owner == found.uid())
            && found.gid() == group
            && found.mode() & 0o7777 == mode,
        "{path} is {}:{} {:o}, not {}:{group} {mode:o}",
        found.uid(),
        found.gid(),
        found.mode() & 0o7777,
        owner.map_or_else(|| "*".to_owned(), |owner| owner.to_string()),
    );
    Ok(())
}
