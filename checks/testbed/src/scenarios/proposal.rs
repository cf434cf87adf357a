//! What becomes of a commit that an agent offers, with systems that Nix builds.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::agent::Agent;
use crate::bus::Unit;
use crate::hive::{self, Hive};
use crate::{guest, nix, program, proposal, wait};

/// A module that changes the system.
const TOOL: &str = r#"{ pkgs, ... }: {
  environment.etc.built.text = "by Nix";
  environment.systemPackages = [ (pkgs.writeShellScriptBin "tool" "echo tool") ];
}
"#;

/// A commit that changes an agent's system is built by Nix, asked about, deployed by one restart, and proves itself.
pub(crate) fn play(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    guest::is_content(&alice)?;
    let first = nix::deployed("alice")?;
    hive.runs("alice", &first)?;
    alice.run("agent", "echo mine > /state/kept")?;
    let before = hive.bus.unit(&alice.unit)?;

    let offered = proposal::offer(&alice, "A tool", &[("agent.nix", TOOL)])?;
    let gate = hive.gate("alice")?;
    ensure!(
        gate["class"] == "deployWidens" && gate["commit"] == offered.commit,
        "{gate}"
    );
    let shown = program::run(hive::HIVE, ["gate", "show", &gate["id"].to_string()])?;
    ensure!(
        shown.contains("tool"),
        "the gate does not show what comes: {shown}"
    );
    ensure!(
        hive.bus.unit(&alice.unit)? == before,
        "alice was touched before anybody approved"
    );
    ensure!(
        nix::deployed("alice")? == first,
        "deployed before anybody approved"
    );

    hive.approve("alice")?;
    hive.runs_again("alice", &before)?;
    hive.rests(&["alice"])?;
    proposal::is_deployed("alice", &offered)?;
    let second = nix::deployed("alice")?;
    ensure!(second != first, "{second} is what was deployed before");
    hive.runs("alice", &second)?;
    ensure!(
        hive.starts("alice")? == 2,
        "alice was started again more than once"
    );
    let alice = hive.agent("alice")?;
    guest::is_content(&alice)?;
    let inside = alice.run(
        "agent",
        "cat /etc/built /state/kept; readlink /run/current-system; /run/current-system/sw/bin/tool",
    )?;
    ensure!(
        inside == format!("by Nix\nmine\n{second}\ntool\n"),
        "inside is {inside:?}"
    );
    hive.tells_times(2, "passed its probation")?;

    // And back, as a commit of its own; the operator's command is the decision.
    let before = hive.bus.unit(&alice.unit)?;
    program::run(hive::HIVE, ["rollback", "alice", "--to", "0"])?;
    hive.runs_again("alice", &before)?;
    hive.rests(&["alice"])?;
    hive.runs("alice", &first)?;
    ensure!(nix::deployed("alice")? == first && hive.starts("alice")? == 3);
    alice.cannot("agent", "test -e /etc/built")?;
    ensure!(proposal::git("alice", ["rev-parse", "main^"])? == offered.commit);
    Ok(Then::Done)
}

/// A turn is not cut short by what was approved meanwhile: the restart waits for its end.
pub(crate) fn at_turn_boundary(_boot: u32) -> Result<Then> {
    let script = json!([{ "on": "work", "do": [
        { "sleep": 8000 }, { "send": { "to": "operator", "body": "worked" } },
    ] }]);
    let works = json!({ "driver": { "kind": "scripted", "script": script } });
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(works)? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = hive.bus.unit(&alice.unit)?;
    let offered = proposal::offer(&alice, "A tool", &[("agent.nix", TOOL)])?;
    hive.gate("alice")?;
    program::run(hive::HIVE, ["send", "alice", "work"])?;
    let said = || program::run("journalctl", ["-u", &alice.unit, "--output=cat", "--no-pager"]);
    wait::until("alice is at work", said, |it| it.contains("turn started"))?;
    hive.approve("alice")?;
    let deployed = || proposal::is_deployed("alice", &offered);
    wait::until("it is deployed", deployed, |()| true)?;
    ensure!(hive.bus.unit(&alice.unit)? == before, "its turn was cut short");

    hive.runs_again("alice", &before)?;
    hive.rests(&["alice"])?;
    let said = said()?;
    let stopped = "Stopping hyperhive-agent@alice.service";
    let (before, _) = said.split_once(stopped).context("it was stopped")?;
    ensure!(
        before.matches("turn started").count() == before.matches("turn over").count(),
        "it was stopped in mid-turn: {before}"
    );
    let mail = hive.ask(["inbox"])?.to_string();
    ensure!(mail.matches("worked").count() == 1, "it worked once: {mail}");
    ensure!(hive.starts("alice")? == 2);
    Ok(Then::Done)
}

