//! The story of the demo, told with assertions: an agent proposes, the operator approves, and a crash in between
//! changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::daemon::http_status;
use super::disk::Written;
use super::hive::{Hive, at_rest, is, kinds, number, text};
use super::leftovers::{self, Process};
use crate::poll::{Look, eventually, steadily};
use crate::toolchain;

const AGENTS: [&str; 3] = ["alice", "bob", "queen"];
const OLD_PROMPT: &str = "You look after the wiki.";
const NEW_PROMPT: &str = "You look after the wiki and the garden.";
/// How long a converged hive is watched for signs of life.
const SILENCE: Duration = Duration::from_secs(3);

/// What is asked of the operator.
struct Asked {
    gate: String,
    digest: String,
    commit: String,
    /// The event after which nothing had happened yet when the gate was seen.
    seq: u64,
}

/// Plays the whole story; prints a line for each thing that was found to be as it should.
pub(super) fn play(hive: &mut Hive) -> Result<()> {
    let processes = agents_come_up(hive)?;
    let before = hive.agent("alice")?;
    let asked = alice_proposes(hive)?;
    nothing_happens_unasked(hive, &before, &asked)?;
    the_daemon_dies(hive, &processes, &asked)?;
    the_operator_approves(hive, &before, &processes, &asked)?;
    git_tells_the_same(hive, &asked)?;
    a_second_daemon_is_refused(hive, &processes)?;
    everything_is_done(hive)?;
    silence(hive)?;
    the_daemon_ends(hive, &processes)
}

/// A step of the story went as told.
fn ok(what: &str) {
    println!("ok  {what}");
}

fn agents_come_up(hive: &Hive) -> Result<BTreeMap<String, Process>> {
    hive.until(
        "all agents are in sync, healthy and idle",
        &["status"],
        |status| at_rest(status, &AGENTS),
    )?;
    hive.expect(&["status"], 0)?;
    let processes = hive.processes();
    let names: Vec<_> = processes.keys().map(String::as_str).collect();
    ensure!(
        names == AGENTS,
        "expected a process of each of {AGENTS:?}, found {names:?}"
    );
    still_run(&processes)?;
    ok("alice, bob and queen run: in sync, healthy, idle");
    Ok(processes)
}

fn alice_proposes(hive: &Hive) -> Result<Asked> {
    hive.expect(&["send", "queen", "begin"], 0)?;
    hive.until_told("bob", "hello, I am bob")?;
    ok("the operator said begin, queen told bob, and bob said hello to the operator");

    let gates = hive.until("a gate is open", &["gate", "list"], |gates| {
        gates.pointer("/0/state").is_some_and(|state| state == "open")
    })?;
    let gate = &gates[0];
    for (field, expected) in [
        ("agent", json!("alice")),
        ("askedBy", json!("agent")),
        ("class", json!("deployWidens")),
        ("proposal", json!(1)),
        ("decision", Value::Null),
    ] {
        ensure!(
            gate[field] == expected,
            "expected {field} {expected}, but the gate is {gate}"
        );
    }
    ok("alice proposed, the proposal was built, and a gate of class deployWidens is open");

    let diff = text(gate, "/view/commitDiff")?;
    let line = format!("+  \"prompt\": {NEW_PROMPT:?}");
    ensure!(
        diff.lines().any(|it| it == line),
        "expected the line {line:?} in the commit diff {diff:?}"
    );
    let expected = json!([{ "field": "prompt", "before": OLD_PROMPT, "after": NEW_PROMPT, "widens": true }]);
    let capabilities = &gate["view"]["capabilities"];
    ensure!(
        *capabilities == expected,
        "expected the capability diff {expected}, found {capabilities}"
    );
    ok("the gate shows the commit's diff and that the prompt widens");

    Ok(Asked {
        gate: number(gate, "/id")?.to_string(),
        digest: text(gate, "/digest")?.to_owned(),
        commit: text(gate, "/commit")?.to_owned(),
        seq: number(&hive.document(&["status"])?, "/seq")?,
    })
}

