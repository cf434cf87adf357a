//! One container: its start and stop beside a unit that is nothing but `systemd-nspawn`, its death.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use serde_json::json;

use super::row::Row;
use super::{guest, live, median};
use crate::bus::Bus;
use crate::hive::{DAEMON, Hive, declared, unit_of};
use crate::scenarios::Then;
use crate::{program, wait};

const ROUNDS: usize = 15;
const BARE: &str = "bare.service";
/// Outside of all ranges of agents.
const BASE: u32 = 0x6fff_0000;
const ROOT: &str = "/var/lib/hyperhive-roots/bare";

pub(super) fn play(_boot: u32) -> Result<Then> {
    let system = guest::install()?;
    let hive = Hive::install(&json!({ "alice": declared(json!({ "system": system }))? }))?;
    hive.rests(&["alice"])?;
    live::death(&hive, "alice")?;
    live::by_the_operator(&hive, "alice")?;
    live::approvals(&hive, "alice")?;
    beside_bare(&hive.bus, &system)?;
    Ok(Then::Done)
}

/// What the unit of an agent does, while no daemon does anything.
fn beside_bare(bus: &Bus, system: &Utf8Path) -> Result<()> {
    bare(bus, system)?;
    program::run("systemctl", ["stop", DAEMON])?;
    let agent = unit_of("alice");
    down(bus, &agent)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fresh_root()?;
        bare.push(cycle(bus, BARE)?);
        ours.push(cycle(bus, &agent)?);
    }
    let middle =
        |times: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| median(&times.iter().map(of).collect::<Vec<_>>());
    let start = |times: &[(f64, f64)]| middle(times, |it| it.0);
    Row::new(
        "container start: the unit, from its begin to its being up",
        start(&ours)?,
        "ms",
    )
    .beside(
        "systemd-nspawn alone with the same guest, its root made before",
        start(&bare)?,
    )
    .ratio_at_most(1.15)
    .note("root made anew, folders and sockets given to the guest's users, by `hive launch`")
    .print()?;
    let stop = |times: &[(f64, f64)]| middle(times, |it| it.1);
    Row::new("container stop: `systemctl stop`", stop(&ours)?, "ms")
        .beside("the same of systemd-nspawn alone", stop(&bare)?)
        .note("its end noted and its root deleted, by `hive wipe`")
        .print()
}

/// One start and one stop; how long each took, in milliseconds: the start as systemd noted it, the stop, of which it keeps
/// no note, as who asked for it waited.
fn cycle(bus: &Bus, unit: &str) -> Result<(f64, f64)> {
    bus.start(unit)?;
    wait::until("the unit is up", || bus.unit(unit), |it| it.active == "active")?;
    let up = bus.times(unit)?;
    let begin = Instant::now();
    program::run("systemctl", ["stop", unit])?;
    let stopped = begin.elapsed().as_secs_f64() * 1000.0;
    wait::until("its name is free", || bus.machines(), Vec::is_empty)?;
    Ok((up.active_enter - up.inactive_exit, stopped))
}

fn down(bus: &Bus, unit: &str) -> Result<()> {
    bus.stop(unit)?;
    wait::until(
        "the unit is down",
        || bus.unit(unit),
        |it| it.active == "inactive",
    )
    .map(drop)
}

/// Makes the bare guest's root, which is not measured.
fn fresh_root() -> Result<()> {
    program::shell(&format!(
        "rm -rf {ROOT}
         mkdir -p {ROOT}/usr {ROOT}/etc
         touch {ROOT}/etc/os-release {ROOT}/etc/machine-id
         chown -R {BASE}:{BASE} {ROOT}"
    ))
    .map(drop)
}

/// A unit that does as little as the same container can be had with.
fn bare(bus: &Bus, system: &Utf8Path) -> Result<()> {
    let root = ROOT;
    let mine = BASE + crate::agent::AGENT;
    program::shell(&format!(
        "mkdir -p /srv/state /srv/config /run/sock
         install -d -o {mine} -g {mine} -m 0700 /srv/state
         ln -sf {} /srv/config/hive-harness",
        crate::guest::HARNESS
    ))?;
    let unit = format!(
        "[Service]\nType=notify\nEnvironment=SYSTEMD_NSPAWN_LOCK=0 SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1\n\
         ExecStart=systemd-nspawn --quiet --keep-unit --machine=bare --hostname=bare --notify-ready=yes \
         --kill-signal=SIGRTMIN+3 --link-journal=no --directory={root} --private-network \
         --private-users={BASE}:65536 --private-users-ownership=chown --bind-ro=/nix/store --bind=/srv/state:/state \
         --bind-ro=/srv/config:/config --bind=/run/sock:/run/hive {system}/init\n\
         KillMode=mixed\nSlice=machine.slice\nDelegate=yes\n"
    );
    let path = format!("/run/systemd/system/{BARE}");
    fs::write(&path, unit).with_context(|| format!("writing {path}"))?;
    bus.reload()
}
