//! What goes wrong besides agents: commits that cannot be built, a store without what was built, a full disk.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::bus::Unit;
use crate::hive::{self, Hive, STATE};
use crate::{nix, program, proposal, wait};

/// A commit that cannot be built opens no gate and touches nobody. Agent and operator are told why, in Nix's own words.
pub(crate) fn commits(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = (
        hive.bus.unit(&alice.unit)?,
        nix::deployed("alice")?,
        proposal::git("alice", ["rev-parse", "main"])?,
    );
    let broken = r#"{ pkgs, ... }: { environment.systemPackages = [
        (pkgs.runCommand "broken" { } "i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line $i; done; echo last words >&2; exit 3")
    ]; }"#;
    for (module, told, logged) in [
        (broken, "last words", "line 1\n"),
        (
            "{ ... }: { environment.etc.x.text = throw \"no way\"; }",
            "no way",
            "no way",
        ),
        (
            "{ ... }: { environment.etc.x.text = let x = x; in x; }",
            "infinite recursion",
            "agent.nix",
        ),
        (
            "{ ... }: { networking.hostName = \"bob\"; }",
            "networking.hostName",
            "conflicting",
        ),
    ] {
        let offered = proposal::offer(&alice, "Broken", &[("agent.nix", module)])?;
        told_of(&hive, &offered, told).with_context(|| format!("after {module}"))?;
        let log = program::run(hive::HIVE, ["logs", "alice", "--build", "--lines", "1000"])?;
        ensure!(
            log.contains(told) && log.contains(logged),
            "the log of {module} is {log}"
        );
    }
    let after = (
        hive.bus.unit(&alice.unit)?,
        nix::deployed("alice")?,
        proposal::git("alice", ["rev-parse", "main"])?,
    );
    ensure!(before == after, "{before:?} became {after:?}");
    hive.rests(&["alice"])?;
    Ok(Then::Done)
}

/// The proposal failed without a gate, and both sides know why.
fn told_of(hive: &Hive, offered: &proposal::Offered, why: &str) -> Result<()> {
    hive.tells(why)?;
    let tag = format!("failed/{}^{{commit}}", offered.number);
    wait::until(
        "the proposal failed",
        || proposal::git("alice", ["rev-parse", "--verify", &tag]),
        |it| *it == offered.commit,
    )?;
    let mail = hive.ask(["inbox", "alice"])?.to_string();
    ensure!(mail.contains(why), "alice was told {mail}");
    let gates = hive.ask(["gate", "list", "--all"])?;
    let asked = gates.as_array().context("gates")?.iter();
    let deployments = asked.filter(|it| it["proposal"] == offered.number && it["class"] != "build");
    ensure!(deployments.count() == 0, "there was a gate: {gates}");
    Ok(())
}

/// What Nix built is gone from the store while its agent does not run: it is built again, and the agent runs from it.
pub(crate) fn vanished(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let system = nix::deployed("alice")?;
    program::run(hive::HIVE, ["stop", "alice"])?;
    let unit = || hive.bus.unit(&alice.unit);
    let down = |it: &Unit| it.active == "inactive";
    let stopped = wait::until("alice is stopped", unit, down)?;
    program::run("nix-store", ["--delete", "--ignore-liveness", system.as_str()])?;
    ensure!(!system.exists());
    program::run(hive::HIVE, ["start", "alice"])?;
    hive.runs_again("alice", &stopped)?;
    hive.rests(&["alice"])?;
    hive.runs("alice", &system)?;
    ensure!(nix::deployed("alice")? == system);
    program::run("nix-store", ["--verify-path", system.as_str()])?;
    Ok(Then::Done)
}

/// With no room left for the state folder the daemon says so and lives; agents go on, and with room again so does all.
pub(crate) fn full(_boot: u32) -> Result<Then> {
    program::run(
        "mount",
        ["-t", "tmpfs", "-o", "size=48M,mode=755", "tmpfs", STATE],
    )?;
    let hive = Hive::install(&json!({ "alice": hive::declared(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = (hive.bus.unit(&alice.unit)?, hive.bus.unit(hive::DAEMON)?);
    let filling = format!("{STATE}/filling");
    program::fails("dd", ["if=/dev/zero", &format!("of={filling}"), "bs=64k"])
        .context("the disk is not full")?;

    let refused = || program::fails(hive::HIVE, ["send", "alice", &"fill ".repeat(1000)]);
    let refused = wait::until("a message is refused", refused, |_| true)?;
    ensure!(refused.contains("full") || refused.contains("space"), "{refused}");
    hive.until("status says so", ["status"], |it| it.to_string().contains("disk"))?;
    ensure!(
        (hive.bus.unit(&alice.unit)?, hive.bus.unit(hive::DAEMON)?) == before,
        "somebody was restarted"
    );

    fs::remove_file(&filling).context("making room")?;
    let sent = || program::run(hive::HIVE, ["send", "alice", "hello"]);
    wait::until("a message is accepted", sent, |_| true)?;
    hive.tells("hello yourself")?;
    hive.rests(&["alice"])?;
    ensure!(
        (hive.bus.unit(&alice.unit)?, hive.bus.unit(hive::DAEMON)?) == before,
        "somebody was restarted"
    );
    Ok(Then::Done)
}
