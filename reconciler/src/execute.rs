//! Carries out one step at a time.
//!
//! Around every effect outside stand two ledger transactions: `begin` notes the intent and uses up the approval,
//! `complete` notes the outcome together with all that follows from it. A crash between the two leaves the step
//! planned again, or its effect visible; either way the next pass finishes it. Bookkeeping is one transaction and
//! needs neither. What runs under a gate is the step stored with the gate, never a recomputed one.

pub mod bookkeeping;
mod build;
pub mod deploy;
pub mod spawn;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;
use shared::agent_api::ProposalPhase;
use shared::canonical::NotCanonical;
use shared::event::Level;
use shared::gate::Gate;
use shared::spec::RunState;
use shared::topic::Topic;
use shared::{AgentName, AgentUid};

use crate::counters::Counted;
use crate::gate::backoff;
use crate::host::{Host, HostError, UnitState};
use crate::ledger::{BeginError, Ledger, LedgerError};
use crate::model::change::{Change, Notice};
use crate::model::draft::Rules;
use crate::model::records::{AgentLedger, AgentLife, Mark};
use crate::model::step::{Action, PlannedStep};
use crate::plan::refs;
use crate::plan::schedule::Ready;

/// The step could not be carried out for a reason that is not the step's.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger did not let the step begin.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// A value has no canonical form.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
}

/// What holds at the time of a step, besides what the ledger says.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// When this daemon began to watch.
    pub watched_since: Timestamp,
    /// What the spec says about drafts.
    pub rules: Rules,
}

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It failed and will be tried again, or is stuck.
    Failed,
    /// What it expected no longer holds: nothing was executed.
    Abandoned,
}

/// What one effect came to.
enum Effect {
    /// Done; these changes follow.
    Done(Vec<Change>),
    /// What it expected no longer holds.
    Gone(String),
}

/// Carries out a step that [`crate::plan::schedule`] found ready. The caller holds the agent's lock.
///
/// # Errors
/// When the ledger fails. A failure of the step itself is an outcome.
pub async fn step(
    host: &Host,
    ledger: &Ledger,
    agent: &AgentLedger,
    ready: &Ready,
    moment: Moment,
) -> Result<Outcome, ExecuteError> {
    let now = host.clock.now();
    let step = &ready.planned.step;
    if let Some(changes) = bookkeeping::changes(&step.action, agent, moment.watched_since, now) {
        let (outcome, word) = match ledger.apply(changes).await {
            Ok(()) => (Outcome::Done, "done"),
            // Somebody decided in the meantime; the next round sees it.
            Err(LedgerError::Overtaken { .. }) => (Outcome::Abandoned, "abandoned"),
            Err(error) => return Err(error.into()),
        };
        count(ledger, &step.action, word);
        return Ok(outcome);
    }
    let stored = ready
        .gate
        .and_then(|gate| agent.gates.iter().find(|record| record.gate.id == gate));
    let step = stored.map_or(&ready.planned.step, |record| &record.step);
    around(
        host,
        ledger,
        ready,
        Some(agent.record.uid),
        carry_out(host, ledger, agent, ready, &step.action, moment.rules),
    )
    .await
}

/// Carries out a step of the hive itself.
///
/// # Errors
/// When the ledger fails.
pub async fn hive_step(host: &Host, ledger: &Ledger, ready: &Ready) -> Result<Outcome, ExecuteError> {
    let now = host.clock.now();
    let effect = async {
        Ok(match &ready.planned.step.action {
            Action::AcceptRemoval { agents, .. } => Effect::Done(removal(agents, now)),
            Action::Purge { agent, uid } => {
                host.folders.doom(agent, *uid).await?;
                host.runtime.wipe(agent, *uid).await?;
                host.folders.purge(agent, *uid).await?;
                Effect::Done(purged(agent, *uid, host.clock.now()))
            }
            other => Effect::Gone(format!("{} is not a step of the hive", other.kind())),
        })
    };
    around(host, ledger, ready, None, effect).await
}

fn removal(agents: &[(AgentName, AgentUid)], now: Timestamp) -> Vec<Change> {
    let of_one = |(name, uid): &(AgentName, AgentUid)| {
        let message = format!("{name} is no longer declared: it is stopped");
        [
            Change::Life {
                uid: *uid,
                life: AgentLife::Removed { since: now },
            },
            event(name, Level::Warning, "agentRemoved", message, now),
        ]
    };
    agents.iter().flat_map(of_one).collect()
}

