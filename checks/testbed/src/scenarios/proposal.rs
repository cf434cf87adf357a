//! What becomes of a commit that an agent offers, with systems that Nix builds.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::hive::{self, Hive};
use crate::{guest, nix, program, proposal};

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
    runs(&hive, "alice", &first)?;
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
    runs(&hive, "alice", &second)?;
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
    hive.tells("passed its probation")?;
    Ok(Then::Done)
}

/// The agent's container was started from this system: its manager's command line says so, and who wrote it is root.
fn runs(hive: &Hive, name: &str, system: &camino::Utf8Path) -> Result<()> {
    let path = format!("/proc/{}/cmdline", hive.bus.unit(&hive::unit_of(name))?.pid);
    let words = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let init = system.join("init");
    ensure!(
        words.split('\0').any(|word| word == init),
        "{name} was started by {words:?}, not from {system}"
    );
    Ok(())
}