/// A guest that comes up, but whose harness does not.
const BROKEN: &str = r#"{ ... }: {
  environment.etc.built.text = "broken";
  systemd.services.hive-harness.serviceConfig.ExecStartPre = "/bin/false";
}
"#;

/// A system whose harness does not come up goes back to the last good one, which both sides are told. A daemon that dies
/// meanwhile takes nothing from that.
pub(crate) fn reverted(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let (good, main) = (
        nix::deployed("alice")?,
        proposal::git("alice", ["rev-parse", "main"])?,
    );
    alice.run(
        "agent",
        "mkdir /state/deep && echo mine | tee /state/kept > /state/deep/er",
    )?;
    let before = hive.bus.unit(&alice.unit)?;

    let offered = proposal::offer(&alice, "No harness", &[("agent.nix", BROKEN)])?;
    // What the agent itself does to its state is over.
    let kept = state_of(&alice)?;
    hive.approve("alice")?;
    let broken = hive.runs_again("alice", &before)?;
    proposal::is_deployed("alice", &offered)?;
    let bad = nix::deployed("alice")?;
    ensure!(bad != good);
    hive.runs("alice", &bad)?;
    hive.kill()?;
    ensure!(
        hive.bus.unit(&alice.unit)? == broken,
        "the new daemon did not leave alice alone"
    );

    let again = wait::within(
        Duration::from_secs(110),
        "alice runs what it ran before",
        || hive.bus.unit(&alice.unit),
        |it| it.active == "active" && it.invocation != broken.invocation,
    )?;
    hive.rests(&["alice"])?;
    ensure!(
        hive.bus.unit(&alice.unit)? == again,
        "alice was started once more"
    );
    hive.runs("alice", &good)?;
    ensure!(hive.starts("alice")? == 3, "it is the third start");
    ensure!(nix::deployed("alice")? == good);
    ensure!(
        proposal::git("alice", ["rev-parse", "main"])? == main,
        "main is where it was"
    );
    ensure!(proposal::git("alice", ["rev-parse", "failed/1^{commit}"])? == offered.commit);
    proposal::git("alice", ["rev-parse", "deployed/1"])
        .err()
        .context("the tag deployed/1 is still there")?;
    let now = state_of(&alice)?;
    ensure!(now == kept, "the state was {kept}, and is {now}");
    hive.tells("failed its probation: its harness has not reported")?;
    let mail = hive.ask(["inbox", "alice"])?.to_string();
    ensure!(
        mail.contains("failed its probation: its harness has not reported"),
        "alice was told {mail}"
    );
    ensure!(hive.open_gates("alice")?.is_empty());
    Ok(Then::Done)
}

/// A guest that ends as soon as it is started is given up after a few tries, without waiting for the end of its probation.
pub(crate) fn given_up(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let good = nix::deployed("alice")?;
    let ends = r##"{ lib, ... }: { boot.initScript = lib.mkForce "#!/nowhere"; }"##;
    let offered = proposal::offer(&alice, "No init", &[("agent.nix", ends)])?;
    hive.approve("alice")?;
    hive.tells("failed its probation")?;
    hive.rests(&["alice"])?;
    hive.runs("alice", &good)?;
    guest::is_content(&alice)?;
    ensure!(
        hive.starts("alice")? == 2,
        "a guest that ended at once counts as started"
    );
    ensure!(proposal::git("alice", ["rev-parse", "failed/1^{commit}"])? == offered.commit);
    hive.tells("exited with status 1 (time 3 in a row)")?;
    Ok(Then::Done)
}

