//! A guest that is nothing but a harness: what is measured with it is the container, and not a system inside.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
use tokio::signal::unix::{SignalKind, signal};

use crate::{guest, program};

/// Where it is put. Its hash is nobody's.
pub(super) const SYSTEM: &str = "/nix/store/11111111111111111111111111111111-bare-guest";

/// What systemd-nspawn sends to have it stop: `SIGRTMIN+3`.
const STOP: i32 = 37;

/// The agent's user inside.
const AGENT: u32 = crate::agent::AGENT;

/// Puts the guest's system into the store.
pub(super) fn install() -> Result<Utf8PathBuf> {
    let full = fs::read_to_string(guest::system()?.join("init")).context("reading the other guest's init")?;
    // The same root as the full guest has; only what is PID 1 in the end is another.
    let init = full.replace(
        "exec /lib/systemd/systemd",
        &format!("exec {SYSTEM}/testbed init"),
    );
    fs::create_dir_all(SYSTEM).with_context(|| format!("making {SYSTEM}"))?;
    program::run("cp", ["/usr/local/bin/testbed", SYSTEM])?;
    let path = format!("{SYSTEM}/init");
    fs::write(&path, init).with_context(|| format!("writing {path}"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("marking {path}"))?;
    Ok(SYSTEM.into())
}

/// PID 1 of that guest: starts the harness, says that it is up, and ends when it is told to.
pub(crate) fn init() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime of PID 1")?;
    runtime.block_on(async {
        let mut stop = signal(SignalKind::from_raw(STOP)).context("waiting for the end")?;
        let mut harness = Command::new("/config/hive-harness")
            .arg("serve")
            .uid(AGENT)
            .gid(AGENT)
            .spawn()
            .context("starting the harness")?;
        let socket = std::env::var_os("NOTIFY_SOCKET").context("there is nobody to tell")?;
        tell(&socket, b"READY=1")?;
        stop.recv().await;
        harness.kill().context("ending the harness")?;
        harness.wait().context("waiting for the harness")?;
        Ok(())
    })
}

fn tell(socket: &OsStr, what: &[u8]) -> Result<()> {
    let sender = UnixDatagram::unbound().context("making a socket")?;
    sender
        .send_to(what, socket)
        .context("telling that it is up")
        .map(drop)
}
