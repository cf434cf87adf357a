//! The way out of an agent without a network of its own, and secrets: what is outside stays outside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::agent::Agent;
use crate::hive::{self, Hive};
use crate::{program, wait};

/// How the kernel writes the state of a socket that listens.
const LISTENING: &str = "0A";
/// The egress service's unit.
const EGRESS: &str = "hyperhive-egress.service";
/// What must be nowhere in the guest.
const KEY: &str = "sk-the-providers-own-key";
/// What must be where its agent reads it, and nowhere else.
const SECRET: &str = "hush-hush-hush";

pub(crate) fn play(_boot: u32) -> Result<Then> {
    private("/etc/credstore/hyperhive-api-key", KEY)?;
    private("/etc/hyperhive/wiki-key", SECRET)?;
    let hive = Hive::install(&json!({
        // A scripted agent needs no way out, and gets none.
        "carol": hive::declared(json!({
            "network": "hosts",
            "egress": ["listed.example"],
            "driver": { "kind": "acp", "command": "/bin/true" },
            "secrets": { "wiki": { "file": "/etc/hyperhive/wiki-key" } },
        }))?,
    }))?;
    // As after a reboot, the service may come later than the agent.
    hive.rests(&["carol"])?;
    hive.bus.start(EGRESS)?;
    let carol = hive.agent("carol")?;
    carol.has_no_route_out(&hive.bus)?;

    let refused = wait::until(
        "the way out answers",
        || asked(&hive, &carol, "unlisted.example"),
        |answer| answer.contains("HTTP/1.1 403"),
    )?;
    ensure!(
        refused.contains("hive egress allow carol unlisted.example"),
        "{refused}"
    );
    hive.tells("unlisted.example")?;
    // There is no resolver in a nest: it is let through, and leads nowhere.
    let listed = asked(&hive, &carol, "listed.example")?;
    ensure!(listed.contains("HTTP/1.1 502"), "{listed}");
    let metadata = asked(&hive, &carol, "169.254.169.254")?;
    ensure!(metadata.contains("HTTP/1.1 403"), "{metadata}");

    for socket in ["model.sock", "proxy.sock"] {
        let path = format!("/run/hyperhive-egress/carol/{socket}");
        program::run("test", ["-S", &path])?;
        program::fails("runuser", ["-u", "nobody", "--", "test", "-S", &path])
            .context("a user of the host reaches the way out of an agent")?;
    }
    nowhere_inside(&carol, KEY)?;
    kept_for_the_agent(&hive, &carol)?;
    Ok(Then::Done)
}

/// A file of root's alone.
fn private(path: &str, text: &str) -> Result<()> {
    let folder = path.rsplit_once('/').context("an absolute path")?.0;
    fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
    fs::write(path, text).with_context(|| format!("writing {path}"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

/// What the harness's loopback ports say when they are asked for a host.
fn asked(hive: &Hive, agent: &Agent, host: &str) -> Result<String> {
    let path = format!("/proc/{}/net/tcp", agent.leader(&hive.bus)?);
    let sockets = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let mut answers = String::new();
    for line in sockets.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTENING, ..] = fields[..] else {
            continue;
        };
        let port = local.rsplit_once(':').context("an address has a port")?.1;
        let port = u16::from_str_radix(port, 16).with_context(|| format!("the port {port:?}"))?;
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n' >&3; \
             timeout 20 head -c 2000 <&3 || true"
        );
        answers.push_str(&agent.run("agent", &format!("exec bash -c {}", program::quoted(&ask)))?);
    }
    Ok(answers)
}

/// No file, no environment and no command line in the guest has it. Asked by the guest's root, who can read them all.
fn nowhere_inside(agent: &Agent, text: &str) -> Result<()> {
    // In two halves, so that the search does not find itself.
    let (begin, end) = text.split_at(text.len() / 2);
    let search = format!(
        "grep -rlsaF \"$(printf %s%s {begin} {end})\" /state /config /run /etc /tmp /proc/[0-9]*/environ \
         /proc/[0-9]*/cmdline || true"
    );
    let found = agent.run("root", &search)?;
    ensure!(found.trim().is_empty(), "it is in {found}");
    Ok(())
}

/// The agent's user reads it, another user of the guest does not, and on the host it is in no file but its own.
fn kept_for_the_agent(hive: &Hive, agent: &Agent) -> Result<()> {
    let read = agent.run("agent", "cat /run/hive-credentials/wiki")?;
    ensure!(read == SECRET, "it is {read:?}");
    agent.cannot("nobody", "cat /run/hive-credentials/wiki")?;
    let found = program::shell(&format!(
        "grep -rlsF {SECRET} /var/lib /run /etc /tmp | grep -v ^/etc/hyperhive/wiki-key || true"
    ))?;
    ensure!(found.trim().is_empty(), "on the host it is in {found}");
    let outside = format!("/proc/{}/mountinfo", hive.bus.unit(hive::DAEMON)?.pid);
    let mounts = fs::read_to_string(&outside).with_context(|| format!("reading {outside}"))?;
    ensure!(!mounts.contains("hyperhive-launch"), "the daemon has it mounted");
    Ok(())
}
