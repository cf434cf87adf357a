//! `hive plan`: what would be done, in the order in which an operator should read it.

use std::collections::BTreeSet;

use shared::plan::{EffectClass, PlanView, StepView, Waiting, WaitingOn};
use shared::{AgentName, GateId};

use super::error::CliError;
use super::exit::{Exit, Facts, exit};
use super::look::Look;
use super::page::{Page, Table, Tone};
use super::text::count;
use super::{Session, of_agent, words};

/// The kinds of step that change nothing but the books.
const BOOKKEEPING: [&str; 6] = [
    "setPhase",
    "probationClock",
    "markGood",
    "noteFailure",
    "clearFailures",
    "projectRef",
];

/// Arguments of `hive plan`.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// Show only this agent's plan
    agent: Option<AgentName>,
}

pub(super) async fn run(session: &mut Session<'_>, args: PlanArgs) -> Result<Exit, CliError> {
    let path = format!("/v1/plan{}", of_agent(args.agent.as_ref()));
    let reply = session.client.get::<Vec<PlanView>>(&path).await?;
    let look = session.look();
    session.ui.show(&reply.raw, || render(&reply.view, &look))?;
    Ok(exit(Facts::of_plans(&reply.view)))
}

/// The parts of a plan, the most consequential first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Destructive,
    Gated,
    Other,
}

impl Part {
    fn of(step: &StepView, gate: Option<GateId>) -> Self {
        if step.effect == EffectClass::Destructive {
            Self::Destructive
        } else if gate.is_some() {
            Self::Gated
        } else {
            Self::Other
        }
    }
}

pub(super) fn render(plans: &[PlanView], look: &Look) -> Page {
    let mut page = Page::default();
    if plans
        .iter()
        .all(|plan| plan.steps.is_empty() && plan.waiting.is_empty())
    {
        page.line([Tone::Good.of("✓ "), "nothing to do".into()]);
        return page;
    }
    let mut counts = Vec::new();
    for (part, title, noun) in [
        (Part::Destructive, "Destructive", "destructive"),
        (Part::Gated, "Behind a gate", "behind a gate"),
        (Part::Other, "Steps", ""),
    ] {
        let found = steps(&mut page, plans, part, title, look);
        if found > 0 && part != Part::Other {
            counts.push(format!("{found} {noun}"));
        }
    }
    let blocked = blocked(&mut page, plans, look);
    if blocked > 0 {
        counts.push(format!("{blocked} blocked"));
    }
    page.gap();
    let total = match plans.iter().map(|plan| plan.steps.len()).sum() {
        0 => "no step is due".to_owned(),
        all => count(all, "step"),
    };
    let detail = if counts.is_empty() { "" } else { ": " };
    page.line([format!("{total}{detail}{}", counts.join(", ")).into()]);
    page
}

/// The gate that a step waits at, whether its approval or still its decision is missing.
fn gate_of(plan: &PlanView, step: &StepView) -> Option<GateId> {
    let at = |waiting: &Waiting| match waiting.on {
        WaitingOn::Gate { gate, .. } if waiting.what == step.summary => Some(gate),
        _ => None,
    };
    step.gate.or_else(|| plan.waiting.iter().find_map(at))
}

/// Whether a step only writes down what happened: one line is enough for all of them.
fn is_bookkeeping(step: &StepView) -> bool {
    BOOKKEEPING.contains(&step.kind.as_str())
}

fn steps(page: &mut Page, plans: &[PlanView], part: Part, title: &str, look: &Look) -> usize {
    let mut table = Table::default();
    let mut gates = BTreeSet::new();
    let (mut found, mut folded) = (0, 0);
    let all = plans
        .iter()
        .flat_map(|plan| plan.steps.iter().map(|step| (step, gate_of(plan, step))));
    for (step, gate) in all.filter(|(step, gate)| Part::of(step, *gate) == part) {
        found += 1;
        if part == Part::Other && is_bookkeeping(step) {
            folded += 1;
            continue;
        }
        gates.extend(gate);
        let (tone, symbol) = match step.effect {
            EffectClass::Additive => (Tone::Good, "+"),
            EffectClass::Restart => (Tone::Info, "~"),
            EffectClass::Destructive => (Tone::Bad, "-"),
            EffectClass::RunsAgentCode => (Tone::Warn, "!"),
        };
        let permission = match (gate, step.gate_class) {
            (Some(gate), Some(class)) => Tone::Warn.of(format!("◆ gate {gate} ({class})")),
            (Some(gate), None) => Tone::Warn.of(format!("◆ gate {gate}")),
            (None, Some(class)) => Tone::Faint.of(class.as_str()),
            (None, None) => Tone::Plain.of(""),
        };
        table.row([
            tone.of(symbol),
            words::agent(step.agent.as_ref()),
            Tone::Plain.of(&step.summary),
            Tone::Faint.of(step.effect.as_str()),
            permission,
        ]);
    }
    if found > 0 {
        page.heading(title);
        page.table(&table);
    }
    for gate in gates {
        let show = look.command(&format!("hive gate show {gate}"));
        page.line([Tone::Faint.of("    → "), show]);
    }
    if folded > 0 {
        let noun = if folded == 1 { "note" } else { "notes" };
        page.line([Tone::Faint.of(format!("  and {folded} {noun} in the ledger and the repo's tags"))]);
    }
    found
}

/// What waits, except at gates that stand beside their steps already.
fn blocked(page: &mut Page, plans: &[PlanView], look: &Look) -> usize {
    let waits = plans.iter().flat_map(|plan| {
        let shown: BTreeSet<GateId> = plan.steps.iter().filter_map(|step| gate_of(plan, step)).collect();
        let rest = plan.waiting.iter().filter(move |waiting| match waiting.on {
            WaitingOn::Gate { gate, .. } => !shown.contains(&gate),
            _ => true,
        });
        rest.map(|waiting| (plan.agent.as_ref(), waiting))
    });
    let mut found = 0;
    for (agent, waiting) in waits {
        if found == 0 {
            page.heading("Blocked");
        }
        found += 1;
        words::blocked(page, waiting, agent, look);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn destructive_steps_come_first_then_gated_then_the_rest() {
        let page = render(&fixtures::plans(), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        Destructive
          -  bob  archive the state of bob  destructive  ◆ gate 4 (archive)
            → hive gate show 4

        Behind a gate
          !  alice  deploy proposal 2  runs agent code  ◆ gate 3 (deployWidens)
            → hive gate show 3

        Steps
          +  alice  write tag proposal/2  additive

        Blocked
          carol  start - tries again in 30 s after 3 failures: no sandbox
          carol  build - stalled: agent.json: unknown field `modle`
            → hive retry carol

        3 steps: 1 destructive, 1 behind a gate, 2 blocked
        ");
    }

    #[test]
    fn an_empty_plan_is_one_line() {
        let page = render(&[], &fixtures::look());
        assert_eq!(fixtures::plain(&page), "✓ nothing to do\n");
    }
}