fn purged(agent: &AgentName, uid: AgentUid, now: Timestamp) -> Vec<Change> {
    let message = format!("nothing is kept of {agent} any more but its history");
    vec![
        Change::Life {
            uid,
            life: AgentLife::Purged { since: now },
        },
        event(agent, Level::Warning, "purged", message, now),
    ]
}

/// The two transactions around an effect.
async fn around(
    host: &Host,
    ledger: &Ledger,
    ready: &Ready,
    uid: Option<AgentUid>,
    effect: impl Future<Output = Result<Effect, HostError>>,
) -> Result<Outcome, ExecuteError> {
    let PlannedStep {
        id,
        effect_digest,
        step,
        ..
    } = &ready.planned;
    let begun_at = host.clock.now();
    let jitter = host.ids.jitter();
    let next_at = backoff(1, jitter, begun_at);
    let attempt = ledger
        .begin(uid, id.clone(), ready.gate, effect_digest, begun_at, next_at)
        .await?;
    tracing::info!(
        agent = step.agent.as_ref().map(AgentName::as_str),
        step = step.action.kind(),
        "step begins"
    );
    let result = effect.await;
    let now = host.clock.now();
    match result {
        Ok(Effect::Done(changes)) => {
            ledger.complete(uid, id.clone(), ready.gate, changes, now).await?;
            count(ledger, &step.action, "done");
            Ok(Outcome::Done)
        }
        Ok(Effect::Gone(reason)) => {
            tracing::warn!(step = step.action.kind(), reason, "step abandoned");
            ledger.abandon(uid, id.clone(), ready.gate, reason, now).await?;
            count(ledger, &step.action, "abandoned");
            Ok(Outcome::Abandoned)
        }
        Err(error) => {
            let message = error.chain();
            tracing::warn!(
                step = step.action.kind(),
                error = message,
                tries = attempt.count,
                "step failed"
            );
            let next_at = backoff(attempt.count, jitter, now);
            ledger
                .fail(uid, id.clone(), message, next_at, error.is_terminal(), now)
                .await?;
            count(ledger, &step.action, "failed");
            Ok(Outcome::Failed)
        }
    }
}

fn count(ledger: &Ledger, action: &Action, outcome: &'static str) {
    let kind = action.kind();
    ledger.counters().add(Counted::Step { kind, outcome });
}

/// An event about an agent.
pub(crate) fn event(
    agent: &AgentName,
    level: Level,
    kind: &'static str,
    message: impl Into<String>,
    at: Timestamp,
) -> Change {
    Change::Event {
        agent: Some(agent.clone()),
        level,
        kind,
        message: message.into(),
        data: json!({}),
        at,
    }
}

