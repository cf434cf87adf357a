//! What `hive doctor` says of a host as it should be, and of one on which this or that is not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Then;
use crate::hive::{self, Hive};
use crate::{nix, program, wait};

const TEMPLATE: &str = "/etc/systemd/system/hyperhive-agent@.service";
const RULE: &str = "/etc/polkit-1/rules.d/50-hyperhive.rules";
const SPEC: &str = "/etc/hyperhive/hive.json";
const KEY: &str = "/etc/credstore/hyperhive-api-key";
const EGRESS: &str = "hyperhive-egress.service";
/// Someone who operates the hive and is not root.
const OPERATOR: &str = "olga";

pub(crate) fn play(_boot: u32) -> Result<Then> {
    fs::create_dir_all("/etc/credstore")?;
    fs::write(KEY, "sk-key")?;
    let hive = Hive::install(&json!({
        "alice": hive::declared(json!({
            "network": "hosts",
            "egress": ["listed.example"],
            "driver": { "kind": "acp", "command": "/bin/true" },
            "limits": { "memory": "1G" },
        }))?,
    }))?;
    program::run("systemctl", ["enable", "--now", "--quiet", EGRESS])?;
    hive.rests(&["alice"])?;
    program::run("useradd", ["--groups", "hyperhive", OPERATOR])?;

    content(&hive, "nothing is wrong")?;
    let seen = hive.ask(["doctor"])?;
    for check in [
        "unit files",
        "loaded units",
        "polkit",
        "users",
        "egress doors",
        "user ids",
    ] {
        ensure!(said(&seen, check).is_some(), "{check} was not looked at: {seen}");
    }
    let polkit = said(&seen, "polkit").unwrap_or_default();
    ensure!(
        polkit.contains("lets the daemon start"),
        "polkit was not asked: {polkit}"
    );
    told(&as_operator()?, &["state folder"])?;

    unit_files(&hive)?;
    rights(&hive)?;
    room_for_agents()?;

    program::run("systemctl", ["stop", EGRESS])?;
    told(&hive.ask(["doctor"])?, &["egress doors", "egress service"])?;
    program::run("systemctl", ["start", EGRESS])?;
    content(&hive, "the way out is back")?;

    // Without the daemon all else is seen as before.
    program::run("systemctl", ["stop", hive::DAEMON])?;
    told(&hive.ask(["doctor"])?, &["daemon"])?;
    told(&as_operator()?, &["daemon", "state folder"])?;
    hive.start()?;
    content(&hive, "the daemon is back")?;
    Ok(Then::Done)
}

/// The same of a host that builds with Nix.
pub(crate) fn nix(_boot: u32) -> Result<Then> {
    let module = "/srv/more.nix";
    fs::write(module, "{ }")?;
    let more = json!({ "modules": [nix::module(), module] });
    let hive = Hive::install_with_nix(&json!({ "alice": hive::built(more)? }))?;
    hive.rests(&["alice"])?;
    content(&hive, "nothing is wrong")?;
    let seen = hive.ask(["doctor"])?;
    for check in ["nix", "nix daemon", "nix inputs", "nix profiles", "nix store"] {
        ensure!(said(&seen, check).is_some(), "{check} was not looked at: {seen}");
    }

    hive.bus.stop(nix::DAEMON)?;
    let down = |it: &Value| failed(it, "nix daemon");
    let seen = wait::until("Nix's daemon is missed", || hive.ask(["doctor"]), down)?;
    told(&seen, &["nix daemon"])?;
    hive.bus.start(nix::DAEMON)?;
    nix::listens()?;

    program::run("chown", ["root", nix::PROFILES])?;
    told(&hive.ask(["doctor"])?, &["nix profiles"])?;
    program::run("chown", [hive::USER, nix::PROFILES])?;

    fs::remove_file(module)?;
    let seen = told(&hive.ask(["doctor"])?, &["nix inputs"])?;
    ensure!(
        seen.contains("agents.alice.modules[1]") && seen.contains(module),
        "{seen}"
    );
    fs::write(module, "{ }")?;
    content(&hive, "all is right again")?;
    Ok(Then::Done)
}

