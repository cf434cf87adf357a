//! `hive status`: the hive at a glance, or one agent in full.

use std::collections::BTreeSet;

use shared::gate::{Gate, GateState};
use shared::plan::WaitingOn;
use shared::status::{Activity, AgentStatus, Health, HiveStatus, Sync};
use shared::{AgentName, GateId};

use super::error::CliError;
use super::exit::{Exit, Facts, exit};
use super::look::Look;
use super::page::{Page, Table, Tone};
use super::text::{count, shell_word};
use super::{Session, words};

mod agent;

/// Arguments of `hive status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Show this agent in full
    agent: Option<AgentName>,
}

pub(super) async fn run(session: &mut Session<'_>, args: StatusArgs) -> Result<Exit, CliError> {
    let Some(name) = args.agent else {
        return hive(session).await;
    };
    let reply = session
        .client
        .get::<AgentStatus>(&format!("/v1/agents/{name}"))
        .await?;
    let look = session.look();
    session
        .ui
        .show(&reply.raw, || agent::render(&reply.view, &look))?;
    Ok(exit(Facts::of_agent(&reply.view)))
}

async fn hive(session: &mut Session<'_>) -> Result<Exit, CliError> {
    let reply = session.client.get::<HiveStatus>("/v1/status").await?;
    let status = &reply.view;
    // The summaries of open gates are only in the gates themselves.
    let gates = if status.gates.is_empty() || session.ui.is_json() {
        Vec::new()
    } else {
        session.client.get::<Vec<Gate>>("/v1/gates").await?.view
    };
    let look = session.look_at(status.now);
    session.ui.show(&reply.raw, || render(status, &gates, &look))?;
    Ok(exit(Facts::of_hive(status)))
}

fn render(status: &HiveStatus, gates: &[Gate], look: &Look) -> Page {
    let mut page = Page::default();
    heading(&mut page, status, look);
    for fault in &status.spec.faults {
        page.line([Tone::Bad.of("✗ spec: "), fault.as_str().into()]);
    }
    if !status.spec.faults.is_empty() {
        let command = format!("hive spec check {}", shell_word(&status.spec.path));
        page.line([Tone::Faint.of("    → "), look.command(&command)]);
    }
    for notice in &status.notices {
        page.line([Tone::Warn.of("! "), notice.as_str().into()]);
    }
    open_gates(&mut page, gates, look);
    agents(&mut page, &status.agents);
    trouble(&mut page, &status.agents);
    blocked(&mut page, status, gates, look);
    page.gap();
    page.line([summary(status).into()]);
    page
}

fn heading(page: &mut Page, status: &HiveStatus, look: &Look) {
    let spec = match (status.spec.generation, status.spec.stale) {
        (0, _) => Tone::Bad.of("no spec in force"),
        (generation, true) => Tone::Bad.of(format!("spec generation {generation}, older than the file")),
        (generation, false) => Tone::Plain.of(format!("spec generation {generation}")),
    };
    let pass = match status.last_pass_at {
        Some(at) => format!(" · last pass {}", look.relative(at)),
        None => String::new(),
    };
    page.line([
        Tone::Plain.of("hive "),
        Tone::Strong.of(&status.hive),
        Tone::Faint.of(" · "),
        spec,
        Tone::Faint.of(format!(" · up {}{pass}", look.lasted(status.started_at))),
    ]);
}

fn open_gates(page: &mut Page, gates: &[Gate], look: &Look) {
    let open: Vec<&Gate> = gates
        .iter()
        .filter(|gate| gate.state == GateState::Open)
        .collect();
    if open.is_empty() {
        return;
    }
    page.heading("Open gates");
    let mut table = Table::default();
    for gate in &open {
        table.row([
            Tone::Warn.of(format!("◆ gate {}", gate.id)),
            words::agent(gate.agent.as_ref()),
            Tone::Plain.of(gate.class.as_str()),
            Tone::Faint.of(look.relative(gate.opened_at)),
            Tone::Plain.of(&gate.view.summary),
        ]);
    }
    page.table(&table);
    for gate in open {
        page.line([
            Tone::Faint.of("    → "),
            look.command(&format!("hive gate show {}", gate.id)),
        ]);
    }
}

