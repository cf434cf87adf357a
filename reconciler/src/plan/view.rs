//! Steps in words. Never an input to anything.

use std::collections::BTreeSet;

use shared::agent_api::ProposalPhase;
use shared::plan::StepView;

use crate::host::RefUpdate;
use crate::model::step::{Action, Authority, Interruption, PlannedStep, Step};

/// The hosts that a build may fetch from besides, for a person.
fn fetching(hosts: &BTreeSet<String>) -> String {
    if hosts.is_empty() {
        return String::new();
    }
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    format!(", fetching from {}", hosts.join(", "))
}

/// The last part of a system's path, shortened.
pub fn short_system(system: &str) -> String {
    let name = system.rsplit('/').next().unwrap_or(system);
    let name = name.strip_prefix("system1-").unwrap_or(name);
    name.chars().take(12).collect()
}

/// What an action does, in words.
pub fn action(action: &Action) -> String {
    match action {
        Action::AcceptRemoval { agents, .. } => {
            let names: Vec<&str> = agents.iter().map(|(name, _)| name.as_str()).collect();
            format!("stop what is no longer declared: {}", names.join(", "))
        }
        Action::Spawn => "make its repo and folders".to_owned(),
        Action::MakeDraft { .. } => "make the draft's config repo".to_owned(),
        Action::SpawnDraft { system, .. } => {
            format!("make the draft an agent, with system {}", short_system(system))
        }
        Action::EndOffer { reason, .. } => format!("end the offer to spawn it ({reason})"),
        Action::DropStaged => "delete the draft's staged files".to_owned(),
        Action::DropDraft => "delete the draft that was given up".to_owned(),
        Action::SetPhase {
            number,
            phase,
            reason,
        } => {
            let word = match phase {
                ProposalPhase::Proposed => "wait for its gate",
                ProposalPhase::Building => "be built",
                ProposalPhase::Approved => "be approved",
                ProposalPhase::Deployed => "be deployed",
                ProposalPhase::Failed => "be marked failed",
                ProposalPhase::Denied => "be marked denied",
            };
            let why = if reason.is_empty() {
                String::new()
            } else {
                format!(" ({reason})")
            };
            format!("proposal {number} is to {word}{why}")
        }
        Action::Build {
            request,
            proposal: Some(number),
            hosts,
            ..
        } => {
            format!(
                "build proposal {number} ({}){}",
                request.commit.short(),
                fetching(hosts)
            )
        }
        Action::Build {
            request,
            proposal: None,
            hosts,
            ..
        } => {
            format!(
                "build {} with what the spec says{}",
                request.commit.short(),
                fetching(hosts)
            )
        }
        Action::Deploy {
            system,
            proposal,
            interrupts,
            ..
        } => {
            let source = proposal.map_or_else(|| "the spec's".to_owned(), |n| format!("proposal {n}:"));
            let how = match interrupts {
                Interruption::None => "",
                Interruption::Reload => ", reloading the agent",
                Interruption::Restart => ", restarting the agent",
            };
            format!("deploy {source} system {}{how}", short_system(system))
        }
        Action::ProjectRef(RefUpdate::Main { to, .. }) => format!("move main to {}", to.short()),
        Action::ProjectRef(RefUpdate::Tag { name, .. }) => format!("write tag {name}"),
        Action::ProjectRef(RefUpdate::DeleteTag { name, .. }) => format!("delete tag {name}"),
        Action::Activate { system, .. } => {
            format!("write launch and config files of {}", short_system(system))
        }
        Action::Obey { number, verb, .. } => {
            format!("carry out order {number} of a manager: {}", verb.as_str())
        }
        Action::EndOrder { number, reason } => format!("end order {number} of a manager ({reason})"),
        Action::Start { .. } => "start".to_owned(),
        Action::Stop { .. } => "stop".to_owned(),
        Action::Restart { .. } => "restart".to_owned(),
        Action::Limit { found, .. } => format!("put its limits back: {found}"),
        Action::ProbationClock { active: true } => "start the clock of its probation".to_owned(),
        Action::ProbationClock { active: false } => "stop the clock of its probation".to_owned(),
        Action::MarkGood { system } => format!("mark {} as the last good system", short_system(system)),
        Action::Revert {
            to: Some(to), reason, ..
        } => {
            format!("go back to the last good system {} ({reason})", short_system(to))
        }
        Action::Revert { to: None, reason, .. } => format!("give up its first system ({reason})"),
        Action::Halt { reason, .. } => {
            format!("stop it: the narrowed system failed its probation ({reason})")
        }
        Action::NoteFailure { what, .. } => format!("note that it {what}"),
        Action::NoteOutOfMemory { kills, .. } => {
            format!("note that the kernel killed processes of it for want of memory ({kills} so far)")
        }
        Action::ClearFailures => "forget earlier failures".to_owned(),
        Action::Archive => "move its state and repo to the archive".to_owned(),
        Action::Restore => "move its state and repo back from the archive".to_owned(),
        Action::Purge { agent, .. } => format!("delete what the archive keeps of {agent}"),
    }
}

/// A step in words, with the agent it concerns.
pub fn summary(step: &Step) -> String {
    match &step.agent {
        Some(agent) => format!("{agent}: {}", action(&step.action)),
        None => action(&step.action),
    }
}

/// A step as shown.
pub fn step(planned: &PlannedStep) -> StepView {
    let Step {
        agent,
        uid: _,
        action: doing,
        authority,
    } = &planned.step;
    let (expected_before, expected_after) = expectations(doing);
    StepView {
        agent: agent.clone(),
        kind: doing.kind().to_owned(),
        summary: action(doing),
        effect: doing.effect_class(),
        gate_class: match authority {
            Authority::Class { class, .. } => Some(*class),
            Authority::Free | Authority::Under(_) => None,
        },
        gate: match authority {
            Authority::Under(gate) => Some(*gate),
            Authority::Free | Authority::Class { .. } => None,
        },
        expected_before,
        expected_after,
    }
}

fn expectations(action: &Action) -> (Option<String>, Option<String>) {
    let text = |text: &dyn std::fmt::Display| Some(text.to_string());
    match action {
        Action::Deploy { from, system, .. } => (from.clone(), Some(system.clone())),
        Action::SpawnDraft { system, .. } => (None, Some(system.clone())),
        Action::ProjectRef(RefUpdate::Main { from, to }) => {
            (from.as_ref().map(ToString::to_string), text(to))
        }
        Action::ProjectRef(RefUpdate::Tag { from, commit, .. }) => {
            (from.as_ref().map(ToString::to_string), text(commit))
        }
        Action::ProjectRef(RefUpdate::DeleteTag { from, .. }) => (text(from), None),
        Action::Activate { system, .. } => (None, Some(system.clone())),
        Action::Start { toplevel } => (Some("not running".to_owned()), text(toplevel)),
        Action::Stop { run } => (Some(format!("run {run}")), Some("not running".to_owned())),
        Action::Restart { toplevel, run } => (Some(format!("run {run}")), text(toplevel)),
        Action::Revert { failed, to, .. } => (Some(failed.clone()), to.clone()),
        _ => (None, None),
    }
}