/// A unit file that somebody changed, and one that systemd has not read again.
fn unit_files(hive: &Hive) -> Result<()> {
    let template = fs::read_to_string(TEMPLATE).context("reading the template")?;
    fs::write(
        TEMPLATE,
        template.replace("DevicePolicy=closed", "DevicePolicy=auto"),
    )?;
    let seen = told(&hive.ask(["doctor"])?, &["loaded units", "unit files"])?;
    for text in [
        TEMPLATE,
        "DevicePolicy=auto",
        "hive units --install",
        "systemctl daemon-reload",
    ] {
        ensure!(seen.contains(text), "{text} is not told: {seen}");
    }
    hive.bus.reload()?;
    told(&hive.ask(["doctor"])?, &["unit files"])?;
    fs::remove_file(TEMPLATE)?;
    hive.bus.reload()?;
    let seen = hive.ask(["doctor"])?;
    ensure!(
        failed(&seen, "unit files"),
        "the missing template is not named: {seen}"
    );
    // The command that it names mends it.
    program::run(hive::HIVE, ["units", "--install"])?;
    hive.bus.reload()?;
    told(&hive.ask(["doctor"])?, &[]).map(drop)
}

/// What decides who may do what: the polkit rule, who can write the spec, and user ids.
fn rights(hive: &Hive) -> Result<()> {
    let rule = fs::read(RULE).context("reading the rule")?;
    fs::remove_file(RULE)?;
    // polkit notices by itself.
    let shut = |it: &Value| failed(it, "polkit") && failed(it, "unit files");
    wait::until("the missing rule is named", || hive.ask(["doctor"]), shut)?;
    fs::write(RULE, rule)?;
    content(hive, "the rule is back")?;

    fs::set_permissions(SPEC, fs::Permissions::from_mode(0o646))?;
    told(&hive.ask(["doctor"])?, &["spec file"])?;
    fs::set_permissions(SPEC, fs::Permissions::from_mode(0o644))?;

    let subuid = fs::read("/etc/subuid").unwrap_or_default();
    fs::write("/etc/subuid", format!("{OPERATOR}:1879113728:65536\n"))?;
    told(&hive.ask(["doctor"])?, &["user ids"])?;
    fs::write("/etc/subuid", subuid)?;
    told(&hive.ask(["doctor"])?, &[]).map(drop)
}

/// The kernel's limit cannot be changed in a nest: a spec with too many agents for it is looked at instead.
fn room_for_agents() -> Result<()> {
    let file = "/proc/sys/fs/inotify/max_user_instances";
    let limit: usize = fs::read_to_string(file)?.trim().parse().context(file)?;
    let many = "/etc/hyperhive/many.json";
    let agents: serde_json::Map<String, Value> = (0..=limit / 6)
        .map(|number| (format!("a{number}"), json!({})))
        .collect();
    let spec = json!({
        "version": 1,
        "hive": { "name": "bed" },
        "runtime": { "kind": "nspawn" },
        "maxAgents": agents.len(),
        "agents": agents,
    });
    fs::write(many, spec.to_string())?;
    let text = program::any(hive::HIVE, ["--json", "doctor", "--spec", many])?;
    let seen = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(
        failed(&seen, "inotify instances"),
        "the limit is not named: {seen}"
    );
    ensure!(
        ill(&seen).contains(&"unit files"),
        "the units are for another spec, which is not told: {seen}"
    );
    Ok(fs::remove_file(many)?)
}

/// What somebody sees who operates the hive and is not root.
fn as_operator() -> Result<Value> {
    let text = program::any("runuser", ["-u", OPERATOR, "--", hive::HIVE, "--json", "doctor"])?;
    serde_json::from_str(&text).with_context(|| format!("`hive doctor` printed {text:?}"))
}

/// Waits until no check finds anything.
fn content(hive: &Hive, what: &str) -> Result<()> {
    let look = || {
        let seen = hive.ask(["doctor"])?;
        let findings = seen.as_array().cloned().unwrap_or_default();
        Ok(findings
            .into_iter()
            .filter(|it| it["verdict"] != "ok")
            .collect::<Vec<_>>())
    };
    wait::until(what, look, Vec::is_empty).map(drop)
}

/// The checks that are not content, sorted.
fn ill(findings: &Value) -> Vec<&str> {
    let findings = findings.as_array().map_or(&[][..], Vec::as_slice);
    let ill = findings.iter().filter(|it| it["verdict"] != "ok");
    let mut ill: Vec<&str> = ill.filter_map(|it| it["check"].as_str()).collect();
    ill.sort_unstable();
    ill
}

fn find<'a>(findings: &'a Value, check: &str) -> Option<&'a Value> {
    findings.as_array()?.iter().find(|it| it["check"] == check)
}

fn said<'a>(findings: &'a Value, check: &str) -> Option<&'a str> {
    find(findings, check)?["found"].as_str()
}

fn failed(findings: &Value, check: &str) -> bool {
    find(findings, check).is_some_and(|it| it["verdict"] == "fail")
}

/// These checks and no others are not content. Returns what was said.
fn told(findings: &Value, checks: &[&str]) -> Result<String> {
    let text = findings.to_string();
    ensure!(
        ill(findings) == checks,
        "{checks:?} should not be content: {text}"
    );
    Ok(text)
}
