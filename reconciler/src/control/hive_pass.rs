//! One pass over the hive: the spec file, the register of agents, removals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use camino::Utf8Path;
use jiff::Timestamp;
use serde_json::json;
use shared::AgentName;
use shared::event::Level;
use shared::plan::{Waiting, WaitingOn};
use shared::spec::Spec;
use shared::topic::Topic;

use super::reconciler::{Key, PassError, Reconciler, Requeue, lock};
use crate::execute;
use crate::gate::revalidate;
use crate::ledger::{LedgerError, Listing};
use crate::model::change::{Change, Notice};
use crate::model::draft::Owner;
use crate::model::records::{AgentLife, AgentOrigin, AgentRecord};
use crate::plan::hive as planner;
use crate::plan::hive::{DeclaredNames, Doomed};
use crate::plan::schedule::schedule;
use crate::spec::{self, Accepted};

/// A pass that carries out more steps than this is going round in circles.
const MAX_ROUNDS: usize = 16;

impl Reconciler {
    pub(super) async fn hive_pass(&self) -> Result<Requeue, PassError> {
        let accepted = self.accept().await?;
        let Some(facts) = self.facts(&accepted) else {
            self.views().hive_waiting = spec_faults(&accepted);
            return Ok(Requeue::default());
        };
        let mut others = self.register(&accepted).await?;
        for _ in 0..MAX_ROUNDS {
            let records = self.ledger.agents().await?.items;
            let declared = declared_names(&accepted);
            let plan = planner::plan(&facts, &records, &declared, &self.doomed().await?)?;
            let gates = self.ledger.hive_gates().await?;
            let actions = revalidate(&facts.policy, &plan, &gates);
            let now = self.host.clock.now();
            if !actions.is_empty() {
                self.ledger.sync_gates(actions, now).await?;
                continue;
            }
            let attempts = self.ledger.hive_attempts().await?;
            let scheduled = schedule(&facts.policy, &plan, &gates, &attempts, now);
            let mut waiting = spec_faults(&accepted);
            waiting.extend(scheduled.waiting.clone());
            waiting.extend(facts.unsupported.clone().map(|error| Waiting {
                what: "every agent".to_owned(),
                on: WaitingOn::Terminal { error },
                hint: Some("change the spec".to_owned()),
            }));
            {
                let mut views = self.views();
                views.hive_plan = Some(plan.view(waiting.clone())?);
                views.hive_waiting = waiting;
            }
            let Some(ready) = scheduled.ready.first() else {
                others.sort();
                others.dedup();
                let mut views = self.views();
                // Those of which the spec says something new come first, however large the hive is.
                let seen = views.spec_seen.as_deref();
                others.sort_by_key(|key| !is_news(seen, &accepted, key));
                // Only now are they sure to be looked at.
                views.spec_seen = Some(Arc::clone(&accepted));
                drop(views);
                return Ok(Requeue {
                    at: scheduled.wake_at,
                    others,
                });
            };
            let removed = planner::removed(&records, &declared).into_iter();
            let concerned: Vec<Key> = removed.map(|(name, _)| Key::Agent(name)).collect();
            let stepped = execute::hive_step(&self.host, &self.ledger, ready).await;
            if stepped.is_err() {
                // They may be removed all the same, and this pass says nothing about others any more.
                concerned.iter().cloned().for_each(|key| self.nudge(key));
            }
            stepped?;
            others.extend(self.drafts().await?);
            others.extend(concerned);
        }
        Err(PassError::Restless(MAX_ROUNDS))
    }

    /// Archived agents of which the operator wants nothing to be kept, with what the archive keeps.
    pub(super) async fn doomed(&self) -> Result<Vec<Doomed>, PassError> {
        let mut doomed = Vec::new();
        for record in self.ledger.archived().await?.items {
            if record.purge.is_some() && matches!(record.life, AgentLife::Archived { .. }) {
                let archive = self.host.folders.archived(&record.name, record.uid).await;
                let archive = archive.map_err(|error| error.chain());
                doomed.push(Doomed { record, archive });
            }
        }
        Ok(doomed)
    }

    /// Reads the spec file and says what would be in force, and what was before. Writes nothing.
    pub(super) async fn judged_spec(&self) -> Result<(Option<Arc<Accepted>>, Arc<Accepted>), LedgerError> {
        let path = self.host.spec.path();
        let path = Utf8Path::new(&path);
        let previous = match self.accepted() {
            Some(previous) => Some(previous),
            None => self.restored(path).await?.map(Arc::new),
        };
        let parsed = match self.host.spec.read().await {
            Ok(text) => spec::parse(&text),
            Err(error) => spec::Parsed::unreadable(error.chain()),
        };
        let accepted = Arc::new(spec::accept(previous.as_deref(), parsed, path));
        Ok((previous, accepted))
    }