fn agents(page: &mut Page, agents: &[AgentStatus]) {
    if agents.is_empty() {
        return;
    }
    page.gap();
    let mut table = Table::with_header(&["AGENT", "SYNC", "HEALTH", "ACTIVITY", "TURN", "INBOX"]);
    for agent in agents {
        let turn = agent.turn.map_or("-", |turn| turn.as_str());
        let inbox = match agent.inbox {
            0 => Tone::Faint.of("0"),
            n => Tone::Plain.of(n.to_string()),
        };
        table.row([
            words::agent(Some(&agent.name)),
            words::sync(agent.sync.value),
            words::health(agent.health.value),
            words::activity(agent.activity.value),
            Tone::Plain.of(turn),
            inbox,
        ]);
    }
    page.table(&table);
}

fn trouble(page: &mut Page, agents: &[AgentStatus]) {
    if agents
        .iter()
        .all(|agent| agent.faults.is_empty() && agent.notices.is_empty())
    {
        return;
    }
    let broken = agents.iter().any(|agent| !agent.faults.is_empty());
    page.heading(if broken { "Trouble" } else { "Notices" });
    for agent in agents {
        let faults = agent.faults.iter().map(|text| Tone::Bad.of(text));
        let notices = agent.notices.iter().map(|text| Tone::Warn.of(text));
        for text in faults.chain(notices) {
            page.line(["  ".into(), words::agent(Some(&agent.name)), "  ".into(), text]);
        }
    }
}

/// What is blocked, except on gates that are listed already.
fn blocked(page: &mut Page, status: &HiveStatus, gates: &[Gate], look: &Look) {
    let of_hive = status.waiting.iter().map(|waiting| (None, waiting));
    let of_agents = status.agents.iter().flat_map(|agent| {
        agent
            .waiting
            .iter()
            .map(move |waiting| (Some(&agent.name), waiting))
    });
    let mut blocked = of_hive
        .chain(of_agents)
        .filter(|(_, waiting)| match waiting.on {
            WaitingOn::Gate { gate, .. } => !gates
                .iter()
                .any(|listed| listed.id == gate && listed.state == GateState::Open),
            _ => true,
        })
        .peekable();
    if blocked.peek().is_some() {
        page.heading("Blocked");
    }
    for (agent, waiting) in blocked {
        words::blocked(page, waiting, agent, look);
    }
}

/// The hive in one line. Every agent counts once for what needs the operator most.
fn summary(status: &HiveStatus) -> String {
    let agents = &status.agents;
    let mut parts = Vec::new();
    let mut gated = BTreeSet::new();
    let (mut stalled, mut waiting, mut behind) = (0, 0, 0);
    for agent in agents {
        let facts = Facts::of_agent(agent);
        gated.extend(&agent.gates);
        if facts.stalled {
            stalled += 1;
        } else if facts.gate {
            waiting += 1;
        } else if agent.sync.value != Sync::InSync || agent.activity.value != Activity::Idle {
            behind += 1;
        }
    }
    if stalled > 0 {
        parts.push(format!("{stalled} stalled"));
    }
    if waiting > 0 {
        let verb = if waiting == 1 { "waits" } else { "wait" };
        parts.push(format!("{waiting} {verb} on {}", gate_list(&gated)));
    }
    let of_hive: BTreeSet<&GateId> = status.gates.iter().filter(|id| !gated.contains(id)).collect();
    if !of_hive.is_empty() {
        parts.push(format!("the hive waits on {}", gate_list(&of_hive)));
    }
    if behind > 0 {
        parts.push(format!("{behind} out of sync"));
    }
    for (health, word) in [(Health::Missing, "missing"), (Health::Degraded, "degraded")] {
        match agents.iter().filter(|agent| agent.health.value == health).count() {
            0 => {}
            n => parts.push(format!("{n} {word}")),
        }
    }
    if parts.is_empty() {
        parts.push(
            if agents.is_empty() {
                "nothing to do"
            } else {
                "all in sync"
            }
            .to_owned(),
        );
    }
    format!("{}, {}", count(agents.len(), "agent"), parts.join(", "))
}

