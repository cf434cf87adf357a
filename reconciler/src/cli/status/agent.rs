//! One agent in full.

use std::fmt::Display;

use serde_json::Value;
use shared::egress::RefusalReason;
use shared::status::{AgentStatus, Condition, Generations, McpHealth, McpServerState, ModelStatus, Origin};

use crate::cli::look::Look;
use crate::cli::page::{Page, Span, Table, Tone};
use crate::cli::text::{count, short_id, shorten};
use crate::cli::words;

/// The longest value shown on a line of its own.
const VALUE_CHARS: usize = 60;

pub(super) fn render(agent: &AgentStatus, look: &Look) -> Page {
    let mut page = Page::default();
    let role = match agent.role {
        shared::spec::Role::Worker => "worker",
        shared::spec::Role::Manager => "manager",
    };
    let uid = match agent.uid {
        Some(uid) => format!("uid {uid}"),
        None => "not registered yet".to_owned(),
    };
    page.line([
        Tone::Strong.of(&agent.name),
        Tone::Faint.of(format!(" · {role} · {uid}")),
    ]);
    for fault in &agent.faults {
        page.line([Tone::Bad.of("✗ "), fault.as_str().into()]);
    }
    for notice in &agent.notices {
        page.line([Tone::Warn.of("! "), notice.as_str().into()]);
    }
    axes(&mut page, agent, look);
    generations(&mut page, &agent.generations);
    config(&mut page, agent);
    egress(&mut page, agent, look);
    servers(&mut page, agent);
    if !agent.waiting.is_empty() {
        page.heading("Waiting");
        for waiting in &agent.waiting {
            words::own_wait(&mut page, waiting, Some(&agent.name), look);
        }
    }
    page.heading("Next");
    for command in next_commands(agent) {
        page.line(["  ".into(), look.command(&command)]);
    }
    page
}

fn axes(page: &mut Page, agent: &AgentStatus, look: &Look) {
    fn row<T>(name: &str, value: Span, condition: &Condition<T>, look: &Look) -> [Span; 4] {
        [
            Tone::Faint.of(name),
            value,
            Tone::Faint.of(format!("{}, {}", condition.reason, look.lasted(condition.since))),
            Tone::Plain.of(&condition.message),
        ]
    }
    let mut table = Table::default();
    table.row(row("sync", words::sync(agent.sync.value), &agent.sync, look));
    table.row(row(
        "health",
        words::health(agent.health.value),
        &agent.health,
        look,
    ));
    table.row(row(
        "activity",
        words::activity(agent.activity.value),
        &agent.activity,
        look,
    ));
    let turn = agent.turn.map_or("not reported", |turn| turn.as_str());
    table.row([Tone::Faint.of("turn"), turn.into()]);
    if let Some(model) = &agent.model {
        table.row([
            Tone::Faint.of("model"),
            model_of(model).into(),
            switched(model, look),
        ]);
    }
    let inbox = count(usize::try_from(agent.inbox).unwrap_or(usize::MAX), "message");
    table.row([Tone::Faint.of("inbox"), format!("{inbox} not delivered").into()]);
    page.gap();
    page.table(&table);
}

/// What went out and came in, and where the agent was not let.
fn egress(page: &mut Page, agent: &AgentStatus, look: &Look) {
    let Some(egress) = &agent.egress else { return };
    page.heading("Way out");
    let refused = count(
        usize::try_from(egress.refused).unwrap_or(usize::MAX),
        "connection",
    );
    page.line([format!(
        "  {} bytes sent, {} received, {refused} refused",
        egress.sent, egress.received
    )
    .into()]);
    let mut table = Table::default();
    for refusal in &egress.refusals {
        let why = match refusal.reason {
            RefusalReason::NotListed => "not in its list of hosts",
            RefusalReason::PrivateAddress => "leads to an address that is not of the public Internet",
            RefusalReason::Unknown => "not allowed",
        };
        table.row([
            Tone::Plain.of(format!("  {}:{}", refusal.host, refusal.port)),
            Tone::Faint.of(format!(
                "{}x, last {} ago",
                refusal.count,
                look.lasted(refusal.last_at)
            )),
            why.into(),
        ]);
    }
    page.table(&table);
}

