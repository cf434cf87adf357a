//! What others do to agents' units and machines.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::bus::Unit;
use crate::hive::{self, Hive, unit_of};
use crate::{guest, program, wait};

const TEMPLATE: &str = "/etc/systemd/system/hyperhive-agent@.service";

/// Each is seen and named, what is the hive's is repaired, and what is not is left alone.
pub(crate) fn play(_boot: u32) -> Result<Then> {
    let alice = hive::declared(json!({}))?;
    // A guest that is stopped before its systemd is PID 1 does not hear of it, and is killed after this time.
    patience("TimeoutStopSec=5")?;
    let hive = Hive::install(&json!({ "alice": alice }))?;
    hive.rests(&["alice"])?;
    let down = |it: &Unit| it.active == "inactive" || it.active == "failed";
    let unit = || hive.bus.unit(&unit_of("alice"));

    // Started by hand, while it is to be stopped.
    program::run(hive::HIVE, ["stop", "alice"])?;
    let stopped = wait::until("alice is stopped", unit, down)?;
    hive.bus.start(&unit_of("alice"))?;
    wait::until("alice is stopped again", unit, |it| {
        down(it) && it.invocation != stopped.invocation
    })?;

    // The template is gone, and comes back.
    let template = fs::read(TEMPLATE).context("reading the template")?;
    fs::remove_file(TEMPLATE).context("removing the template")?;
    hive.bus.reload()?;
    program::run(hive::HIVE, ["start", "alice"])?;
    hive.until("the missing template is named", ["status", "alice"], |it| {
        it.to_string().contains("hive units --install")
    })?;
    fs::write(TEMPLATE, template).context("putting the template back")?;
    hive.bus.reload()?;
    program::any(hive::HIVE, ["retry", "alice"])?;
    hive.rests(&["alice"])?;

    // A unit of an agent's name that somebody else wrote, and a machine of one's name that somebody else runs.
    let foreign = unit_of("mallory");
    fs::write(
        format!("/run/systemd/system/{foreign}"),
        "[Service]\nExecStart=/bin/sleep infinity\n",
    )?;
    hive.bus.reload()?;
    hive.bus.start(&foreign)?;
    let before = wait::until("it runs", || hive.bus.unit(&foreign), |it| it.active == "active")?;
    program::shell(
        "mkdir -p /srv/other/usr /srv/other/etc && cp /usr/bin/busybox /srv/other/ && touch /srv/other/etc/os-release
         systemd-run --quiet --unit=other systemd-nspawn --quiet --keep-unit --machine=hive-carol --directory=/srv/other \
         --private-network --resolv-conf=off --timezone=off /busybox sleep 1000",
    )?;
    let carols = |it: &Vec<String>| it.contains(&"hive-carol".to_owned());
    wait::until("the other machine runs", || hive.bus.machines(), carols)?;
    let leader = hive.bus.leader("hive-carol")?;
    hive.declare(&json!({
        "alice": alice,
        "carol": hive::declared(json!({}))?,
        "mallory": hive::declared(json!({}))?,
    }))?;
    hive.until("the foreign unit is named", ["status", "mallory"], |it| {
        it.to_string()
            .contains("is not made from hyperhive-agent@.service")
    })?;
    hive.until("the foreign machine is named", ["status", "carol"], |it| {
        it.to_string().contains("another container is called hive-carol")
    })?;
    ensure!(hive.bus.unit(&foreign)? == before, "the foreign unit was touched");
    ensure!(
        hive.bus.leader("hive-carol")? == leader,
        "the foreign machine was touched"
    );

    // Out of the way, and all is well.
    hive.bus.stop(&foreign)?;
    hive.bus.stop("other.service")?;
    fs::remove_file(format!("/run/systemd/system/{foreign}"))?;
    wait::until(
        "the other machine is gone",
        || hive.bus.machines(),
        |it| !carols(it),
    )?;
    hive.bus.reload()?;
    for name in ["carol", "mallory"] {
        program::any(hive::HIVE, ["retry", name])?;
    }
    hive.rests(&["alice", "carol", "mallory"])?;
    Ok(Then::Done)
}

/// A guest that never says that it is up.
pub(crate) fn start_timeout(_boot: u32) -> Result<Then> {
    let system = guest::system()?;
    let init = fs::read_to_string(system.join("init"))?;
    let shell = init.lines().next().context("the first line names the shell")?;
    let busybox = shell.trim_start_matches("#!").trim_end_matches(" sh");
    fs::create_dir_all("/srv/silent")?;
    fs::write(
        "/srv/silent/init",
        format!("{shell}\nexec {busybox} sleep 1000\n"),
    )?;
    program::run("chmod", ["755", "/srv/silent/init"])?;
    let silent = program::run("nix-store", ["--add", "/srv/silent"])?;
    patience("TimeoutStartSec=3\nTimeoutStopSec=2")?;
    let hive = Hive::install(&json!({ "alice": hive::declared(json!({ "system": silent.trim() }))? }))?;
    let timed_out = |it: &Unit| it.active == "failed" && it.result == "timeout";
    wait::until(
        "the start times out",
        || hive.bus.unit(&unit_of("alice")),
        timed_out,
    )?;
    hive.until("status says so", ["status", "alice"], |it| {
        it.to_string().contains("did not come up")
    })?;
    // With the right system, and in as much time as it takes, it comes up.
    patience("TimeoutStopSec=2")?;
    hive.bus.reload()?;
    hive.declare(&json!({ "alice": hive::declared(json!({}))? }))?;
    program::any(hive::HIVE, ["retry", "alice"])?;
    hive.rests(&["alice"])?;
    Ok(Then::Done)
}

/// Sets times of agents' units, as an operator may.
fn patience(settings: &str) -> Result<()> {
    let folder = "/etc/systemd/system/hyperhive-agent@.service.d";
    fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
    fs::write(
        format!("{folder}/patience.conf"),
        format!("[Service]\n{settings}\n"),
    )
    .context("setting times")
}
