//! What people and agents ask for. Each is one ledger transaction and a nudge; the loop does the rest.

use jiff::Timestamp;
use serde_json::json;
use shared::agent_api::{ProposalInfo, ProposalPhase};
use shared::canonical::NotCanonical;
use shared::event::Level;
use shared::gate::{Asker, Gate};
use shared::spec::RunState;
use shared::topic::Topic;
use shared::{AgentName, AgentUid, CommitOid, Digest, GateId, ProposalNumber};

use super::reconciler::{Key, Reconciler, declared};
use crate::execute::{event, plain_mark};
use crate::host::{HostError, Imported};
use crate::ledger::{DecideError, LedgerError, TxError};
use crate::model::change::{Change, Notice};
use crate::model::draft::Refusal;
use crate::model::records::{AgentLedger, AgentLife, Override, Proposal};

/// Proposals of one agent that may be open at once.
const MAX_OPEN_PROPOSALS: usize = 8;

/// A command was refused.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such agent.
    #[error("there is no agent {0}")]
    NoAgent(AgentName),
    /// The agent is not in the part of its life where that makes sense.
    #[error("{agent} {why}")]
    Unfit {
        /// The agent.
        agent: AgentName,
        /// Why.
        why: &'static str,
    },
    /// Whoever orders about other agents is no manager.
    #[error("{0} is no manager of this hive: it orders nothing about agents")]
    NotManager(AgentName),
    /// The policy forbids what a manager ordered.
    #[error("the policy {rule} forbids managers to {verb} agents: only the operator can")]
    Never {
        /// What was ordered.
        verb: &'static str,
        /// The rule.
        rule: String,
    },
    /// An order of the operator's stands against it.
    #[error("{agent} is not to be changed by a manager: {why}")]
    Overruled {
        /// The agent.
        agent: AgentName,
        /// Which.
        why: String,
    },
    /// That is no name of a model.
    #[error("{0:?} is not the name of a model: 1 to 200 characters without blanks, and no dash at the start")]
    NoModel(String),
    /// The archive keeps several of that name.
    #[error(
        "the archive keeps several agents named {agent}: say which with --uid, one of {}",
        list(uids)
    )]
    Ambiguous {
        /// The name.
        agent: AgentName,
        /// Their uids.
        uids: Vec<AgentUid>,
    },
    /// Too many proposals wait already.
    #[error("{agent} has {open} open proposals: wait until one of them is decided")]
    TooManyProposals {
        /// The agent.
        agent: AgentName,
        /// How many.
        open: usize,
    },
    /// A draft cannot be made, changed or offered like this.
    #[error(transparent)]
    Draft(#[from] Refusal),
    /// A value has no canonical form.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    /// There is no spec in force, so nothing is known of what may be spawned.
    #[error("no spec is in force yet: nothing can be spawned")]
    NoSpec,
    /// Something outside did not work.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for CommandError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            _ => None,
        }
    }
}

fn list(uids: &[AgentUid]) -> String {
    let uids: Vec<String> = uids.iter().map(ToString::to_string).collect();
    uids.join(", ")
}

/// Who asks, why, and for how long.
#[derive(Debug, Clone)]
pub struct Because {
    /// Who, as the transport says.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Option<Timestamp>,
}

impl Because {
    /// A line about what was asked for, with who asked and why.
    pub(super) fn said(&self, message: String) -> String {
        if self.reason.is_empty() {
            format!("{message} ({})", self.by)
        } else {
            format!("{message} ({}: {})", self.by, self.reason)
        }
    }
}

impl Reconciler {
    /// Decides about a gate.
    ///
    /// # Errors
    /// When the gate was decided already, moved, or does not exist.
    pub async fn decide(
        &self,
        gate: GateId,
        approve: bool,
        digest: Digest,
        by: String,
        reason: String,
    ) -> Result<Gate, DecideError> {
        let now = self.host.clock.now();
        let decided = self.ledger.decide(gate, approve, by, reason, digest, now).await;
        let about = match &decided {
            Ok(gate) => Some(gate.clone()),
            // It may be written all the same.
            Err(_) => self.ledger.gate(gate).await?.map(|record| record.gate),
        };
        if let Some(gate) = about {
            self.nudge(gate.agent.map_or(Key::Hive, Key::Agent));
        }
        decided
    }