    /// What is in force, for somebody who asks: also before the first pass of this run has looked.
    pub(crate) async fn spec_in_force(&self) -> Result<Arc<Accepted>, LedgerError> {
        match self.accepted() {
            Some(accepted) => Ok(accepted),
            None => Ok(self.judged_spec().await?.1),
        }
    }

    /// Reads the spec file and decides what is in force. Writes only when that changed.
    async fn accept(&self) -> Result<Arc<Accepted>, PassError> {
        let (previous, accepted) = self.judged_spec().await?;
        let first = self.accepted().is_none();
        let unchanged = previous.as_deref().is_some_and(|previous| *previous == *accepted);
        if !unchanged || first {
            self.note_spec(previous.as_deref(), &accepted).await?;
            if let Some(spec) = accepted.in_force() {
                self.limit_builds(spec.builder.max_builds);
            }
            *lock(&self.accepted) = Some(Arc::clone(&accepted));
        }
        Ok(accepted)
    }

    /// The last good spec of an earlier run.
    async fn restored(&self, path: &Utf8Path) -> Result<Option<Accepted>, LedgerError> {
        let Some(stored) = self.ledger.spec().await? else {
            return Ok(None);
        };
        // It was written by this program: should it not read back, the file decides alone.
        let spec: Option<Spec> = serde_json::from_str(&stored.text).ok();
        Ok(spec.map(|spec| Accepted::restored(path.to_owned(), spec, stored.generation)))
    }

    async fn note_spec(&self, previous: Option<&Accepted>, accepted: &Accepted) -> Result<(), PassError> {
        let now = self.host.clock.now();
        let newer = previous.map_or(accepted.generation > 0, |p| p.generation != accepted.generation);
        if newer {
            let text = serde_json::to_string(&*accepted.spec).unwrap_or_default();
            let (digest, generation) = (accepted.digest.clone(), accepted.generation);
            self.ledger.store_spec(text, digest, generation, now).await?;
        }
        let faults: Vec<String> = accepted.all_faults().map(ToString::to_string).collect();
        let faults_before: Vec<String> = previous
            .map(|p| p.all_faults().map(ToString::to_string).collect())
            .unwrap_or_default();
        let mut changes = Vec::new();
        let mut event = |level, kind, message: String| {
            let data = json!({ "generation": accepted.generation, "faults": faults });
            changes.push(Change::Event {
                agent: None,
                level,
                kind,
                message,
                data,
                at: now,
            });
        };
        if newer {
            let count = accepted.spec.agents.len();
            let message = format!(
                "spec generation {} is in force ({count} agents)",
                accepted.generation
            );
            event(Level::Info, "specAccepted", message);
        }
        if !faults.is_empty() && faults != faults_before {
            let first = faults.first().cloned().unwrap_or_default();
            // A fault of the file as a whole names the file itself.
            let first = first.trim_start_matches(&format!("{}: ", accepted.path));
            let more = faults.len() - 1;
            let more = if more == 0 {
                String::new()
            } else {
                format!(" (and {more} more)")
            };
            event(
                Level::Warning,
                "specFault",
                format!("{}: {first}{more}", accepted.path),
            );
        }
        if faults.is_empty() && !faults_before.is_empty() {
            event(
                Level::Info,
                "specMended",
                format!("{}: the spec has no faults any more", accepted.path),
            );
        }
        if !changes.is_empty() {
            self.ledger.apply(changes).await?;
        }
        Ok(())
    }

    /// Registers agents that are new, and takes back removals of agents that are declared again. Returns every agent
    /// that should be looked at.
    async fn register(&self, accepted: &Accepted) -> Result<Vec<Key>, PassError> {
        let now = self.host.clock.now();
        let Listing {
            items: records,
            undecodable,
        } = self.ledger.agents().await?;
        // A row that cannot be read is an agent all the same: it is shown by its own pass and holds up nobody else.
        let unreadable: BTreeSet<AgentName> = undecodable.into_iter().filter_map(|row| row.agent).collect();
        let by_name: BTreeMap<&AgentName, &AgentRecord> = records.iter().map(|r| (&r.name, r)).collect();
        let mut changes = Vec::new();
        for name in accepted
            .spec
            .agents
            .keys()
            .filter(|name| !unreadable.contains(*name))
        {
            match by_name.get(name) {
                None => {
                    let uid = self.host.ids.agent_uid();
                    changes.push(Change::Register {
                        name: name.clone(),
                        uid,
                        origin: AgentOrigin::Spec,
                        at: now,
                    });
                }
                Some(record) => changes.extend(declared_again(record, now)),
            }
        }
        if !changes.is_empty() {
            self.ledger.apply(changes).await?;
        }
        // A faulty entry may leave the digest as it was, but its agent is to be shown with the fault.
        let says = |accepted: &Accepted| (accepted.digest.clone(), accepted.agent_faults.clone());
        if self.views().spec_seen.as_deref().map(says) == Some(says(accepted)) {
            return Ok(Vec::new());
        }
        let declared = accepted.spec.agents.keys().cloned();
        Ok(declared
            .chain(records.into_iter().map(|r| r.name))
            .map(Key::Agent)
            .collect())
    }
}

