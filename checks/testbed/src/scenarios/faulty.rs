//! What goes wrong besides agents: commits that cannot be built, a store without what was built, a full disk.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Then;
use super::apart::JOBS;
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
    let said = program::run("journalctl", ["-o", "cat", "-u", EVALUATORS])?;
    let evaluated = said.matches("Starting hyperhive-eval@").count();
    ensure!(
        evaluated > 4,
        "the seed and four commits, in {evaluated} units: {said}"
    );
    no_evaluator_is_left()?;
    Ok(Then::Done)
}

/// The units that evaluate.
pub(crate) const EVALUATORS: &str = "hyperhive-eval@*";

/// Nothing of a unit that evaluated is left.
pub(crate) fn no_evaluator_is_left() -> Result<()> {
    let left = program::run(
        "systemctl",
        ["list-units", "--all", "--no-legend", "--plain", EVALUATORS],
    )?;
    ensure!(left.trim().is_empty(), "these are left: {left}");
    let folders = fs::read_dir(JOBS).context("listing the evaluators' folders")?;
    ensure!(folders.count() == 0, "folders of evaluators are left");
    Ok(())
}

/// A commit whose build would fetch from somewhere: nothing is fetched before somebody agrees to just that host, and what is
/// built then is asked about like any other.
pub(crate) fn fetches(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let hash = program::shell("mkdir -p /tmp/fetched/bin && nix-hash --type sha256 --base32 /tmp/fetched")?;
    let module = format!(
        r#"{{ pkgs, ... }}: {{ environment.systemPackages = [ (pkgs.runCommand "fetched" {{
            outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputHash = "{}";
            url = "https://files.example/x";
        }} "echo x >> /tmp/builds; mkdir -p $out/bin") ]; }}"#,
        hash.trim()
    );
    let offered = proposal::offer(&alice, "Fetches", &[("agent.nix", &module)])?;
    let asked = hive.gate("alice")?;
    let summary = asked["view"]["summary"].as_str().unwrap_or_default();
    ensure!(
        asked["class"] == "build" && summary.ends_with("fetching from files.example"),
        "{asked}"
    );
    hive.kill()?;
    ensure!(hive.gate("alice")? == asked, "{asked} became another");
    ensure!(!fs::exists("/tmp/builds")?, "it was built before anybody agreed");
    hive.approve("alice")?;
    let deployment = |it: &Vec<Value>| {
        it.iter()
            .any(|it| it["commit"] == offered.commit && it["class"] != "build")
    };
    wait::until(
        "the deployment is asked about",
        || hive.open_gates("alice"),
        deployment,
    )?;
    ensure!(fs::read_to_string("/tmp/builds")?.lines().count() == 1);
    let before = hive.bus.unit(&alice.unit)?;
    hive.approve("alice")?;
    hive.runs_again("alice", &before)?;
    hive.rests(&["alice"])?;
    proposal::is_deployed("alice", &offered)?;
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

/// Nix's daemon dies in mid-build, and is not there at the next: neither is the commit's fault, and both are built.
pub(crate) fn nix_away(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    program::run("mkfifo", ["/tmp/may-build"])?;
    let slow = r#"{ pkgs, ... }: { environment.systemPackages = [
        (pkgs.runCommand "slow" { } "echo x >> /tmp/builds; read line < /tmp/may-build; mkdir -p $out/bin")
    ]; }"#;
    let builds = || Ok(fs::read_to_string("/tmp/builds")?.lines().count());

    let offered = proposal::offer(&alice, "Slow", &[("agent.nix", slow)])?;
    wait::until("Nix builds", builds, |it| *it == 1)?;
    hive.bus.kill(nix::DAEMON, "all", 9)?;
    wait::until("Nix builds again", builds, |it| *it == 2)
        .with_context(|| program::any(hive::HIVE, ["logs", "alice", "--build"]).unwrap_or_default())?;
    fs::write("/tmp/may-build", "now\n")?;
    let gate = hive.gate("alice")?;
    ensure!(gate["commit"] == offered.commit, "{gate}");

    hive.bus.stop(nix::DAEMON)?;
    let down = |it: &Unit| it.active == "inactive";
    wait::until("Nix's daemon is down", || hive.bus.unit(nix::DAEMON), down)?;
    let other = "{ ... }: { environment.etc.built.text = \"by Nix\"; }";
    let offered = proposal::offer(&alice, "Other", &[("agent.nix", other)])?;
    hive.until("the next try is named", ["status", "alice"], |it| {
        it.to_string().contains("the Nix store cannot be used")
    })?;
    hive.bus.start(nix::DAEMON)?;
    nix::listens()?;
    program::any(hive::HIVE, ["retry", "alice"])?;
    let of_it = |it: &Vec<Value>| it.iter().any(|it| it["commit"] == offered.commit);
    wait::until("it is asked about", || hive.open_gates("alice"), of_it)?;
    ensure!(hive.told("is not built")? == 0);
    Ok(Then::Done)
}