async fn carry_out(
    host: &Host,
    ledger: &Ledger,
    agent: &AgentLedger,
    ready: &Ready,
    action: &Action,
    rules: Rules,
) -> Result<Effect, HostError> {
    let record = &agent.record;
    let (name, uid) = (&record.name, record.uid);
    match action {
        Action::Spawn => {
            host.folders.prepare(name).await?;
            let commit = host.repos.ensure(name, &seed_files(name)).await?;
            let now = host.clock.now();
            Ok(Effect::Done(vec![
                Change::Seeded { uid, commit },
                Change::Life {
                    uid,
                    life: AgentLife::Active,
                },
                event(
                    name,
                    Level::Info,
                    "spawned",
                    format!("{name} has its repo and folders"),
                    now,
                ),
                Change::NotifyManagers {
                    about: name.clone(),
                    notice: Notice {
                        topic: Topic::Spawned,
                        body: format!("{name} was spawned"),
                        dedupe: format!("{uid}:spawned"),
                        at: now,
                    },
                },
            ]))
        }
        Action::Build { .. } => build::carry_out(host, agent, action).await,
        Action::MakeDraft { .. } => spawn::make(host, agent, action).await,
        Action::SpawnDraft { .. } => spawn::spawn(host, ledger, agent, ready, action, rules).await,
        Action::DropStaged => {
            host.staging.keep(uid, BTreeSet::new()).await?;
            Ok(Effect::Done(vec![Change::Draft { uid, draft: None }]))
        }
        Action::DropDraft => {
            host.staging.discard(name, uid).await?;
            host.repos.delete(name).await?;
            let since = host.clock.now();
            Ok(Effect::Done(vec![
                Change::Life {
                    uid,
                    life: AgentLife::Purged { since },
                },
                Change::Draft { uid, draft: None },
            ]))
        }
        Action::Deploy { .. } => deploy::carry_out(host, agent, ready, action).await,
        Action::ProjectRef(update) => {
            host.repos.update_ref(name, update).await?;
            let now = host.clock.now();
            let drift = refs::drift(record, &agent.proposals, update);
            let told =
                drift.map(|what| event(name, Level::Warning, "refPutBack", format!("{name}: {what}"), now));
            Ok(Effect::Done(told.into_iter().collect()))
        }
        Action::Activate {
            system,
            toplevel,
            config,
        } => {
            let Some(output) = record
                .deployed
                .as_ref()
                .map(|d| &d.output)
                .filter(|o| o.system == *system && o.toplevel == *toplevel && o.config_digest == *config)
            else {
                return Ok(Effect::Gone("another system was deployed meanwhile".to_owned()));
            };
            host.folders
                .activate(name, system, &output.launch_file(), &output.config_file())
                .await?;
            let gated = agent.gates.iter().filter_map(|known| known.gate.system.clone());
            let last_good = record.last_good.iter().map(|good| good.output.system.clone());
            // What is kept too long harms nobody.
            if let Err(error) = host
                .builder
                .retain(name, system, &gated.chain(last_good).collect())
                .await
            {
                tracing::warn!(agent = %name, error = error.chain(), "old systems were not forgotten");
            }
            Ok(Effect::Done(Vec::new()))
        }
        Action::Obey { number, declared, .. } => {
            Ok(Effect::Done(obeyed(host, agent, ready, *number, *declared)))
        }
        Action::Start { toplevel } => start(host, agent, toplevel).await,
        Action::Stop { run } => {
            stop(host, name, run).await?;
            let now = host.clock.now();
            Ok(Effect::Done(vec![event(
                name,
                Level::Info,
                "stopped",
                format!("{name} is stopped"),
                now,
            )]))
        }
        Action::Restart { toplevel, run } => {
            let deployed = record.deployed.as_ref().map(|d| &d.output);
            if let Some(output) = deployed.filter(|o| o.toplevel == *toplevel) {
                host.runtime.can_start(&output.launch_file()).await?;
            }
            stop(host, name, run).await?;
            start(host, agent, toplevel).await
        }
        Action::Limit { limits, found } => {
            host.runtime.limit(name, limits).await?;
            let message = format!("limits of {name} were changed underneath it and are put back: {found}");
            let told = event(name, Level::Warning, "limitsPutBack", message, host.clock.now());
            Ok(Effect::Done(vec![told]))
        }
        Action::Archive => {
            // What was seen may be older than its last start, and its folders must not go from under it.
            host.runtime.stop(name).await?;
            host.folders.archive(name, uid).await?;
            host.builder.forget(name).await?;
            let now = host.clock.now();
            Ok(Effect::Done(vec![
                Change::Life {
                    uid,
                    life: AgentLife::Archived { since: now },
                },
                event(
                    name,
                    Level::Warning,
                    "archived",
                    format!("{name} lies in the archive"),
                    now,
                ),
                Change::NotifyManagers {
                    about: name.clone(),
                    notice: Notice {
                        topic: Topic::Archived,
                        body: format!("{name} was archived"),
                        dedupe: format!("{uid}:archived"),
                        at: now,
                    },
                },
            ]))
        }
        Action::Restore => {
            host.folders.restore(name, uid).await?;
            let now = host.clock.now();
            let body = format!("{name} is back from the archive");
            let life = AgentLife::Active;
            Ok(Effect::Done(vec![
                Change::Life { uid, life },
                event(name, Level::Info, "restored", body.clone(), now),
                Change::NotifyManagers {
                    about: name.clone(),
                    notice: Notice {
                        topic: Topic::Restored,
                        body,
                        dedupe: format!("{uid}:restored:{now}"),
                        at: now,
                    },
                },
            ]))
        }
        Action::AcceptRemoval { .. }
        | Action::Purge { .. }
        | Action::SetPhase { .. }
        | Action::EndOffer { .. }
        | Action::EndOrder { .. }
        | Action::ProbationClock { .. }
        | Action::MarkGood { .. }
        | Action::Revert { .. }
        | Action::Halt { .. }
        | Action::NoteFailure { .. }
        | Action::NoteOutOfMemory { .. }
        | Action::ClearFailures => Ok(Effect::Gone("it changes nothing outside".to_owned())),
    }
}

