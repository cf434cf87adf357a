//! The real Nix of the nest, with its daemon, and a stand-in for nixpkgs.

use std::fs;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::hive::USER;
use crate::{guest, program, wait};

/// Where the nest has the recipes that hives of it are made from.
const RECIPE: &str = "/usr/local/share/testbed";
/// Nix's own daemon: Debian's `nix-bin` brings the program and no unit.
pub(crate) const DAEMON: &str = "nix-daemon.service";
/// Where it listens.
const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";
/// Where agents' generations lie.
pub(crate) const PROFILES: &str = "/nix/var/nix/profiles/hyperhive";

/// Starts Nix's daemon, and makes the folder that the hive's daemon needs.
pub(crate) fn set_up(bus: &Bus) -> Result<()> {
    fs::write(
        format!("/etc/systemd/system/{DAEMON}"),
        "[Service]\nExecStart=/usr/bin/nix-daemon\nKillMode=process\nRestart=always\nRestartSec=0\n\
         [Install]\nWantedBy=multi-user.target\n",
    )
    .context("writing the unit of Nix's daemon")?;
    bus.reload()?;
    program::run("systemctl", ["enable", "--quiet", DAEMON])?;
    bus.start(DAEMON)?;
    listens()?;
    program::run("install", ["-d", "-o", USER, "-g", USER, PROFILES])?;
    Ok(())
}

/// Waits until Nix's daemon takes connections.
pub(crate) fn listens() -> Result<()> {
    wait::until(
        "Nix's daemon listens",
        || Ok(UnixStream::connect(SOCKET)?),
        |_| true,
    )
    .map(drop)
}

/// What the spec says of the builder.
pub(crate) fn builder() -> Result<Value> {
    Ok(json!({
        "kind": "nix",
        "nixpkgs": format!("{RECIPE}/nixpkgs"),
        "guestModule": format!("{RECIPE}/guest"),
        "inputs": { "system": guest::system()? },
    }))
}

/// The operator's module that makes a system that boots.
pub(crate) fn module() -> String {
    format!("{RECIPE}/whole.nix")
}

/// The system that Nix has as the deployed one of this agent.
pub(crate) fn deployed(agent: &str) -> Result<Utf8PathBuf> {
    let profile = Utf8PathBuf::from(format!("{PROFILES}/{agent}/system"));
    let system = profile
        .canonicalize_utf8()
        .with_context(|| format!("following {profile}"))?;
    let deriver = program::run("nix-store", ["--query", "--deriver", system.as_str()])?;
    ensure!(
        deriver.trim().ends_with(".drv"),
        "{system} was not built here: Nix says its deriver is {deriver}"
    );
    Ok(system)
}

/// The system of the agent's newest generation, deployed or not.
pub(crate) fn newest(agent: &str) -> Result<Utf8PathBuf> {
    let line = format!("readlink -f \"$(ls -d {PROFILES}/{agent}/system-*-link | sort -V | tail -n 1)\"");
    Ok(program::shell(&line)?.trim().into())
}

/// Takes a path out of the store, whoever needs it.
pub(crate) fn lose(system: &Utf8Path) -> Result<()> {
    program::run("nix-store", ["--delete", "--ignore-liveness", system.as_str()])?;
    ensure!(!has(system)?, "{system} is still there");
    Ok(())
}

/// Whether the store has this path, whole.
pub(crate) fn has(system: &Utf8Path) -> Result<bool> {
    Ok(system.exists() && program::run("nix-store", ["--verify-path", system.as_str()]).is_ok())
}
