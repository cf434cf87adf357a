//! The test bed itself, without hyperhive: what the other scenarios rely on, tried with a unit written by hand in the
//! shape that the daemon's is to have.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Then;
use crate::agent::Agent;
use crate::bus::{Bus, Unit};
use crate::{guest, program, wait};

/// Outside of the range that `--private-users=pick` draws from.
const BASE: u32 = 0x7000_0000;

const MEMORY: u64 = 192 << 20;
const TASKS: u64 = 90;

const SIGKILL: i32 = 9;

/// A guest `x` in `bare@x.service`, not started yet.
fn prepare(bus: &Bus) -> Result<Agent> {
    let system = guest::system()?;
    let root = "/var/lib/hyperhive-roots/x";
    let mine = BASE + crate::agent::AGENT;
    program::shell(&format!(
        "mkdir -p /srv/state /srv/config /run/sock
         install -d -o {mine} -g {mine} -m 0700 /srv/state
         install -d -g {mine} -m 2750 /run/sock
         ln -s {} /srv/config/hive-harness",
        guest::HARNESS,
    ))?;
    let unit = format!(
        "[Service]\n\
         Type=notify\n\
         Environment=SYSTEMD_NSPAWN_LOCK=0 SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1\n\
         ExecStartPre=rm -rf {root}\n\
         ExecStartPre=mkdir -p {root}/usr {root}/etc\n\
         ExecStartPre=touch {root}/etc/os-release {root}/etc/machine-id\n\
         ExecStart=systemd-nspawn --quiet --keep-unit --machine=hive-x --hostname=x --notify-ready=yes \
         --kill-signal=SIGRTMIN+3 --link-journal=no --directory={root} --private-network \
         --private-users={BASE}:65536 --private-users-ownership=chown --bind-ro=/nix/store --bind=/srv/state:/state \
         --bind-ro=/srv/config:/config --bind=/run/sock:/run/hive {system}/init\n\
         KillMode=mixed\nSlice=machine.slice\nDelegate=yes\nTimeoutStartSec=60\nTimeoutStopSec=20\n\
         MemoryMax={MEMORY}\nTasksMax={TASKS}\nRestartForceExitStatus=133\nSuccessExitStatus=133\n"
    );
    fs::write("/run/systemd/system/bare@.service", unit).context("writing the unit")?;
    bus.reload()?;
    Ok(Agent {
        unit: "bare@x.service".to_owned(),
        machine: "hive-x".to_owned(),
        base: BASE,
        state: "/srv/state".into(),
    })
}

fn start(bus: &Bus, agent: &Agent) -> Result<Unit> {
    bus.start(&agent.unit)?;
    let settled = |it: &Unit| it.active != "activating" && it.active != "inactive";
    let unit = wait::until("the guest is ready", || bus.unit(&agent.unit), settled)?;
    ensure!(unit.active == "active", "{unit:?}");
    Ok(unit)
}

/// Waits until the unit is down and its name free, of which machined hears a moment later; how it ended.
fn ended(bus: &Bus, agent: &Agent) -> Result<Unit> {
    let down = |it: &Unit| it.active == "inactive" || it.active == "failed";
    let unit = wait::until("the guest is gone", || bus.unit(&agent.unit), down)?;
    wait::until("its name is free", || bus.machines(), Vec::is_empty)?;
    Ok(unit)
}

/// The guest boots whole, its units speak in the host's journal, and it stops at once.
pub(crate) fn guest(_boot: u32) -> Result<Then> {
    let bus = Bus::connect()?;
    let agent = prepare(&bus)?;
    let begin = Instant::now();
    start(&bus, &agent)?;
    println!("started in {} ms", begin.elapsed().as_millis());
    guest::is_content(&agent)?;
    agent.run(
        "agent",
        "test $(id -u) = 1000 && touch /state/mine && ! touch /config/mine",
    )?;
    wait::until(
        "what the guest's units say is in the host's journal of the unit",
        || program::run("journalctl", ["-u", &agent.unit, "--no-pager"]),
        |it| it.contains("harness started"),
    )?;

    let begin = Instant::now();
    bus.stop(&agent.unit)?;
    let unit = ended(&bus, &agent)?;
    let took = begin.elapsed();
    println!("stopped in {} ms", took.as_millis());
    ensure!(unit.active == "inactive" && unit.result == "success", "{unit:?}");
    ensure!(took < Duration::from_secs(2), "a guest stops at once");
    ensure!(bus.machines()?.is_empty());
    Ok(Then::Done)
}

/// Ids, networks and limits: that these checks succeed where they should.
pub(crate) fn isolation(_boot: u32) -> Result<Then> {
    let bus = Bus::connect()?;
    let agent = prepare(&bus)?;
    start(&bus, &agent)?;
    agent.has_its_own_user_range(&bus)?;
    agent.has_no_route_out(&bus)?;
    agent.does_not_see(&bus, "/var/lib/hyperhive-roots".into())?;
    agent.is_held_to_memory(&bus, MEMORY)?;
    agent.is_held_to_tasks(&bus, TASKS)?;
    Ok(Then::Done)
}

/// How systemd tells the ways apart in which a guest ends.
pub(crate) fn endings(_boot: u32) -> Result<Then> {
    let bus = Bus::connect()?;
    let agent = prepare(&bus)?;

    start(&bus, &agent)?;
    program::run("systemctl", ["-M", &agent.machine, "--force", "poweroff"])?;
    let unit = ended(&bus, &agent)?;
    ensure!(
        unit.active == "inactive" && unit.result == "success",
        "powered off: {unit:?}"
    );

    let first = start(&bus, &agent)?;
    program::run("systemctl", ["-M", &agent.machine, "--force", "reboot"])?;
    let again = |it: &Unit| it.active == "active" && it.restarts == 1;
    let second = wait::until("the guest is up again", || bus.unit(&agent.unit), again)?;
    ensure!(
        first.invocation != second.invocation,
        "rebooted: {first:?}, {second:?}"
    );

    bus.kill(&agent.unit, "main", SIGKILL)?;
    let unit = ended(&bus, &agent)?;
    ensure!(
        unit.active == "failed" && unit.result == "signal",
        "nspawn killed: {unit:?}"
    );

    start(&bus, &agent)?;
    program::run("kill", ["-9", &agent.leader(&bus)?.to_string()])?;
    let unit = ended(&bus, &agent)?;
    ensure!(
        unit.active == "failed" && unit.result == "exit-code",
        "PID 1 killed: {unit:?}"
    );
    Ok(Then::Done)
}

/// What is written on the three kinds of folders stays; `/run` does not.
pub(crate) fn reboot(boot: u32) -> Result<Then> {
    let kept = ["/etc/kept", "/var/lib/hyperhive/kept", "/nix/kept"];
    if boot == 1 {
        for path in kept.iter().chain(&["/run/kept"]) {
            fs::write(path, "").with_context(|| format!("writing {path}"))?;
        }
        return Ok(Then::Reboot);
    }
    for path in kept {
        ensure!(fs::exists(path)?, "{path} is lost");
    }
    ensure!(!fs::exists("/run/kept")?, "/run outlived the boot");
    Ok(Then::Done)
}