fn model_of(model: &ModelStatus) -> String {
    match (&model.active, &model.queued) {
        (Some(active), None) => active.clone(),
        (Some(active), Some(queued)) => format!("{active}, then {queued} from the next turn on"),
        (None, Some(queued)) => format!("{queued} from the next turn on"),
        (None, None) => "the driver's own choice".to_owned(),
    }
}

fn switched(model: &ModelStatus, look: &Look) -> Span {
    match (model.switched_at, &model.switched_by) {
        (Some(at), Some(by)) => Tone::Faint.of(format!("switched by {by}, {} ago", look.lasted(at))),
        _ => "".into(),
    }
}

fn generations(page: &mut Page, generations: &Generations) {
    let Generations {
        desired,
        deployed,
        last_good,
        running_toplevel,
        running_config,
        commit,
        proposal,
    } = generations;
    let mut table = Table::default();
    let mut row = |name: &str, value: Option<&dyn Display>, absent: &str, remark: Span| {
        let value = match value {
            Some(value) => Tone::Plain.of(short_id(&value.to_string())),
            None => Tone::Faint.of(absent),
        };
        table.row([Tone::Faint.of(name), value, remark]);
    };
    let same_as_deployed = |system: &Option<String>| match (system, deployed) {
        (Some(system), Some(deployed)) if system == deployed => Tone::Good.of("= deployed"),
        (Some(_), _) => Tone::Warn.of("≠ deployed"),
        (None, _) => "".into(),
    };
    row(
        "desired",
        display(desired.as_ref()),
        "not built yet",
        same_as_deployed(desired),
    );
    row("deployed", display(deployed.as_ref()), "nothing yet", "".into());
    row(
        "last good",
        display(last_good.as_ref()),
        "none yet",
        same_as_deployed(last_good),
    );
    row(
        "running",
        display(running_toplevel.as_ref()),
        "not running",
        Tone::Faint.of("toplevel"),
    );
    row(
        "",
        display(running_config.as_ref()),
        "not reported",
        Tone::Faint.of("config"),
    );
    let origin = match proposal.map(|number| number.0) {
        Some(0) => "the seed".to_owned(),
        Some(number) => format!("proposal {number}"),
        None => String::new(),
    };
    row(
        "commit",
        display(commit.as_ref()),
        "none yet",
        Tone::Faint.of(origin),
    );
    page.heading("Generations");
    page.table(&table);
}

fn display<T: Display>(value: Option<&T>) -> Option<&dyn Display> {
    value.map(|value| value as &dyn Display)
}

/// The effective values, each with its origin.
fn config(page: &mut Page, agent: &AgentStatus) {
    if agent.origins.is_empty() {
        return;
    }
    // A config that came over the wire can go back to JSON; were that to fail, only the values would be missing.
    let config = serde_json::to_value(&agent.config).unwrap_or(Value::Null);
    let mut table = Table::with_header(&["FIELD", "FROM", "VALUE"]);
    for (field, origin) in &agent.origins {
        let (tone, from) = match origin {
            Origin::Default => (Tone::Faint, "default"),
            Origin::Spec => (Tone::Plain, "spec"),
            Origin::Commit => (Tone::Info, "commit"),
            Origin::Granted => (Tone::Warn, "commit, granted"),
            Origin::Lapsed => (Tone::Warn, "spec, commit lapsed"),
            Origin::Locked => (Tone::Warn, "spec, locked"),
        };
        table.row([
            field.as_str().into(),
            tone.of(from),
            Tone::Plain.of(value_at(&config, field)),
        ]);
    }
    page.heading("Effective config");
    page.table(&table);
}

/// The value at a path such as `mcpServers.wiki.command`, in one line.
fn value_at(config: &Value, path: &str) -> String {
    match config.pointer(&format!("/{}", path.replace('.', "/"))) {
        None | Some(Value::Null) => String::new(),
        Some(value) => shorten(&value.to_string(), VALUE_CHARS),
    }
}

fn servers(page: &mut Page, agent: &AgentStatus) {
    if agent.mcp.is_empty() {
        return;
    }
    page.heading("MCP servers");
    let mut table = Table::default();
    for (name, state) in &agent.mcp {
        let health = match state.health {
            McpHealth::Healthy => Tone::Good.of("✓ healthy"),
            McpHealth::Failed => Tone::Bad.of("✗ failed"),
            McpHealth::Unprobed => Tone::Faint.of("- not probed"),
            McpHealth::Differs => Tone::Warn.of("≠ differs"),
            McpHealth::Unknown => Tone::Warn.of("? unknown"),
        };
        let detail = match &state.error {
            Some(error) => Tone::Plain.of(error),
            None => Tone::Faint.of(offer(state)),
        };
        table.row([Tone::Strong.of(name), health, detail]);
    }
    page.table(&table);
}

