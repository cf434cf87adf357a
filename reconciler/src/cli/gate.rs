//! `hive gate`: what waits for a decision, and the decision.

use shared::admin_api::DecisionRequest;
use shared::gate::{Gate, GateState};
use shared::wire_error::ErrorCode;
use shared::{Digest, GateId};

use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Table, Tone};
use super::text::count;
use super::{Session, words};

mod show;

/// Verbs of `hive gate`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum GateCommand {
    /// List open and approved gates
    List {
        /// List those that have ended, too
        #[arg(long)]
        all: bool,
    },
    /// Show everything needed to decide
    Show {
        /// The gate's number
        #[arg(value_name = "N", value_parser = gate_id)]
        gate: GateId,
    },
    /// Approve exactly what the gate shows now
    Approve(DecideArgs),
    /// Deny it; whoever asked is told the reason
    Deny(DecideArgs),
}

/// Arguments of a decision.
#[derive(Debug, clap::Args)]
pub(super) struct DecideArgs {
    /// The gate's number
    #[arg(value_name = "N", value_parser = gate_id)]
    gate: GateId,
    /// Decide only if this is still the digest of what is asked for
    #[arg(long)]
    digest: Option<Digest>,
    /// Say why; kept with the decision
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub(super) async fn run(session: &mut Session<'_>, command: GateCommand) -> Result<Exit, CliError> {
    match command {
        GateCommand::List { all } => list(session, all).await,
        GateCommand::Show { gate } => {
            let reply = session.client.get::<Gate>(&format!("/v1/gates/{gate}")).await?;
            let look = session.look();
            session.ui.show(&reply.raw, || show::render(&reply.view, &look))?;
            Ok(Exit::Done)
        }
        GateCommand::Approve(args) => decide(session, args, true).await,
        GateCommand::Deny(args) => decide(session, args, false).await,
    }
}

async fn list(session: &mut Session<'_>, all: bool) -> Result<Exit, CliError> {
    let path = if all { "/v1/gates?all=true" } else { "/v1/gates" };
    let reply = session.client.get::<Vec<Gate>>(path).await?;
    let look = session.look();
    session.ui.show(&reply.raw, || render_list(&reply.view, &look))?;
    Ok(Exit::Done)
}

/// Decides about what the gate shows at this moment, never about anything else: the digest that was shown, or
/// that the operator demands, goes with the decision, and the daemon refuses when it has moved.
async fn decide(session: &mut Session<'_>, args: DecideArgs, approve: bool) -> Result<Exit, CliError> {
    let DecideArgs {
        gate: id,
        digest,
        reason,
    } = args;
    let path = format!("/v1/gates/{id}");
    let gate = session.client.get::<Gate>(&path).await?.view;
    if let Some(demanded) = digest
        && demanded != gate.digest
    {
        let why = format!("it asks for {} now, not for {demanded}", gate.digest);
        return Err(CliError::GateMoved { gate: id, why });
    }
    let look = session.look();
    if gate.state != GateState::Open {
        return Err(CliError::NotOpen {
            gate: id,
            how: ended(&gate, &look),
        });
    }
    session.ui.page(&show::brief(&gate, &look))?;
    let request = DecisionRequest {
        approve,
        digest: gate.digest,
        reason,
    };
    let answer = session
        .client
        .post::<Gate>(&format!("{path}/decision"), &request)
        .await;
    let reply = answer.map_err(|error| match error {
        CliError::Refused(error) if error.code == ErrorCode::Conflict => CliError::GateMoved {
            gate: id,
            why: error.message,
        },
        other => other,
    })?;
    session.ui.show(&reply.raw, || decided(&reply.view))?;
    Ok(Exit::Done)
}

/// How a gate came not to be open, as the end of a sentence.
fn ended(gate: &Gate, look: &Look) -> String {
    let mut how = match &gate.decision {
        Some(decision) => {
            let verb = if decision.approve { "approved" } else { "denied" };
            format!("was {verb} by {} {}", decision.by, look.relative(decision.at))
        }
        None => format!("is {}", gate.state.as_str()),
    };
    if let Some(why) = &gate.ended_because {
        how.push_str(&format!(" and has ended ({why})"));
    } else if gate.completed_at.is_some() {
        how.push_str(" and carried out");
    }
    how
}

/// A gate's number, alone or as in `gate/3`.
fn gate_id(text: &str) -> Result<GateId, String> {
    text.strip_prefix("gate/")
        .unwrap_or(text)
        .parse()
        .map_err(|_| "a gate has a number; see them with `hive gate list`".to_owned())
}

fn decided(gate: &Gate) -> Page {
    let mut page = Page::default();
    let by = gate
        .decision
        .as_ref()
        .map_or_else(String::new, |decision| format!(" by {}", decision.by));
    let (symbol, word) = match gate.decision.as_ref().map(|decision| decision.approve) {
        Some(true) => (Tone::Good.of("✓ "), "approved"),
        Some(false) => (Tone::Bad.of("✗ "), "denied"),
        None => (Tone::Warn.of("! "), "not decided"),
    };
    page.line([symbol, format!("gate {} {word}{by}", gate.id).into()]);
    page
}

fn render_list(gates: &[Gate], look: &Look) -> Page {
    let mut page = Page::default();
    if gates.is_empty() {
        page.line([Tone::Good.of("✓ "), "no gates: nothing waits for you".into()]);
        return page;
    }
    let mut table = Table::with_header(&["GATE", "STATE", "AGENT", "CLASS", "ASKED BY", "OPENED", "WHAT"]);
    let (open, rest): (Vec<&Gate>, Vec<&Gate>) = gates.iter().partition(|gate| gate.state == GateState::Open);
    for gate in open.iter().chain(&rest) {
        table.row([
            Tone::Strong.of(gate.id.to_string()),
            words::gate_state(gate.state),
            words::agent(gate.agent.as_ref()),
            Tone::Plain.of(gate.class.as_str()),
            Tone::Plain.of(words::asker(gate)),
            Tone::Faint.of(look.relative(gate.opened_at)),
            Tone::Plain.of(&gate.view.summary),
        ]);
    }
    page.table(&table);
    page.gap();
    let summary = format!("{}, {} open", count(gates.len(), "gate"), open.len());
    page.line([summary.into()]);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn open_gates_are_listed_first() {
        let mut ended = fixtures::gate();
        ended.id = GateId(1);
        ended.state = GateState::Consumed;
        let page = render_list(&[ended, fixtures::gate()], &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
          GATE  STATE     AGENT  CLASS         ASKED BY  OPENED   WHAT
          3     open      alice  deployWidens  alice     3 m ago  deploy proposal 2 of alice: 1 change widens what it can do
          1     consumed  alice  deployWidens  alice     3 m ago  deploy proposal 2 of alice: 1 change widens what it can do

        2 gates, 1 open
        ");
    }

    #[test]
    fn no_gates_are_good_news() {
        let page = render_list(&[], &fixtures::look());
        assert_eq!(fixtures::plain(&page), "✓ no gates: nothing waits for you\n");
    }
}
