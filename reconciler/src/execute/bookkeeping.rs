//! Steps that change the ledger alone: one transaction, nothing outside.

use jiff::Timestamp;
use shared::agent_api::ProposalPhase;
use shared::event::Level;
use shared::topic::Topic;

use super::{deploy, ended, event, plain_mark, told};
use crate::model::change::{Change, Notice};
use crate::model::records::{AgentLedger, Failures, OutOfMemory};
use crate::model::step::Action;
use crate::plan::trial::clocked;

/// The changes of a bookkeeping step; `None` when the step has an effect outside.
pub(crate) fn changes(
    action: &Action,
    agent: &AgentLedger,
    watched_since: Timestamp,
    now: Timestamp,
) -> Option<Vec<Change>> {
    let record = &agent.record;
    let (uid, name) = (record.uid, &record.name);
    Some(match action {
        Action::SetPhase {
            number,
            phase,
            reason,
        } => {
            let known = agent.proposals.iter().find(|proposal| proposal.number == *number);
            let mut changes: Vec<Change> = known
                .map(|proposal| Change::InPhase {
                    uid,
                    number: *number,
                    phase: proposal.phase,
                })
                .into_iter()
                .collect();
            match phase {
                ProposalPhase::Failed | ProposalPhase::Denied => {
                    changes.extend(ended(agent, *number, *phase, reason, now));
                }
                ProposalPhase::Proposed
                | ProposalPhase::Building
                | ProposalPhase::Approved
                | ProposalPhase::Deployed => changes.push(Change::Phase {
                    uid,
                    number: *number,
                    phase: *phase,
                    mark: plain_mark(now, reason),
                }),
            }
            changes
        }
        Action::EndOffer { offered_at, reason } => vec![Change::OfferEnded {
            uid,
            offered_at: *offered_at,
            reason: reason.clone(),
            at: now,
        }],
        Action::EndOrder { number, reason } => vec![Change::OrderEnded {
            uid,
            number: *number,
            reason: reason.clone(),
            at: now,
        }],
        Action::ProbationClock { active } => {
            let probation = agent
                .probation
                .as_ref()
                .map(|trial| clocked(trial, *active, watched_since, now));
            vec![Change::Probation { uid, probation }]
        }
        Action::MarkGood { system } => {
            let deployed = record.deployed.as_ref().filter(|d| d.output.system == *system);
            let mut changes = vec![Change::Probation { uid, probation: None }];
            if let Some(deployed) = deployed {
                changes.push(Change::LastGood {
                    uid,
                    deployed: Box::new(deployed.clone()),
                });
                let short = crate::plan::view::short_system(system);
                let message = format!("{name}: system {short} passed its probation");
                changes.push(event(name, Level::Info, "passedProbation", message, now));
            }
            changes
        }
        Action::Revert {
            failed,
            to: _,
            reason,
        } => deploy::revert(agent, failed, reason, now),
        Action::Halt { failed, reason } => deploy::halt(agent, failed, reason, now),
        Action::NoteFailure {
            at,
            what,
            out_of_memory,
        } => {
            let count = agent.failures.count.saturating_add(1);
            let failures = Failures {
                count,
                last_at: Some(*at),
                last: what.clone(),
            };
            let mut changes = vec![
                Change::Failures { uid, failures },
                event(
                    name,
                    Level::Warning,
                    "ended",
                    format!("{name} {what} (time {count} in a row)"),
                    now,
                ),
            ];
            // Less and less often: an agent that keeps ending must not keep its managers busy.
            if count.is_power_of_two() {
                let body = format!("{name} {what} (time {count} in a row); it is started again by itself");
                let ended = format!("ended:{at}");
                if *out_of_memory {
                    changes.extend(told(agent, Topic::OutOfMemory, &body, &ended, now));
                } else {
                    changes.push(Change::NotifyManagers {
                        about: name.clone(),
                        notice: Notice {
                            topic: Topic::Crashed,
                            body,
                            dedupe: format!("{uid}:{ended}"),
                            at: now,
                        },
                    });
                }
            }
            if let Some(trial) = agent.probation.as_ref().filter(|_| !is_older(agent, *at, now)) {
                let mut stopped = clocked(trial, false, watched_since, now);
                stopped.failed_starts = stopped.failed_starts.saturating_add(1);
                changes.push(Change::Probation {
                    uid,
                    probation: Some(stopped),
                });
            }
            changes
        }
        Action::NoteOutOfMemory { run, kills } => out_of_memory(agent, run, *kills, now),
        Action::ClearFailures => {
            let message = format!("{name} has recovered");
            vec![
                Change::Failures {
                    uid,
                    failures: Failures::default(),
                },
                event(name, Level::Info, "recovered", message, now),
            ]
        }
        Action::AcceptRemoval { .. }
        | Action::Spawn
        | Action::MakeDraft { .. }
        | Action::SpawnDraft { .. }
        | Action::DropStaged
        | Action::DropDraft
        | Action::Build { .. }
        | Action::Deploy { .. }
        | Action::ProjectRef(_)
        | Action::Activate { .. }
        | Action::Obey { .. }
        | Action::Start { .. }
        | Action::Stop { .. }
        | Action::Restart { .. }
        | Action::Limit { .. }
        | Action::Archive
        | Action::Restore
        | Action::Purge { .. } => return None,
    })
}

/// Processes of a run that goes on were killed for want of memory: its agent and the managers are told.
fn out_of_memory(agent: &AgentLedger, run: &str, kills: u64, now: Timestamp) -> Vec<Change> {
    let record = &agent.record;
    let name = &record.name;
    let deployed = record.deployed.as_ref();
    let limit = deployed.and_then(|deployed| deployed.output.launch.limits.memory.as_deref());
    let why = limit.map_or_else(
        || "it has no limit of its own, so the host ran short".to_owned(),
        |limit| format!("limits.memory is {limit}"),
    );
    let body = format!(
        "the kernel killed a process of {name} for want of memory ({kills} so far in this run; {why})"
    );
    let noted = OutOfMemory {
        run: run.to_owned(),
        kills,
    };
    let mut changes = vec![
        Change::OutOfMemory {
            uid: record.uid,
            told: noted,
        },
        event(name, Level::Warning, "outOfMemory", body.clone(), now),
    ];
    changes.extend(told(
        agent,
        Topic::OutOfMemory,
        &body,
        &format!("outOfMemory:{run}:{kills}"),
        now,
    ));
    changes
}

/// Whether what ended then ended before what is deployed was: that says nothing about it. A deployment in the future was
/// made before the clock was set back, and is older than all that ends now.
fn is_older(agent: &AgentLedger, ended: Timestamp, now: Timestamp) -> bool {
    let deployed = agent.record.deployed.as_ref();
    deployed.is_some_and(|deployed| ended < deployed.at && deployed.at <= now)
}