fn gate_list(gates: &BTreeSet<&GateId>) -> String {
    let ids: Vec<String> = gates.iter().map(ToString::to_string).collect();
    match ids.as_slice() {
        [] => "a gate".to_owned(),
        [one] => format!("gate {one}"),
        many => format!("gates {}", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn open_gates_come_first_and_blocked_things_say_why() {
        let page = render(&fixtures::hive(), &[fixtures::gate()], &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        hive home · spec generation 4 · up 3 h · last pass 2 s ago

        Open gates
          ◆ gate 3  alice  deployWidens  3 m ago  deploy proposal 2 of alice: 1 change widens what it can do
            → hive gate show 3

          AGENT  SYNC           HEALTH     ACTIVITY         TURN      INBOX
          queen  ✓ in sync      ✓ healthy  · idle           idle      0
          alice  ≠ out of sync  ✓ healthy  ◆ awaiting gate  thinking  2

        Notices
          alice  runs without a sandbox

        2 agents, 1 waits on gate 3
        ");
    }

    #[test]
    fn on_a_terminal_the_same_page_has_colours() {
        let page = render(&fixtures::hive(), &[fixtures::gate()], &fixtures::look());
        insta::assert_snapshot!(page.as_ansi().replace('\x1b', "^"), @r"
        hive ^[1mhome^[0m^[2m · ^[0mspec generation 4^[2m · up 3 h · last pass 2 s ago^[0m

        ^[1mOpen gates^[0m
          ^[33m◆ gate 3^[0m  ^[1malice^[0m  deployWidens  ^[2m3 m ago^[0m  deploy proposal 2 of alice: 1 change widens what it can do
        ^[2m    → ^[0m^[36mhive gate show 3^[0m

          ^[2mAGENT^[0m  ^[2mSYNC^[0m           ^[2mHEALTH^[0m     ^[2mACTIVITY^[0m         ^[2mTURN^[0m      ^[2mINBOX^[0m
          ^[1mqueen^[0m  ^[32m✓ in sync^[0m      ^[32m✓ healthy^[0m  ^[2m· idle^[0m           idle      ^[2m0^[0m
          ^[1malice^[0m  ^[33m≠ out of sync^[0m  ^[32m✓ healthy^[0m  ^[33m◆ awaiting gate^[0m  thinking  2

        ^[1mNotices^[0m
          ^[1malice^[0m  ^[33mruns without a sandbox^[0m

        2 agents, 1 waits on gate 3
        ");
    }

    #[test]
    fn what_is_wrong_comes_with_the_next_command() {
        let mut status = fixtures::calm_hive();
        status.spec.stale = true;
        status.spec.faults = vec!["agents.bob.run: unknown variant `maybe`".to_owned()];
        status.agents[0].faults = vec!["agents.queen.limits.cpu: not a percentage".to_owned()];
        status.agents[0].waiting = fixtures::plans().remove(3).waiting;
        let page = render(&status, &[], &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        hive home · spec generation 4, older than the file · up 3 h · last pass 2 s ago
        ✗ spec: agents.bob.run: unknown variant `maybe`
            → hive spec check /etc/hyperhive/hive.json

          AGENT  SYNC       HEALTH     ACTIVITY  TURN  INBOX
          queen  ✓ in sync  ✓ healthy  · idle    idle  0

        Trouble
          queen  agents.queen.limits.cpu: not a percentage

        Blocked
          queen  start - tries again in 30 s after 3 failures: no sandbox
          queen  build - stalled: agent.json: unknown field `modle`
            → hive retry queen

        1 agent, 1 stalled
        ");
    }

    #[test]
    fn a_calm_hive_is_short() {
        let page = render(&fixtures::calm_hive(), &[], &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        hive home · spec generation 4 · up 3 h · last pass 2 s ago

          AGENT  SYNC       HEALTH     ACTIVITY  TURN  INBOX
          queen  ✓ in sync  ✓ healthy  · idle    idle  0

        1 agent, all in sync
        ");
    }

    #[test]
    fn each_agent_counts_once_for_what_needs_the_operator_most() {
        let mut status = fixtures::hive();
        status.agents[0].activity.value = Activity::Stalled;
        status.agents[0].health.value = Health::Degraded;
        status.gates.push(GateId(9));
        assert_eq!(
            summary(&status),
            "2 agents, 1 stalled, 1 waits on gate 3, the hive waits on gate 9, 1 degraded"
        );
        status.agents.clear();
        status.gates.clear();
        assert_eq!(summary(&status), "0 agents, nothing to do");
    }
}