    /// Overrides whether an agent should run. Returns whether that changes anything.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn set_run(
        &self,
        name: &AgentName,
        run: RunState,
        because: Because,
    ) -> Result<bool, CommandError> {
        let ledger = self.command_on(name).await?;
        let accepted = self.spec_in_force().await?;
        let wanted = declared(&accepted, &ledger.record).map(|spec| spec.run);
        let now = self.host.clock.now();
        let before = ledger.overrides.run.as_ref().filter(|run| run.holds(now));
        // What the spec says anyway needs no override.
        let value = (wanted != Some(run)).then(|| overriding(run, &because, now));
        // What a manager ordered is replaced, even by the same: the operator's does not lapse.
        let by_manager = before.is_some_and(|before| before.over.is_some());
        if !by_manager && !differs(before, value.as_ref()) {
            return Ok(false);
        }
        let word = match run {
            RunState::Running => "started",
            RunState::Paused => "paused",
            RunState::Stopped => "stopped",
        };
        let change = Change::RunOverride {
            uid: ledger.record.uid,
            run: value,
        };
        self.command(
            &ledger,
            change,
            "runOverridden",
            format!("{name} is to be {word}{}", until_when(&because)),
            &because,
        )
        .await?;
        Ok(true)
    }

    /// Has an agent's turns run by this model, whatever its config says; `None` takes that back. Returns whether that
    /// changes anything.
    ///
    /// # Errors
    /// When there is no such agent, that is no name of a model, or the ledger fails.
    pub async fn set_model(
        &self,
        name: &AgentName,
        model: Option<String>,
        because: Because,
    ) -> Result<bool, CommandError> {
        if let Some(bad) = model.as_ref().filter(|model| !crate::spec::is_model(model)) {
            return Err(CommandError::NoModel(bad.chars().take(40).collect()));
        }
        let ledger = self.command_on(name).await?;
        let now = self.host.clock.now();
        let value = model.map(|model| overriding(model, &because, now));
        if !differs(ledger.overrides.model_at(now), value.as_ref()) {
            return Ok(false);
        }
        let message = match &value {
            Some(model) => format!(
                "{name} is to use the model {}{}",
                model.value,
                until_when(&because)
            ),
            None => format!("{name} is to use the model of its config"),
        };
        let change = Change::ModelOverride {
            uid: ledger.record.uid,
            model: value,
        };
        self.command(&ledger, change, "modelOverridden", message, &because)
            .await?;
        Ok(true)
    }

    /// Suspends planning for an agent.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn suspend(&self, name: &AgentName, because: Because) -> Result<bool, CommandError> {
        let ledger = self.command_on(name).await?;
        let suspended = Some(overriding((), &because, self.host.clock.now()));
        let change = Change::Suspension {
            uid: ledger.record.uid,
            suspended,
        };
        let until = until_when(&because);
        let message = format!("{name} is suspended{until}: nothing is changed about it");
        self.command(&ledger, change, "suspended", message, &because)
            .await?;
        Ok(true)
    }

    /// Ends a suspension.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn resume(&self, name: &AgentName, because: Because) -> Result<bool, CommandError> {
        let ledger = self.command_on(name).await?;
        if ledger.overrides.suspended.is_none() {
            return Ok(false);
        }
        let change = Change::Suspension {
            uid: ledger.record.uid,
            suspended: None,
        };
        self.command(&ledger, change, "resumed", format!("{name} is resumed"), &because)
            .await?;
        Ok(true)
    }

    /// Asks for a restart of the run that is there now.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn restart(&self, name: &AgentName, because: Because) -> Result<bool, CommandError> {
        let ledger = self.command_on(name).await?;
        if ledger.record.deployed.is_none() {
            return Err(CommandError::Unfit {
                agent: name.clone(),
                why: "has nothing deployed to restart",
            });
        }
        let now = self.host.clock.now();
        let uid = ledger.record.uid;
        let note = because.said(format!("{name} is to be restarted"));
        let changes = vec![
            Change::RestartBefore { uid, at: now },
            event(name, Level::Info, "restartRequested", note, now),
        ];
        self.write(name, changes).await?;
        Ok(true)
    }

    /// Forgets failures, quarantines, failed builds and denials of what the spec asks for, so that everything is tried
    /// again.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn retry(&self, name: &AgentName, because: Because) -> Result<bool, CommandError> {
        // Archiving a removed agent can fail too.
        let ledger = self.ledger.agent(name).await?;
        let ledger = ledger.ok_or_else(|| CommandError::NoAgent(name.clone()))?;
        let now = self.host.clock.now();
        let note = because.said(format!("{name}: everything that failed is tried again"));
        let changes = vec![
            Change::Forget {
                uid: ledger.record.uid,
            },
            event(name, Level::Info, "retried", note, now),
        ];
        self.write(name, changes).await?;
        Ok(true)
    }

    /// The proposal that a commit became before, unless it failed: what failed may be tried again.
    ///
    /// A turn that is carried out once more, and a request whose answer was lost, offer what may have been denied or
    /// deployed meanwhile.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn proposed_before(
        &self,
        name: &AgentName,
        commit: &CommitOid,
    ) -> Result<Option<ProposalInfo>, CommandError> {
        let ledger = self.command_on(name).await?;
        Ok(of_commit(&ledger, commit).map(|known| info(&ledger, known)))
    }

    /// Opens a proposal for a commit that was taken in. The same commit twice is one proposal; see
    /// [`Self::proposed_before`].
    ///
    /// # Errors
    /// When too many are open, or the ledger fails.
    pub async fn propose(
        &self,
        name: &AgentName,
        imported: Imported,
        asked_by: Asker,
    ) -> Result<ProposalInfo, CommandError> {
        self.propose_as(name, imported, asked_by, None).await
    }

    /// The same; `by`: the manager who proposes it for the agent, which is told.
    pub(super) async fn propose_as(
        &self,
        name: &AgentName,
        imported: Imported,
        asked_by: Asker,
        by: Option<&AgentName>,
    ) -> Result<ProposalInfo, CommandError> {
        let ledger = self.command_on(name).await?;
        if let Some(known) = of_commit(&ledger, &imported.commit) {
            return Ok(info(&ledger, known));
        }
        let open = ledger.proposals.iter().filter(|p| !p.phase.is_final()).count();
        if open >= MAX_OPEN_PROPOSALS {
            return Err(CommandError::TooManyProposals {
                agent: name.clone(),
                open,
            });
        }
        let now = self.host.clock.now();
        let uid = ledger.record.uid;
        let number = self.ledger.next_proposal(uid).await?;
        let Imported {
            commit,
            title,
            reason,
        } = imported;
        let phase = ProposalPhase::Proposed;
        let marks = [(phase, plain_mark(now, ""))].into();
        let proposal = Proposal {
            number,
            commit,
            title,
            reason,
            asked_by,
            phase,
            marks,
        };
        let shown = info(&ledger, &proposal);
        let message = match by {
            None => format!("{name} proposes {number}: {}", proposal.title),
            Some(by) => format!("{by} proposes {number} for {name}: {}", proposal.title),
        };
        let mut changes = vec![
            Change::Propose {
                uid,
                proposal: Box::new(proposal),
            },
            event(name, Level::Info, "proposed", message.clone(), now),
        ];
        changes.extend(by.map(|_| Change::Notify {
            agent: name.clone(),
            notice: Notice {
                topic: Topic::Proposed,
                body: format!(
                    "{message} (a change of your configuration; config_status shows what becomes of it)"
                ),
                dedupe: format!("{uid}:proposal:{number}:offered"),
                at: now,
            },
        }));
        self.write(name, changes).await?;
        Ok(shown)
    }

    /// An agent's proposals, newest first.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn proposals(&self, name: &AgentName) -> Result<Vec<ProposalInfo>, CommandError> {
        let ledger = self.command_on(name).await?;
        Ok(ledger
            .proposals
            .iter()
            .rev()
            .map(|proposal| info(&ledger, proposal))
            .collect())
    }

    /// The agent a command is about.
    pub(super) async fn command_on(&self, name: &AgentName) -> Result<AgentLedger, CommandError> {
        let ledger = self.ledger.agent(name).await?;
        let ledger = ledger.ok_or_else(|| CommandError::NoAgent(name.clone()))?;
        match ledger.record.life {
            AgentLife::Removed { .. } | AgentLife::Archived { .. } | AgentLife::Purged { .. } => {
                Err(CommandError::Unfit {
                    agent: name.clone(),
                    why: "is no longer declared in the spec",
                })
            }
            AgentLife::Draft | AgentLife::GivenUp { .. } => Err(CommandError::Unfit {
                agent: name.clone(),
                why: "is a draft: it becomes an agent once its gate is approved",
            }),
            AgentLife::Declared | AgentLife::Active | AgentLife::Restoring { .. } => Ok(ledger),
        }
    }

    /// Writes, and asks for a look at the agent even when that fails: what was written may be all there although the
    /// answer is lost, and whoever asks again is told that nothing changes.
    async fn write(&self, name: &AgentName, changes: Vec<Change>) -> Result<(), LedgerError> {
        let written = self.ledger.apply(changes).await;
        self.nudge(Key::Agent(name.clone()));
        written
    }

    async fn command(
        &self,
        ledger: &AgentLedger,
        change: Change,
        kind: &'static str,
        message: String,
        because: &Because,
    ) -> Result<(), CommandError> {
        let now = self.host.clock.now();
        let name = &ledger.record.name;
        let changes = vec![
            change,
            Change::Event {
                agent: Some(name.clone()),
                level: Level::Info,
                kind,
                message: because.said(message),
                data: json!({ "by": because.by, "reason": because.reason, "until": because.until }),
                at: now,
            },
        ];
        self.write(name, changes).await?;
        Ok(())
    }
}

