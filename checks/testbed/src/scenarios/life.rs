//! Ends and beginnings: of agents, of the daemon, of the host.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::bus::Unit;
use crate::hive::{self, DAEMON, Hive, RUN, STATE};
use crate::{program, wait};

const SIGKILL: i32 = 9;

/// Every way in which an agent ends is seen, told apart, and followed by another start.
pub(crate) fn endings(_boot: u32) -> Result<Then> {
    let hive = Hive::install(&json!({ "alice": hive::declared(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    for (what, told) in [
        ("poweroff", "switched itself off"),
        ("reboot", "restarted itself"),
        ("kill", "killed by signal 9"),
        ("crash", "exited with status 1"),
    ] {
        let before = hive.bus.unit(&alice.unit)?;
        match what {
            "kill" => hive.bus.kill(&alice.unit, "main", SIGKILL)?,
            "crash" => drop(program::run(
                "kill",
                ["-9", &alice.leader(&hive.bus)?.to_string()],
            )?),
            verb => drop(program::run(
                "systemctl",
                ["-M", &alice.machine, "--force", verb],
            )?),
        }
        hive.tells(told).with_context(|| format!("after a {what}"))?;
        hive.runs_again("alice", &before)?;
        // The breaker counts ends; what an operator says sets it back.
        program::any(hive::HIVE, ["retry", "alice"])?;
        hive.rests(&["alice"])?;
    }
    Ok(Then::Done)
}

/// A daemon that dies and comes back leaves its agents alone, and has nothing to do.
pub(crate) fn adoption(_boot: u32) -> Result<Then> {
    let names = ["alice", "bob"];
    let hive = Hive::install(&json!({
        "alice": hive::declared(json!({}))?,
        "bob": hive::declared(json!({}))?,
    }))?;
    hive.rests(&names)?;
    let seen = || -> Result<Vec<(Unit, u32)>> {
        let of = |name: &str| {
            Ok((
                hive.bus.unit(&hive::unit_of(name))?,
                hive.agent(name)?.leader(&hive.bus)?,
            ))
        };
        names.into_iter().map(of).collect()
    };
    let before = seen()?;
    let events = hive.events()?.len();
    for _ in 0..3 {
        hive.kill()?;
        hive.rests(&names)?;
        let after = seen()?;
        ensure!(before == after, "{before:?} became {after:?}");
    }
    let plan = hive.ask(["plan"])?;
    let status = program::run(hive::HIVE, ["status", "--quiet"]);
    ensure!(status.is_ok(), "not everything is as declared: {plan}");
    let after = hive.events()?.split_off(events);
    let steps = after.iter().filter(|it| it["kind"] != "daemonStarted").count();
    ensure!(steps == 0, "daemons that came back did something: {after:?}");
    ensure!(hive.starts("alice")? == 1, "alice was started again");
    Ok(Then::Done)
}

/// After the host's reboot the same agents run again, with the ids and the state they had.
pub(crate) fn reboot(boot: u32) -> Result<Then> {
    let kept = "/etc/hyperhive/bases";
    let names = ["alice", "bob"];
    if boot == 1 {
        let hive = Hive::install(&json!({
            "alice": hive::declared(json!({}))?,
            "bob": hive::declared(json!({}))?,
        }))?;
        hive.rests(&names)?;
        let (alice, bob) = (hive.agent("alice")?, hive.agent("bob")?);
        alice.run("agent", "echo mine > /state/kept")?;
        fs::write(kept, format!("{} {}", alice.base, bob.base))?;
        return Ok(Then::Reboot);
    }
    let hive = Hive::installed()?;
    hive.rests(&names)?;
    let (alice, bob) = (hive.agent("alice")?, hive.agent("bob")?);
    ensure!(fs::read_to_string(kept)? == format!("{} {}", alice.base, bob.base));
    ensure!(alice.run("agent", "cat /state/kept")?.trim() == "mine");
    ensure!(hive.bus.unit(DAEMON)?.restarts == 0);
    Ok(Then::Done)
}

/// A removed agent is stopped, its archive asks, and after a purge nothing of it is left.
pub(crate) fn removal(_boot: u32) -> Result<Then> {
    let bob = hive::declared(json!({}))?;
    let hive = Hive::install(&json!({ "alice": hive::declared(json!({}))?, "bob": bob }))?;
    hive.rests(&["alice", "bob"])?;
    let alice = hive.agent("alice")?;
    alice.run(
        "agent",
        "mkdir -p /state/deep && touch /state/deep/er && chmod 0 /state/deep",
    )?;
    alice.run("root", "touch /state/of-root")?;
    let cgroup = hive.bus.unit(&alice.unit)?.cgroup;

    hive.declare(&json!({ "bob": bob }))?;
    let down = |it: &Unit| it.active == "inactive";
    wait::until("alice is stopped", || hive.bus.unit(&alice.unit), down)?;
    hive.approve("alice")?;
    wait::until(
        "alice is archived",
        || Ok(fs::exists(format!("{STATE}/agents/alice"))?),
        |it| !it,
    )?;
    program::run(hive::HIVE, ["destroy", "alice", "--purge"])?;
    hive.approve("alice")?;
    let left = || {
        let line = format!(
            "find {STATE} {RUN} /run/hyperhive-launch /var/lib/hyperhive-roots -name '*alice*' 2>/dev/null
             find {STATE} {RUN} /var/lib/hyperhive-roots -uid +{} -uid -{} 2>/dev/null
             find /sys/fs/cgroup -path '*{cgroup}*' 2>/dev/null
             true",
            alice.base - 1,
            alice.base + 65536,
        );
        program::shell(&line)
    };
    wait::until("nothing of alice is left", left, |it| it.trim().is_empty())?;
    ensure!(hive.bus.machines()? == ["hive-bob"]);
    hive.rests(&["bob"])?;
    Ok(Then::Done)
}