/// Whether the spec says of this agent what it did not say before.
fn is_news(seen: Option<&Accepted>, accepted: &Accepted, key: &Key) -> bool {
    let Key::Agent(name) = key else { return true };
    seen.is_none_or(|seen| {
        seen.spec.agents.get(name) != accepted.spec.agents.get(name)
            || seen.agent_faults.get(name) != accepted.agent_faults.get(name)
    })
}

/// What follows when the spec names an agent that was spawned, drafted or removed: it stays what it is, and the spec has
/// its say from here on.
fn declared_again(record: &AgentRecord, now: Timestamp) -> Vec<Change> {
    if matches!(record.life, AgentLife::GivenUp { .. }) {
        // It goes first; then the name is free, and the spec's.
        return Vec::new();
    }
    let (uid, name) = (record.uid, &record.name);
    let mut changes = Vec::new();
    if record.origin == AgentOrigin::Spawn {
        let origin = AgentOrigin::Spec;
        changes.push(Change::Origin { uid, origin });
        let message = format!("{name} is declared in the spec now");
        changes.push(execute::event(name, Level::Info, "agentAdopted", message, now));
    }
    if record.life == AgentLife::Draft {
        // Nobody agreed to what was prepared: the spec alone says what it is, and its own gate makes it.
        let life = AgentLife::Declared;
        changes.push(Change::Life { uid, life });
        changes.extend(adopted_from(record, now));
    }
    if matches!(record.life, AgentLife::Removed { .. }) {
        let life = if record.seed.is_some() {
            AgentLife::Active
        } else {
            AgentLife::Declared
        };
        changes.push(Change::Life { uid, life });
        let order = None;
        changes.push(Change::PurgeOrder { uid, order });
        let message = format!("{name} is declared again");
        changes.push(execute::event(name, Level::Info, "agentReturned", message, now));
    }
    changes
}

/// Tells whoever prepared a draft that the spec has taken it over.
fn adopted_from(record: &AgentRecord, at: Timestamp) -> Option<Change> {
    let owner = record.draft.as_ref().map(|draft| &draft.owner);
    let Some(Owner::Manager { name: agent, .. }) = owner else {
        return None;
    };
    let (uid, name) = (record.uid, &record.name);
    Some(Change::Notify {
        agent: agent.clone(),
        notice: Notice {
            topic: Topic::Draft,
            body: format!(
                "the spec declares {name} now: it is what the spec says, and your draft of it, with its files, is \
                 dropped"
            ),
            dedupe: format!("{uid}:adopted"),
            at,
        },
    })
}

pub(super) fn declared_names(accepted: &Accepted) -> DeclaredNames {
    let names = accepted
        .spec
        .agents
        .keys()
        .chain(accepted.agent_faults.keys())
        .cloned()
        .collect();
    DeclaredNames {
        names,
        spec: accepted.digest.clone(),
    }
}

/// What is wrong with the spec file, as waits of the hive.
fn spec_faults(accepted: &Accepted) -> Vec<Waiting> {
    let hint = Some(format!("hive spec check {}", accepted.path));
    let fault = |fault: &spec::Fault| Waiting {
        what: if accepted.stale {
            "the spec file".to_owned()
        } else {
            "part of the spec file".to_owned()
        },
        on: WaitingOn::Terminal {
            error: fault.to_string(),
        },
        hint: hint.clone(),
    };
    // Those of agents too: one that is new has no status of its own in which they could be shown.
    let of_agents = accepted.agent_faults.values().flatten();
    accepted.faults.iter().chain(of_agents).map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_entry_is_declared_all_the_same() {
        let text =
            r#"{ "version": 1, "hive": { "name": "h" }, "agents": { "good": {}, "bad": { "run": 1 } } }"#;
        let accepted = spec::accept(None, spec::parse(text.as_bytes()), Utf8Path::new("/hive.json"));
        let names: Vec<String> = declared_names(&accepted)
            .names
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["bad", "good"], "a slip of the pen is no removal");
    }
}