/// Whether one override has another effect than the other. The same until another time has: what ends by itself is
/// not what stays.
fn differs<T: PartialEq>(before: Option<&Override<T>>, after: Option<&Override<T>>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => before.value != after.value || before.until != after.until,
        (before, after) => before.is_some() != after.is_some(),
    }
}

fn overriding<T>(value: T, because: &Because, now: Timestamp) -> Override<T> {
    Override {
        value,
        by: because.by.clone(),
        reason: because.reason.clone(),
        since: now,
        until: because.until,
        over: None,
    }
}

fn until_when(because: &Because) -> String {
    because.until.map_or_else(String::new, |at| {
        format!(" until {}", at.strftime("%Y-%m-%d %H:%M:%SZ"))
    })
}

/// The latest proposal of a commit that did not fail.
fn of_commit<'a>(ledger: &'a AgentLedger, commit: &CommitOid) -> Option<&'a Proposal> {
    let mut proposals = ledger.proposals.iter();
    proposals.rfind(|p| p.commit == *commit && p.phase != ProposalPhase::Failed)
}

fn info(ledger: &AgentLedger, proposal: &Proposal) -> ProposalInfo {
    use shared::gate::GateState;
    let open = |number: ProposalNumber| {
        let gates = ledger.gates.iter().map(|record| &record.gate);
        let mut open = gates.filter(|gate| gate.proposal == Some(number) && gate.state == GateState::Open);
        open.next().map(|gate| gate.id)
    };
    let mark = proposal.marks.get(&proposal.phase);
    ProposalInfo {
        number: proposal.number,
        commit: proposal.commit.clone(),
        title: proposal.title.clone(),
        phase: proposal.phase,
        reason: mark
            .map(|mark| mark.reason.clone())
            .filter(|reason| !reason.is_empty()),
        gate: open(proposal.number),
        at: proposal
            .marks
            .get(&ProposalPhase::Proposed)
            .map_or(Timestamp::UNIX_EPOCH, |mark| mark.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(until: Option<Timestamp>) -> Override<RunState> {
        let because = Because {
            by: "unix:root".to_owned(),
            reason: String::new(),
            until,
        };
        overriding(RunState::Stopped, &because, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_stop_that_stays_replaces_one_that_ends_by_itself() {
        let (nap, stays) = (stop(Some(Timestamp::MAX)), stop(None));
        assert!(differs(Some(&nap), Some(&stays)));
        assert!(differs(Some(&stays), Some(&nap)));
        assert!(differs(Some(&stays), None), "a start takes the stop back");
        assert!(!differs(Some(&stays), Some(&stays)));
        assert!(!differs::<RunState>(None, None));
    }
}