fn nothing_happens_unasked(hive: &Hive, before: &Value, asked: &Asked) -> Result<()> {
    hive.expect(&["status"], 3)?;
    runs_the_old_config(hive, before)?;
    ok("while the gate is open `hive status` exits with 3 and alice runs the old prompt");

    let last = if asked.digest.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &asked.digest[..asked.digest.len() - 1]);
    let answer = hive.expect(&["gate", "approve", &asked.gate, "--digest", &wrong], 1)?;
    let refused: Value = serde_json::from_str(&answer.stderr)
        .with_context(|| format!("expected an error in JSON on standard error, but {answer}"))?;
    ensure!(refused["code"] == "conflict", "expected a conflict, but {answer}");
    let path = format!("POST /v1/gates/{}/decision", asked.gate);
    let decision = json!({ "approve": true, "digest": wrong }).to_string();
    let status = http_status(&hive.daemon.config().admin_socket(), &path, &decision)?;
    ensure!(status == 409, "expected {path} to be answered 409, not {status}");
    gate_is_open(hive, asked)?;
    runs_the_old_config(hive, before)?;
    ok("approving another digest is refused as a conflict, by the command line and by the daemon itself");
    Ok(())
}

fn the_daemon_dies(hive: &mut Hive, processes: &BTreeMap<String, Process>, asked: &Asked) -> Result<()> {
    let before = hive.daemon.pid()?;
    hive.daemon.kill()?;
    still_run(processes)?;
    ok("the daemon is killed with SIGKILL; its agents go on");

    hive.daemon.start_again()?;
    ensure!(hive.daemon.pid()? != before, "expected another daemon");
    hive.until("all agents are healthy, and alice waits", &["status"], |status| {
        let agents = status["agents"].as_array().map_or(&[][..], Vec::as_slice);
        agents.len() == AGENTS.len()
            && agents.iter().all(|agent| {
                if agent["name"] == "alice" {
                    is(agent, "inSync", "healthy", "awaitingGate")
                } else {
                    is(agent, "inSync", "healthy", "idle")
                }
            })
    })?;
    same_processes(hive, processes)?;
    ok("the next daemon adopts the agents: they are the same processes");

    gate_is_open(hive, asked)?;
    let events = hive.events(asked.seq)?;
    ensure!(
        events.is_empty(),
        "expected no event since the gate opened, found {}",
        kinds(&events)
    );
    ok("the gate is the same: its number, its digest, still open; nothing else happened");
    Ok(())
}

fn the_operator_approves(
    hive: &Hive,
    before: &Value,
    processes: &BTreeMap<String, Process>,
    asked: &Asked,
) -> Result<()> {
    let reason = "the garden needs a keeper";
    let arguments = [
        "gate",
        "approve",
        &asked.gate,
        "--digest",
        &asked.digest,
        "--reason",
        reason,
    ];
    hive.expect(&arguments, 0)?;
    let old = text(before, "/generations/runningConfig")?;
    let alice = hive.until("alice runs the new config", &["status", "alice"], |alice| {
        is(alice, "inSync", "healthy", "idle") && alice["generations"]["runningConfig"] != *old
    })?;
    ensure!(
        prompts(hive, &alice)? == [NEW_PROMPT, NEW_PROMPT],
        "expected the new prompt in {alice}"
    );
    same_processes(hive, processes)?;
    ok("approved: alice runs the new prompt, in the same process");

    let generations = &alice["generations"];
    let system = text(generations, "/deployed")?;
    let built = format!("{system}/system.json");
    let built = fs::read_to_string(&built).with_context(|| format!("reading {built}"))?;
    let built: Value = serde_json::from_str(&built).context("reading what was built")?;
    ensure!(
        generations["runningConfig"] == built["configDigest"],
        "expected the running config to be that of the deployed system {built}, but {generations}"
    );
    for (field, expected) in [
        ("desired", json!(system)),
        ("lastGood", json!(system)),
        ("commit", json!(asked.commit)),
        ("proposal", json!(1)),
    ] {
        ensure!(
            generations[field] == expected,
            "expected {field} {expected}, but {generations}"
        );
    }
    ok("what runs is what is deployed, and that is the commit that was shown");

    let gate = hive.document(&["gate", "show", &asked.gate])?;
    let decision = &gate["decision"];
    ensure!(
        gate["state"] == "consumed" && gate["completedAt"].is_string() && gate["system"] == *system,
        "expected the gate to be used up for {system}, but it is {gate}"
    );
    ensure!(
        decision["digest"] == *asked.digest && decision["reason"] == reason,
        "expected the decision to carry the digest and the reason, but it is {decision}"
    );
    let by = text(decision, "/by")?;
    ensure!(
        by.starts_with("unix:"),
        "expected a unix user as the author, not {by:?}"
    );
    ok("the gate is consumed; its decision says who, why, and for which digest");

    hive.until_told(
        "queen",
        "alice looks after the garden now. That is the whole story.",
    )?;
    ok("alice told queen, and queen told the operator");
    Ok(())
}

