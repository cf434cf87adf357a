//! `hive plan`: what would be done, in the order in which an operator should read it.

use shared::AgentName;
use shared::plan::{EffectClass, PlanView, StepView};

use super::error::CliError;
use super::exit::{Exit, Facts, exit};
use super::look::Look;
use super::page::{Page, Table, Tone};
use super::text::count;
use super::{Session, of_agent, words};

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
    fn of(step: &StepView) -> Self {
        if step.effect == EffectClass::Destructive {
            Self::Destructive
        } else if step.gate.is_some() {
            Self::Gated
        } else {
            Self::Other
        }
    }
}

fn render(plans: &[PlanView], look: &Look) -> Page {
    let mut page = Page::default();
    let mut counts = Vec::new();
    for (part, title, noun) in [
        (Part::Destructive, "Destructive", "destructive"),
        (Part::Gated, "Behind a gate", "behind a gate"),
        (Part::Other, "Steps", ""),
    ] {
        let found = steps(&mut page, plans, part, title);
        if found > 0 && part != Part::Other {
            counts.push(format!("{found} {noun}"));
        }
    }
    let blocked = blocked(&mut page, plans, look);
    if blocked > 0 {
        counts.push(format!("{blocked} blocked"));
    }
    let all: usize = plans.iter().map(|plan| plan.steps.len()).sum();
    let unchanged = plans
        .iter()
        .filter(|plan| plan.steps.is_empty() && plan.waiting.is_empty());
    match unchanged.count() {
        0 => {}
        n => counts.push(format!("{n} unchanged")),
    }
    page.gap();
    let total = if all == 0 {
        "nothing to do".to_owned()
    } else {
        count(all, "step")
    };
    let detail = if counts.is_empty() { "" } else { ": " };
    page.line([format!("{total}{detail}{}", counts.join(", ")).into()]);
    page
}

fn steps(page: &mut Page, plans: &[PlanView], part: Part, title: &str) -> usize {
    let mut table = Table::default();
    let mut found = 0;
    for step in plans
        .iter()
        .flat_map(|plan| &plan.steps)
        .filter(|step| Part::of(step) == part)
    {
        found += 1;
        let (tone, symbol) = match step.effect {
            EffectClass::Additive => (Tone::Good, "+"),
            EffectClass::Restart => (Tone::Info, "~"),
            EffectClass::Destructive => (Tone::Bad, "-"),
            EffectClass::RunsAgentCode => (Tone::Warn, "!"),
        };
        let permission = match (step.gate, step.gate_class) {
            (Some(gate), Some(class)) => Tone::Warn.of(format!("◆ gate {gate} ({class})")),
            (Some(gate), None) => Tone::Warn.of(format!("◆ gate {gate}")),
            (None, Some(class)) => Tone::Faint.of(class.as_str()),
            (None, None) => Tone::Plain.of(""),
        };
        table.row([
            tone.of(symbol),
            words::agent(step.agent.as_ref()),
            tone.of(&step.kind),
            Tone::Faint.of(step.effect.as_str()),
            Tone::Plain.of(&step.summary),
            permission,
        ]);
    }
    if found > 0 {
        page.heading(title);
        page.table(&table);
    }
    found
}

fn blocked(page: &mut Page, plans: &[PlanView], look: &Look) -> usize {
    let found = plans.iter().map(|plan| plan.waiting.len()).sum();
    if found > 0 {
        page.heading("Blocked");
        for plan in plans {
            for waiting in &plan.waiting {
                words::blocked(page, waiting, plan.agent.as_ref(), look);
            }
        }
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
          -  bob  archive  destructive  archive the state of bob  ◆ gate 4 (archive)

        Behind a gate
          !  alice  deploy  runs agent code  deploy proposal 2  ◆ gate 3 (deployWidens)

        Steps
          +  alice  tag  additive  write tag proposal/2

        Blocked
          alice  deploy proposal 2 - waits on gate 3 (deployWidens)
            → hive gate show 3
          carol  start - tries again in 30 s after 3 failures: no sandbox
          carol  build - stalled: agent.json: unknown field `modle`
            → hive retry carol

        3 steps: 1 destructive, 1 behind a gate, 3 blocked, 1 unchanged
        ");
    }

    #[test]
    fn an_empty_plan_is_one_line() {
        let page = render(&[], &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        nothing to do
        ");
    }
}