/// The host reboots while a deployment is on probation, which goes on.
pub(crate) fn rebooted(boot: u32) -> Result<Then> {
    let deployed = || proposal::git("alice", ["rev-parse", "--verify", "deployed/1^{commit}"]);
    if boot == 1 {
        let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
        hive.rests(&["alice"])?;
        let alice = hive.agent("alice")?;
        let before = hive.bus.unit(&alice.unit)?;
        proposal::offer(&alice, "Late", &[("agent.nix", LATE)])?;
        hive.approve("alice")?;
        hive.runs_again("alice", &before)?;
        wait::until("it is deployed", deployed, |_| true)?;
        ensure!(
            hive.told("passed its probation")? == 1,
            "it passed before its harness ran"
        );
        return Ok(Then::Reboot);
    }
    let hive = Hive::installed()?;
    let up = |it: &Unit| it.active == "active";
    wait::until("alice runs", || hive.bus.unit(&hive::unit_of("alice")), up)?;
    let system = nix::deployed("alice")?;
    hive.runs("alice", &system)?;
    let alice = hive.agent("alice")?;
    ensure!(alice.run("agent", "cat /etc/built")? == "late\n");
    ensure!(
        hive.told("passed its probation")? == 1,
        "it passed before its harness ran"
    );
    fs::write(alice.state.join("may-start"), "")?;
    hive.tells_times(2, "passed its probation")?;
    hive.rests(&["alice"])?;
    hive.runs("alice", &system)?;
    ensure!(deployed()? == proposal::git("alice", ["rev-parse", "main"])?);
    ensure!(hive.open_gates("alice")?.is_empty());
    Ok(Then::Done)
}

/// A harness that does not start without a file.
const LATE: &str = r#"{ ... }: {
  environment.etc.built.text = "late";
  systemd.services.hive-harness = {
    unitConfig.StartLimitIntervalSec = 0;
    serviceConfig.ExecStartPre = "/bin/sh -c 'test -e /state/may-start'";
  };
}
"#;

/// The state of an agent, but for what its harness keeps there.
fn state_of(agent: &Agent) -> Result<String> {
    let line = format!(
        "cd {} && find kept deep -printf '%p %U:%G %m %T@\n' && md5sum kept deep/er",
        agent.state
    );
    program::shell(&line)
}

/// A server that Nix builds from a file of the commit. It leaves a trace when it is started.
const SERVED: &str = r#"{ pkgs, ... }: {
  hyperhive.mcpServers.wiki = {
    command = "${pkgs.writeShellScriptBin "wiki" (builtins.readFile ./server.sh)}/bin/wiki";
    args = [ ];
  };
}
"#;
const SERVER: &str = include_str!("../../../../harness/tests/mcp-server.sh");

/// A commit that only adds an MCP server is taken up by the harness that runs: neither it nor its container is restarted.
pub(crate) fn reloaded(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = (hive.bus.unit(&alice.unit)?, harness(&alice)?);
    let system = nix::deployed("alice")?;

    let server = format!("echo started >> /state/wiki\n{SERVER}");
    let offered = proposal::offer(&alice, "A wiki", &[("agent.nix", SERVED), ("server.sh", &server)])?;
    let gate = hive.gate("alice")?;
    ensure!(
        gate["view"]["steps"].to_string().contains("without a restart"),
        "{gate}"
    );
    program::fails("test", ["-e", alice.state.join("wiki").as_str()])
        .context("it ran before it was approved")?;
    hive.approve("alice")?;
    hive.tells_times(2, "passed its probation")?;
    hive.rests(&["alice"])?;
    proposal::is_deployed("alice", &offered)?;
    let taken_up = alice.run(
        "agent",
        "cat /state/wiki && grep -o '\"/nix/store/[^\"]*/bin/wiki\"' /config/agent.json",
    )?;
    ensure!(
        taken_up.starts_with("started\n\"/nix/store/"),
        "inside is {taken_up:?}"
    );

    // The same of a prompt that the operator writes.
    hive.declare(&json!({ "alice": hive::built(json!({ "prompt": "Look after the wiki." }))? }))?;
    let written = || alice.run("agent", "cat /config/agent.json");
    wait::until("the prompt is there", written, |it| {
        it.contains("Look after the wiki.")
    })?;
    hive.rests(&["alice"])?;
    let loaded = program::run("journalctl", ["-u", &alice.unit, "--output=cat", "--no-pager"])?;
    let loaded = loaded.matches("config loaded digest=").count();
    ensure!(loaded == 3, "the harness loaded {loaded} configs, not three");

    let after = (hive.bus.unit(&alice.unit)?, harness(&alice)?);
    ensure!(before == after, "{before:?} became {after:?}");
    ensure!(hive.starts("alice")? == 1 && nix::deployed("alice")? == system);
    Ok(Then::Done)
}

/// What identifies the harness's run to the guest's systemd.
fn harness(agent: &Agent) -> Result<String> {
    let show = [
        "-M",
        &agent.machine,
        "show",
        "hive-harness.service",
        "-p",
        "InvocationID,MainPID,NRestarts",
    ];
    program::run("systemctl", show)
}