/// What a server offers: how many tools, what being told of them costs in each turn, and their names.
fn offer(state: &McpServerState) -> String {
    let known = u64::try_from(state.tools.len()).unwrap_or(u64::MAX);
    let all = known.saturating_add(state.more_tools);
    if all == 0 {
        return "no tools".to_owned();
    }
    let number = count(usize::try_from(all).unwrap_or(usize::MAX), "tool");
    let size = match state.schema_tokens {
        Some(tokens) => format!(
            ", about {}",
            count(usize::try_from(tokens).unwrap_or(usize::MAX), "token")
        ),
        None => String::new(),
    };
    let names = shorten(&state.tools.join(", "), VALUE_CHARS);
    format!("{number}{size}: {names}")
}

/// What to run next: the ways out of what blocks the agent, then where to look closer.
fn next_commands(agent: &AgentStatus) -> Vec<String> {
    let name = &agent.name;
    let ways_out = agent
        .waiting
        .iter()
        .filter_map(|waiting| words::way_out(waiting, Some(name)));
    let gates = agent.gates.iter().map(|gate| format!("hive gate show {gate}"));
    let looks = [format!("hive explain {name}"), format!("hive history {name}")];
    let mut commands: Vec<String> = Vec::new();
    for command in ways_out.chain(gates).chain(looks) {
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn one_agent_shows_axes_generations_origins_and_servers() {
        let page = render(&fixtures::agent(), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r#"
        alice · worker · uid 00000000-0000-4000-8000-000000000002
        ! runs without a sandbox

          sync      ≠ out of sync    proposalBuilt, 3 m  proposal 2 is built and not deployed
          health    ✓ healthy        reporting, 3 m      the harness reports; 1 of 2 MCP servers is broken
          activity  ◆ awaiting gate  gateOpen, 3 m       gate 3 waits for the operator
          turn      thinking
          inbox     2 messages not delivered

        Generations
          desired    system1-bbbbbbbbbbbb    ≠ deployed
          deployed   system1-aaaaaaaaaaaa
          last good  system1-aaaaaaaaaaaa    = deployed
          running    toplevel1-cccccccccccc  toplevel
                     config1-dddddddddddd    config
          commit     0123456789              proposal 1

        Effective config
          FIELD            FROM             VALUE
          driver           spec             {"kind":"claude","model":"haiku"}
          mcpServers.wiki  commit, granted  {"allowedTools":["*"],"args":[],"command":"/bin/wiki-mcp","…
          prompt           commit           "You look after the wiki."
          recipients       default

        MCP servers
          web   ✗ failed   no answer within 10 s
          wiki  ✓ healthy  2 tools, about 310 tokens: read, write

        Waiting
          deploy proposal 2 - waits on gate 3 (deployWidens)
            → hive gate show 3

        Next
          hive gate show 3
          hive explain alice
          hive history alice
        "#);
    }

    #[test]
    fn a_server_of_ten_thousand_tools_shows_what_it_costs() {
        let tools: Vec<String> = (0..512).map(|n| format!("tool-{n}")).collect();
        let state = McpServerState {
            tools,
            more_tools: 9488,
            schema_tokens: Some(250_000),
            ..McpServerState::of(McpHealth::Healthy)
        };
        let shown = offer(&state);
        assert!(
            shown.starts_with("10000 tools, about 250000 tokens: tool-0, tool-1, "),
            "{shown}"
        );
        assert!(shown.chars().count() < 110, "{shown}");
    }

    #[test]
    fn what_an_agent_chose_cannot_forge_a_line() {
        let mut agent = fixtures::agent();
        let (_, wiki) = agent.mcp.iter_mut().next().expect("a server");
        wiki.error = Some("x\n\x1b[32m✓ approved".to_owned());
        let shown = fixtures::plain(&render(&agent, &fixtures::look()));
        assert!(shown.contains("x␊␛[32m✓ approved"), "{shown}");
    }
}
