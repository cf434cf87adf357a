//! What an agent cannot do, and what its own daemon cannot.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::agent::AGENT;
use crate::bus::Unit;
use crate::hive::{self, Hive, RUN, STATE, USER};
use crate::{program, wait};

const MEMORY: u64 = 192 << 20;
const TASKS: u64 = 90;

/// The declared limits are the kernel's.
pub(crate) fn limits(_boot: u32) -> Result<Then> {
    let limits = json!({ "limits": { "memory": "192M", "tasks": TASKS, "cpu": "150%" } });
    let hive = Hive::install(&json!({ "alice": hive::declared(limits)? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = hive.bus.unit(&alice.unit)?;
    let quota: u64 = hive.bus.service_property(&alice.unit, "CPUQuotaPerSecUSec")?;
    ensure!(quota == 1_500_000, "the processor quota is {quota} µs a second");
    alice.is_held_to_memory(&hive.bus, MEMORY)?;
    alice.is_held_to_tasks(&hive.bus, TASKS)?;
    // What is too greedy dies; its agent goes on.
    let after = hive.bus.unit(&alice.unit)?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(Then::Done)
}

/// Ids, networks, sockets, files: agents are apart from the host and from each other.
pub(crate) fn agents(_boot: u32) -> Result<Then> {
    let hive = Hive::install(&json!({
        "alice": hive::declared(json!({}))?,
        "bob": hive::declared(json!({ "network": "model" }))?,
    }))?;
    hive.rests(&["alice", "bob"])?;
    let (alice, bob) = (hive.agent("alice")?, hive.agent("bob")?);
    for (agent, other, name) in [(&alice, &bob, "bob"), (&bob, &alice, "alice")] {
        agent.has_its_own_user_range(&hive.bus)?;
        agent.has_no_route_out(&hive.bus)?;
        agent.shares_no_namespace_with(&hive.bus, other.leader(&hive.bus)?)?;
        for path in [
            STATE,
            "/run/hyperhive-launch",
            "/etc/hyperhive",
            "/usr/local/bin/testbed",
        ] {
            agent.does_not_see(&hive.bus, path.into())?;
        }
        agent.does_not_see(&hive.bus, format!("{RUN}/admin.sock").as_str().into())?;
        agent.does_not_see(&hive.bus, other.state.as_path())?;
        agent.cannot(
            "root",
            "touch /config/x || touch /nix/store/x || touch /run/hive/x",
        )?;

        // Even one who got out of the container with the ids it has there.
        let outside = agent.base + AGENT;
        let alien = |line: &str| {
            let user = outside.to_string();
            let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
            let words = [
                uid.as_str(),
                gid.as_str(),
                "--clear-groups",
                "--",
                "/bin/sh",
                "-c",
                line,
            ];
            program::fails("setpriv", words)
        };
        let connect = |path: &str| format!("busybox nc local:{path} </dev/null");
        for path in [
            format!("{RUN}/admin.sock"),
            format!("{RUN}/agents/{name}/sock/hive.sock"),
        ] {
            let mode = fs::metadata(&path)
                .with_context(|| format!("looking at {path}"))?
                .mode();
            ensure!(mode & 0o007 == 0, "{path} is open to everybody: {mode:o}");
            alien(&connect(&path))?;
        }
        alien(&format!("ls {}", other.state))?;
        alien(&format!("ls {STATE}"))?;
        alien("ls /var/lib/hyperhive-roots/*")?;
        alien("journalctl -n 1 --quiet | grep .")?;
    }
    Ok(Then::Done)
}

/// What whoever took over the daemon's user gets from systemd: its own agents' units, and nothing else.
pub(crate) fn daemon(_boot: u32) -> Result<Then> {
    let hive = Hive::install(&json!({ "alice": hive::declared(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let call = |method: &'static str, arguments: &[&'static str]| {
        let mut words = vec!["-u", USER, "--", "busctl", "call", "org.freedesktop.systemd1"];
        words.extend([
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            method,
        ]);
        words.extend(arguments);
        words
    };
    let before = hive.bus.unit("dbus.service")?;
    for (method, arguments) in [
        (
            "StartTransientUnit",
            &[
                "ssa(sv)a(sa(sv))",
                "evil.service",
                "replace",
                "1",
                "ExecStart",
                "a(sasb)",
                "1",
                "/bin/touch",
                "2",
                "/bin/touch",
                "/evil",
                "false",
                "0",
            ][..],
        ),
        ("StopUnit", &["ss", "dbus.service", "replace"]),
        ("StartUnit", &["ss", "rescue.target", "replace"]),
        ("StartUnit", &["ss", "hyperhive-agent@x/../y.service", "replace"]),
        ("KillUnit", &["ssi", "dbus.service", "all", "9"]),
        ("KillUnit", &["ssi", "hyperhive-agent@alice.service", "all", "9"]),
        ("Reload", &[]),
        (
            "EnableUnitFiles",
            &["asbb", "1", "/tmp/evil.service", "true", "true"],
        ),
        (
            "SetUnitProperties",
            &["sba(sv)", "dbus.service", "true", "1", "CPUWeight", "t", "1"],
        ),
        ("SetEnvironment", &["as", "1", "LD_PRELOAD=/tmp/evil.so"]),
    ] {
        let said = program::fails("runuser", call(method, arguments))?;
        ensure!(
            said.contains("denied") || said.contains("authentication") || said.contains("not valid"),
            "{method} {arguments:?} failed for another reason: {said}"
        );
    }
    ensure!(!fs::exists("/evil")?);
    ensure!(hive.bus.unit("dbus.service")? == before, "dbus was touched");
    program::fails(
        "runuser",
        ["-u", USER, "--", "machinectl", "terminate", "hive-alice"],
    )?;
    program::fails(
        "runuser",
        ["-u", USER, "--", "sh", "-c", "echo >> /etc/hyperhive/hive.json"],
    )?;

    evaluators_see_the_store_alone(&hive)?;
    evaluators_see_no_folder_of_roots()?;

    // What it may: its agents' units. But the launcher does not follow a link that the daemon's user put in its way.
    program::run(hive::HIVE, ["suspend", "alice"])?;
    program::run(
        "runuser",
        call("StopUnit", &["ss", "hyperhive-agent@alice.service", "replace"]),
    )?;
    let down = |it: &Unit| it.active == "inactive" || it.active == "failed";
    let before = wait::until("alice is down", || hive.bus.unit(&alice.unit), down)?;
    let owner = fs::metadata("/etc")?.uid();
    program::run(
        "runuser",
        [
            "-u",
            USER,
            "--",
            "sh",
            "-euc",
            "cd /var/lib/hyperhive/agents/alice && mv state was && ln -s /etc state",
        ],
    )?;
    program::run(
        "runuser",
        call("StartUnit", &["ss", "hyperhive-agent@alice.service", "replace"]),
    )?;
    let refused = |it: &Unit| it.active == "failed" && it.invocation != before.invocation;
    let unit = wait::until("the launcher refuses", || hive.bus.unit(&alice.unit), refused)?;
    ensure!(unit.status != 0, "it was not the launcher that failed: {unit:?}");
    ensure!(
        fs::metadata("/etc")?.uid() == owner,
        "the launcher gave /etc away"
    );
    ensure!(hive.bus.machines()?.is_empty(), "there is a container of it");
    Ok(Then::Done)
}

/// Where evaluators have their jobs.
pub(crate) const JOBS: &str = "/run/hyperhive-eval/jobs";

/// Of the host a unit that evaluates sees the store and programs, and it writes nowhere there. Whoever runs in its place tells.
fn evaluators_see_the_store_alone(hive: &Hive) -> Result<()> {
    let unit = "hyperhive-eval@look.service";
    let folder = format!("/run/systemd/system/{unit}.d");
    // What is inaccessible is there, and nobody can look into it.
    let look = "set -e; test -e /nix/store; for gone in /etc/passwd /etc/hyperhive /var/lib/hyperhive /run/hyperhive /run/dbus \
                /srv /boot /mnt /opt; do test ! -e $gone; done; for shut in /home /root; do if ls $shut; then exit 6; fi; done; \
                for held in / /jobs /nix/store /usr /etc /var; do if touch $held/x; then exit 7; fi; done; touch /run/x /tmp/x; echo all seen";
    fs::create_dir_all(&folder).with_context(|| format!("making {folder}"))?;
    let text = format!("[Service]\nExecStart=\nExecStart=/bin/sh -xc '{look}'\n").replace('$', "$$");
    fs::write(format!("{folder}/look.conf"), text).context("writing the drop-in")?;
    hive.bus.reload()?;
    let started = program::run("systemctl", ["start", unit]);
    let said = program::run("journalctl", ["-o", "cat", "-u", unit])?;
    started.with_context(|| said.clone())?;
    ensure!(
        said.contains("\nall seen\n"),
        "it did not come to its end: {said}"
    );
    // These two are memory of its own.
    ensure!(
        !fs::exists("/run/x")? && !fs::exists("/tmp/x")?,
        "it wrote to the host"
    );
    Ok(())
}

/// A unit that evaluates mounts what the daemon's user has for it. A link there must not show it what only root reaches.
fn evaluators_see_no_folder_of_roots() -> Result<()> {
    let unit = "hyperhive-eval@planted.service";
    // Others may read the file, but nobody comes to it.
    program::shell(
        "install -d -m 0700 /srv/closed && mkdir /srv/closed/in && echo SECRET > /srv/closed/in/job.json",
    )?;
    let plant = format!("ln -s /srv/closed/in {JOBS}/planted");
    program::run("runuser", ["-u", USER, "--", "sh", "-c", &plant])?;
    // The folder itself stays where it is, and is nobody else's.
    let away = format!(
        "mv {JOBS} /run/hyperhive/jobs || rmdir {JOBS} || mv /run/hyperhive-eval /run/hyperhive/eval"
    );
    program::fails("runuser", ["-u", USER, "--", "sh", "-c", &away])?;
    program::fails("runuser", ["-u", "nobody", "--", "test", "-d", JOBS])?;
    program::fails("systemctl", ["start", unit])?;
    let said = program::run("journalctl", ["-o", "cat", "-u", unit])?;
    // What it found would be no job, and it would say so.
    ensure!(said.contains("No such file"), "it was let in: {said}");
    Ok(())
}