/// The program `git` sees in the config repo what the API says.
fn git_tells_the_same(hive: &Hive, asked: &Asked) -> Result<()> {
    let git = |arguments: &[&str]| -> Result<String> {
        let config = hive.daemon.config();
        let mut command = Command::new("git");
        command
            .args(["--git-dir", config.state.join("repos/alice.git").as_str()])
            .args(arguments)
            .stdin(Stdio::null());
        toolchain::isolate(&mut command, &config.home);
        let line = toolchain::command_line(&command);
        let output = command.output().with_context(|| format!("starting `{line}`"))?;
        ensure!(
            output.status.success(),
            "`{line}` {}: {}",
            toolchain::describe(output.status),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let expected = "approved/1\ndeployed/1\nproposal/1";
    // The last tag may be written a moment after the config is live.
    eventually(
        Duration::from_secs(20),
        "the tags tell the proposal's life",
        || {
            let tags = git(&["tag"])?;
            Ok(if tags == expected {
                Look::Done(())
            } else {
                Look::NotYet(tags)
            })
        },
    )?;
    for name in expected.lines().chain(["refs/heads/main"]) {
        let commit = git(&["rev-parse", "--verify", &format!("{name}^{{commit}}")])?;
        ensure!(
            commit == asked.commit,
            "expected {name} at {}, found {commit}",
            asked.commit
        );
    }
    git(&["fsck", "--strict"])?;
    ok("git sees proposal/1, approved/1, deployed/1 and main at that commit, in a sound repo");
    Ok(())
}

fn a_second_daemon_is_refused(hive: &Hive, processes: &BTreeMap<String, Process>) -> Result<()> {
    let pid = hive.daemon.pid()?;
    let (status, said) = hive.daemon.start_second()?;
    ensure!(
        status.code() == Some(1) && said.contains(&format!("(process {pid})")),
        "expected a second daemon to exit with 1 and to name process {pid}, but it {} and said {said:?}",
        toolchain::describe(status)
    );
    same_processes(hive, processes)?;
    ok("a second daemon on the same state folder refuses, names the first, and touches no agent");
    Ok(())
}

fn everything_is_done(hive: &Hive) -> Result<()> {
    hive.until(
        "all agents are in sync, healthy and idle",
        &["status"],
        |status| at_rest(status, &AGENTS),
    )?;
    hive.expect(&["status"], 0)?;
    let plan = hive.expect(&["plan"], 0)?;
    let plans = plan.json().as_array().map_or(&[][..], Vec::as_slice);
    // The hive's own plan comes with those of its agents.
    ensure!(
        plans.len() == AGENTS.len() + 1
            && plans
                .iter()
                .all(|plan| plan["steps"] == json!([]) && plan["waiting"] == json!([])),
        "expected empty plans, but {plan}"
    );
    let diff = hive.expect(&["diff"], 0)?;
    ensure!(*diff.json() == json!([]), "expected no difference, but {diff}");
    ok("`hive status` exits with 0, plan and diff are empty");
    Ok(())
}

/// A look at everything, asked for by a spec that is saved again as it is, writes nothing.
fn silence(hive: &Hive) -> Result<()> {
    let config = hive.daemon.config();
    let look = || -> Result<(u64, Written)> {
        Ok((
            number(&hive.document(&["status"])?, "/seq")?,
            Written::look(hive.daemon.pid()?, &config.state)?,
        ))
    };
    // What the last turns left to be written comes to its end first.
    let mut last = look()?;
    eventually(Duration::from_secs(20), "the hive comes to rest", || {
        let before = std::mem::replace(&mut last, look()?);
        Ok(if before == last {
            Look::Done(())
        } else {
            Look::NotYet(last.1.since(&before.1).join(", "))
        })
    })?;
    let passed = hive.document(&["status"])?["lastPassAt"].clone();
    let again = config.spec.with_extension("new");
    fs::copy(&config.spec, &again)
        .and_then(|_| fs::rename(&again, &config.spec))
        .with_context(|| format!("saving {} again", config.spec))?;
    hive.until("the spec is looked at again", &["status"], |status| {
        status["lastPassAt"] != passed && status["queueDepth"] == 0
    })?;
    steadily(SILENCE, || {
        let now = look()?;
        let events = || hive.events(last.0).map(|events| kinds(&events));
        ensure!(now.0 == last.0, "expected no event, found {}", events()?);
        let written = now.1.since(&last.1);
        ensure!(
            written.is_empty(),
            "expected no writes, found {}",
            written.join(", ")
        );
        Ok(())
    })?;
    ok("converged, it is silent: a pass over the same spec makes no event and writes nothing to the disk");
    Ok(())
}

fn the_daemon_ends(hive: &mut Hive, processes: &BTreeMap<String, Process>) -> Result<()> {
    let status = hive.daemon.terminate()?;
    ensure!(
        status.success(),
        "expected the daemon to exit with 0 after SIGTERM, but it {}",
        toolchain::describe(status)
    );
    let socket = hive.daemon.config().admin_socket();
    ensure!(!socket.exists(), "expected {socket} to be gone");
    same_processes(hive, processes)?;
    ok("SIGTERM ends the daemon with exit status 0; its agents go on, the same processes as ever");

    hive.daemon.clean_up()?;
    ok("nothing is left running");
    Ok(())
}

fn gate_is_open(hive: &Hive, asked: &Asked) -> Result<()> {
    let gates = hive.document(&["gate", "list"])?;
    let open = gates.as_array().is_some_and(|gates| gates.len() == 1)
        && gates[0]["id"].as_u64() == asked.gate.parse().ok()
        && gates[0]["digest"] == *asked.digest
        && gates[0]["state"] == "open";
    ensure!(
        open,
        "expected gate {} to be open with {} and no other, found {gates}",
        asked.gate,
        asked.digest
    );
    Ok(())
}

fn runs_the_old_config(hive: &Hive, before: &Value) -> Result<()> {
    let alice = hive.agent("alice")?;
    for field in [
        "runningConfig",
        "runningToplevel",
        "deployed",
        "commit",
        "proposal",
    ] {
        let (was, is) = (&before["generations"][field], &alice["generations"][field]);
        ensure!(
            was == is && !is.is_null(),
            "expected {field} to stay {was}, but it is {is}"
        );
    }
    ensure!(
        prompts(hive, &alice)? == [OLD_PROMPT, OLD_PROMPT],
        "expected the old prompt in {alice}"
    );
    Ok(())
}

/// The prompt that the status tells, and the one in the file that the agent itself reads.
fn prompts(hive: &Hive, alice: &Value) -> Result<[String; 2]> {
    let file = hive.daemon.config().state.join("agents/alice/config/agent.json");
    let config = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let config: Value = serde_json::from_str(&config).with_context(|| format!("reading {file}"))?;
    Ok([
        text(alice, "/config/prompt")?.to_owned(),
        text(&config, "/config/prompt")?.to_owned(),
    ])
}

fn same_processes(hive: &Hive, expected: &BTreeMap<String, Process>) -> Result<()> {
    let now = hive.processes();
    ensure!(
        now == *expected,
        "expected the agents to be the processes {expected:?}, found {now:?}"
    );
    still_run(expected)
}

fn still_run(processes: &BTreeMap<String, Process>) -> Result<()> {
    for (agent, process) in processes {
        ensure!(
            leftovers::alive(*process),
            "expected {agent} to run, but its {process:?} does not"
        );
    }
    Ok(())
}