/// What a new agent's repo starts with.
fn seed_files(name: &AgentName) -> BTreeMap<String, String> {
    let readme = format!(
        "# Config of {name}\n\nCommit a change to `agent.json` and propose it. The fields prompt, driver, mcpServers,\n\
         tools, recipients and network overlay what the operator declared.\n"
    );
    BTreeMap::from([
        ("README.md".to_owned(), readme),
        ("agent.json".to_owned(), "{}\n".to_owned()),
    ])
}

/// What puts an order in force. Who gave it is told when a person allowed it: nobody waited for a policy.
fn obeyed(host: &Host, agent: &AgentLedger, ready: &Ready, number: u64, declared: RunState) -> Vec<Change> {
    let (record, at) = (&agent.record, host.clock.now());
    let uid = record.uid;
    let mut changes = vec![Change::Obey {
        uid,
        number,
        declared,
        gate: ready.gate,
        at,
    }];
    let gate = agent.gates.iter().find(|known| Some(known.gate.id) == ready.gate);
    let by_policy = |gate: &Gate| {
        gate.decision
            .as_ref()
            .is_some_and(|d| d.by.starts_with("policy:"))
    };
    let asked = gate.is_some_and(|known| !by_policy(&known.gate));
    if let Some(order) = record.order.as_deref().filter(|_| asked) {
        changes.push(Change::Notify {
            agent: order.by.clone(),
            notice: Notice {
                topic: Topic::Order,
                body: format!("the operator agreed that {} {}", record.name, order.verb.effect()),
                dedupe: format!("{uid}:order:{number}:agreed"),
                at,
            },
        });
    }
    changes
}

async fn start(host: &Host, agent: &AgentLedger, toplevel: &shared::Digest) -> Result<Effect, HostError> {
    let name = &agent.record.name;
    let Some(output) = agent
        .record
        .deployed
        .as_ref()
        .map(|d| &d.output)
        .filter(|o| o.toplevel == *toplevel)
    else {
        return Ok(Effect::Gone("another system was deployed meanwhile".to_owned()));
    };
    host.harness.forget(name);
    host.runtime.start(&output.launch_file()).await?;
    let now = host.clock.now();
    Ok(Effect::Done(vec![event(
        name,
        Level::Info,
        "started",
        format!("{name} is started"),
        now,
    )]))
}

/// Stops this very run; a later one is left alone.
async fn stop(host: &Host, name: &AgentName, run: &str) -> Result<(), HostError> {
    let units = host.runtime.observe(std::slice::from_ref(name)).await?;
    match units.get(name) {
        Some(UnitState::Running { run: seen, .. }) if seen == run => {
            host.runtime.stop(name).await?;
            host.harness.forget(name);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a proposal's new phase says, without a decision behind it.
pub(crate) fn plain_mark(at: Timestamp, reason: &str) -> Mark {
    Mark {
        at,
        gate: None,
        digest: None,
        by: None,
        reason: reason.to_owned(),
    }
}

/// Messages to the agent concerned and to the managers.
pub(crate) fn told(agent: &AgentLedger, topic: Topic, body: &str, what: &str, at: Timestamp) -> [Change; 2] {
    let (name, uid) = (&agent.record.name, agent.record.uid);
    let notice = Notice {
        topic,
        body: body.to_owned(),
        dedupe: format!("{uid}:{what}"),
        at,
    };
    [
        Change::Notify {
            agent: name.clone(),
            notice: notice.clone(),
        },
        Change::NotifyManagers {
            about: name.clone(),
            notice,
        },
    ]
}

/// The changes that end a proposal: its phase, an event, and messages to its agent and the managers.
pub(crate) fn ended(
    agent: &AgentLedger,
    number: shared::ProposalNumber,
    phase: ProposalPhase,
    reason: &str,
    at: Timestamp,
) -> Vec<Change> {
    let name = &agent.record.name;
    let word = phase.as_str();
    let message = format!("proposal {number} of {name} {word}: {reason}");
    let mut changes = vec![
        Change::Phase {
            uid: agent.record.uid,
            number,
            phase,
            mark: plain_mark(at, reason),
        },
        event(name, Level::Warning, "proposalEnded", message.clone(), at),
    ];
    let topic = match phase {
        ProposalPhase::Denied => Topic::Denied,
        _ => Topic::Failed,
    };
    let what = format!("proposal:{number}:{word}");
    changes.extend(told(agent, topic, &message, &what, at));
    changes
}

#[cfg(test)]
mod tests;
