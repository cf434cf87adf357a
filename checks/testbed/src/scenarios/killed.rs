//! The daemon dies while a commit is evaluated, and at each step of a deployment.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use super::faulty::{EVALUATORS, no_evaluator_is_left};
use crate::hive::{self, Hive};
use crate::{nix, program, proposal, wait};

/// A module whose build takes until somebody writes to the first file, and whose harness does not start without the second.
const SLOW: &str = r#"{ pkgs, ... }: {
  environment.systemPackages = [
    (pkgs.runCommand "slow" { } "touch /tmp/builds; read line < /tmp/may-build; mkdir -p $out/bin")
  ];
  systemd.services.hive-harness = {
    unitConfig.StartLimitIntervalSec = 0;
    serviceConfig.ExecStartPre = "/bin/sh -c 'test -e /state/may-start'";
  };
}
"#;

/// While Nix builds, with an open gate, after the approval, while the container stops and starts, and on probation: in
/// the end there was one gate, one deployment and one restart.
pub(crate) fn play(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let first = nix::deployed("alice")?;
    program::run("mkfifo", ["/tmp/may-build"])?;
    let before = hive.bus.unit(&alice.unit)?;

    let offered = proposal::offer(&alice, "Slow", &[("agent.nix", SLOW)])?;
    let builds = || Ok(fs::exists("/tmp/builds")?);
    wait::until("Nix builds", builds, |it| *it)?;
    // What it started in turn goes on: the next daemon meets it at its work.
    hive.kill_only()?;
    fs::write("/tmp/may-build", "now\n")?;

    let gate = hive.gate("alice")?;
    hive.kill()?;
    let again = hive.gate("alice")?;
    ensure!(again == gate, "{gate} became {again}");
    ensure!(
        hive.bus.unit(&alice.unit)? == before,
        "alice was touched before anybody approved"
    );

    hive.approve("alice")?;
    hive.kill()?;
    let unit = || hive.bus.unit(&alice.unit);
    wait::until("the container stops", unit, |it| {
        it.active != "active" || it.invocation != before.invocation
    })?;
    hive.kill()?;
    wait::until("the container starts", unit, |it| {
        it.invocation != before.invocation && it.active != "inactive"
    })?;
    hive.kill()?;
    let deployed = hive.runs_again("alice", &before)?;
    hive.kill()?;
    let passed = "passed its probation";
    ensure!(hive.told(passed)? == 1, "it passed before its harness ran");
    fs::write(alice.state.join("may-start"), "")?;
    hive.tells_times(2, passed)?;
    hive.rests(&["alice"])?;

    proposal::is_deployed("alice", &offered)?;
    let second = nix::deployed("alice")?;
    ensure!(second != first);
    hive.runs("alice", &second)?;
    ensure!(
        hive.bus.unit(&alice.unit)? == deployed && hive.starts("alice")? == 2,
        "one restart, no more"
    );
    let gates = hive.ask(["gate", "list", "--all"])?;
    let asked: Vec<_> = gates
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| it["askedBy"] == "agent")
        .collect();
    ensure!(
        asked.iter().filter(|it| it["class"] == "deployWidens").count() == 1,
        "there were {asked:?}"
    );
    let told = hive.events()?;
    let deployments = told.iter().filter(|it| it["kind"] == "deployed").count();
    ensure!(
        deployments == 2,
        "{deployments} deployments, not the first and this: {told:?}"
    );
    Ok(Then::Done)
}

/// A module that takes a second to evaluate.
const LONG: &str = r#"{ ... }: {
  environment.etc.long.text = toString (
    builtins.foldl' (all: _: builtins.foldl' (sum: n: sum + n) all (builtins.genList (n: n) 2000)) 0 (
      builtins.genList (n: n) 1000
    )
  );
}
"#;

/// While a commit is evaluated: the evaluator, of whom nobody hears any more, is ended, and another one is asked.
pub(crate) fn evaluating(_boot: u32) -> Result<Then> {
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(json!({}))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let offered = proposal::offer(&alice, "Long", &[("agent.nix", LONG)])?;
    let under_way = || {
        let state = "--state=activating";
        let listed = ["list-units", "--no-legend", "--plain", state, EVALUATORS];
        let listed = program::run("systemctl", listed)?;
        Ok(listed.split_whitespace().next().map(str::to_owned))
    };
    let unit = wait::until("the commit is evaluated", under_way, Option::is_some)?.context("a unit")?;
    // It will not end by itself.
    program::run("systemctl", ["kill", "--signal=STOP", &unit])?;
    let stopped = hive.bus.unit(&unit)?;
    ensure!(stopped.active == "activating", "it was over already: {stopped:?}");
    hive.kill_only()?;

    let gate = hive.gate("alice")?;
    ensure!(gate["commit"] == offered.commit, "{gate}");
    let said = program::run("journalctl", ["-o", "cat", "-u", &unit])?;
    let begun = said.matches("Starting hyperhive-eval@").count();
    ensure!(begun == 2, "it was evaluated {begun} times: {said}");
    no_evaluator_is_left()?;
    ensure!(hive.told("is not built")? == 0);
    Ok(Then::Done)
}