/// What Nix built is gone from the store: it is built again, whether its agent runs, does not, or is still to get it.
pub(crate) fn vanished(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let unit = || hive.bus.unit(&alice.unit);
    let (system, running) = (nix::deployed("alice")?, unit()?);
    nix::lose(&system)?;
    hive.kill()?;
    wait::until("it is built again", || nix::has(&system), |it| *it)?;
    hive.rests(&["alice"])?;
    ensure!(unit()? == running, "alice was touched");

    program::run(hive::HIVE, ["stop", "alice"])?;
    let down = |it: &Unit| it.active == "inactive";
    let stopped = wait::until("alice is stopped", unit, down)?;
    nix::lose(&system)?;
    program::run(hive::HIVE, ["start", "alice"])?;
    let started = hive.runs_again("alice", &stopped)?;
    hive.rests(&["alice"])?;
    hive.runs("alice", &system)?;
    ensure!(nix::deployed("alice")? == system);

    let module = "{ ... }: { environment.etc.built.text = \"by Nix\"; }";
    let offered = proposal::offer(&hive.agent("alice")?, "Built", &[("agent.nix", module)])?;
    hive.gate("alice")?;
    nix::lose(&nix::newest("alice")?)?;
    hive.approve("alice")?;
    hive.runs_again("alice", &started)?;
    hive.rests(&["alice"])?;
    proposal::is_deployed("alice", &offered)?;
    let system = nix::deployed("alice")?;
    hive.runs("alice", &system)?;
    ensure!(nix::has(&system)?);
    Ok(Then::Done)
}

/// How long a turn takes before it has something to write.
const WORK: Duration = Duration::from_millis(2500);

/// With no room left for the state folder the daemon says so and lives; agents go on, and with room again so does all.
pub(crate) fn full(_boot: u32) -> Result<Then> {
    program::run(
        "mount",
        ["-t", "tmpfs", "-o", "size=48M,mode=755", "tmpfs", STATE],
    )?;
    let send = |body: &str| json!({ "send": { "to": "operator", "body": body } });
    let script = json!([
        { "on": "hello", "do": [send("hello yourself")] },
        { "on": "work", "do": [{ "sleep": WORK.as_millis() }, send("worked")] },
    ]);
    let driver = json!({ "driver": { "kind": "scripted", "script": script } });
    let hive = Hive::install(&json!({ "alice": hive::declared(driver)? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = (hive.bus.unit(&alice.unit)?, hive.bus.unit(hive::DAEMON)?);
    program::run(hive::HIVE, ["send", "alice", "work"])?;
    let journal = || program::run("journalctl", ["-u", &alice.unit, "--output=cat", "--no-pager"]);
    wait::until("alice is at work", journal, |it| it.contains("turn started"))?;
    let begun = Instant::now();
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

    let longer = |it: &Duration| *it > 2 * WORK;
    wait::until("its work is over", || Ok(begun.elapsed()), longer)?;
    ensure!(
        !journal()?.contains("turn over"),
        "its turn ended with nothing written"
    );

    fs::remove_file(&filling).context("making room")?;
    let sent = || program::run(hive::HIVE, ["send", "alice", "hello"]);
    wait::until("a message is accepted", sent, |_| true)?;
    // What the agent wrote while there was no room is not lost.
    hive.tells("worked")?;
    hive.tells("hello yourself")?;
    hive.rests(&["alice"])?;
    ensure!(
        (hive.bus.unit(&alice.unit)?, hive.bus.unit(hive::DAEMON)?) == before,
        "somebody was restarted"
    );
    Ok(Then::Done)
}
