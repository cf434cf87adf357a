//! What managers order about other agents. Each order is one ledger transaction and a nudge; the policy, or the operator
//! at a gate, says whether it is carried out.

use jiff::Timestamp;
use shared::AgentName;
use shared::agent_api::ProposalInfo;
use shared::event::Level;
use shared::gate::{Asker, Verdict};
use shared::order::OrderRequest;
use shared::spec::RunState;

use super::command::CommandError;
use super::reconciler::{Key, Reconciler, declared};
use crate::execute::event;
use crate::gate;
use crate::host::Imported;
use crate::ledger::{Register, bounded};
use crate::model::change::Change;
use crate::model::draft::{self, Owner};
use crate::model::order::{ManagerOrder, OrderState, Verb, of_the_operator, stands};
use crate::model::records::{AgentLedger, AgentOrigin, AgentRecord};

/// The longest reason, in bytes.
const MAX_REASON: usize = 4096;

/// What became of an order that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    /// It waits for its gate.
    New,
    /// The same waits already.
    Waits(AgentName),
    /// It is the last one, given once more.
    Before(OrderState),
    /// Things are so.
    Already,
    /// Things are so, and an order to change that is taken back.
    TakenBack,
}

impl Reconciler {
    /// Takes a manager's order in. Returns what happens next, and whether anything changes.
    ///
    /// # Errors
    /// When `manager` is none, the policy forbids it, the operator ordered something else, or there is no such agent.
    pub async fn order(
        &self,
        manager: &AgentName,
        name: &AgentName,
        verb: Verb,
        request: OrderRequest,
    ) -> Result<(String, bool), CommandError> {
        // First, so that nobody else learns who is there.
        let register = self.ledger.register().await?;
        draft::manager(&register.records, manager).map_err(|_| CommandError::NotManager(manager.clone()))?;
        let accepted = self.spec_in_force().await?;
        let spec = accepted.in_force().ok_or(CommandError::NoSpec)?;
        let (verdict, rule) = gate::verdict(&spec.policy, verb.class(), Asker::Manager);
        if verdict == Verdict::Never {
            let verb = verb.as_str();
            return Err(CommandError::Never { verb, rule });
        }
        let ledger = self.command_on(name).await?;
        if verb == Verb::Archive && ledger.record.origin == AgentOrigin::Spec {
            return Err(CommandError::Unfit {
                agent: name.clone(),
                why: "is declared in the spec: only the operator can take it out there",
            });
        }
        let declared = declared(&accepted, &ledger.record).map_or(RunState::Running, |spec| spec.run);
        let now = self.host.clock.now();
        let is_so = is_so(&ledger, verb, declared, now)?;
        let order = Order {
            manager: manager.clone(),
            verb,
            reason: bounded(&request.reason, MAX_REASON),
            dedupe: request.dedupe,
            at: now,
        };
        let (uid, agent) = (ledger.record.uid, name.clone());
        let given = self
            .ledger
            .decide_on_register(move |register| {
                let record = register.records.iter().find(|record| record.uid == uid);
                let record = record.ok_or(CommandError::NoAgent(agent))?;
                order.given(register, record, is_so)
            })
            .await;
        if matches!(given, Ok(_) | Err(CommandError::Ledger(_))) {
            // It may be there although the answer is lost.
            self.nudge(Key::Agent(name.clone()));
        }
        Ok(match given? {
            Given::New => {
                let next = match verdict {
                    Verdict::Auto => format!("the policy {rule} allows it, and it is carried out now"),
                    Verdict::Ask | Verdict::Never => format!(
                        "the policy {rule} has the operator decide: a gate asks, and you are told what comes of it"
                    ),
                };
                (format!("{name} is to {}: {next}", verb.effect()), true)
            }
            Given::Waits(by) => {
                let effect = verb.effect();
                (
                    format!("{by} ordered already that {name} {effect}; that waits"),
                    false,
                )
            }
            Given::Before(state) => {
                let place = match state {
                    OrderState::Pending => "it waits".to_owned(),
                    OrderState::Done => "it is in force".to_owned(),
                    OrderState::Ended { reason } => format!("it came to nothing: {reason}"),
                };
                (format!("this very order was given before: {place}"), false)
            }
            Given::Already => (format!("{name} is to {} already", verb.effect()), false),
            Given::TakenBack => {
                let said = format!(
                    "{name} is to {}: an order against that is taken back",
                    verb.effect()
                );
                (said, true)
            }
        })
    }
}

impl Reconciler {
    /// Opens a manager's proposal for another agent, which is told.
    ///
    /// # Errors
    /// When `manager` is none, too many proposals are open, or the ledger fails.
    pub async fn propose_for(
        &self,
        manager: &AgentName,
        name: &AgentName,
        imported: Imported,
    ) -> Result<ProposalInfo, CommandError> {
        let register = self.ledger.register().await?;
        draft::manager(&register.records, manager).map_err(|_| CommandError::NotManager(manager.clone()))?;
        self.propose_as(name, imported, Asker::Manager, Some(manager))
            .await
    }
}

/// Whether things are as the order has them, so that it would change nothing.
fn is_so(ledger: &AgentLedger, verb: Verb, declared: RunState, now: Timestamp) -> Result<bool, CommandError> {
    let name = &ledger.record.name;
    let unfit = |why| {
        let agent = name.clone();
        Err(CommandError::Unfit { agent, why })
    };
    let wanted = ledger.overrides.wanted_run(declared, now);
    match verb.run() {
        None if verb != Verb::Restart => Ok(false),
        None if ledger.record.deployed.is_none() => unfit("has nothing deployed to restart"),
        None if wanted == RunState::Stopped => unfit("is to stay stopped: there is nothing to restart"),
        None => Ok(false),
        Some(run) => match of_the_operator(&ledger.overrides, now) {
            Some(theirs) if theirs.value != run => Err(CommandError::Overruled {
                agent: name.clone(),
                why: stands(theirs),
            }),
            Some(_) | None => Ok(wanted == run),
        },
    }
}

/// An order as it comes in.
struct Order {
    manager: AgentName,
    verb: Verb,
    reason: String,
    dedupe: Option<String>,
    at: Timestamp,
}

impl Order {
    /// What becomes of it, and what is written. `is_so` says that it would change nothing.
    fn given(
        self,
        register: &Register,
        record: &AgentRecord,
        is_so: bool,
    ) -> Result<(Vec<Change>, Given), CommandError> {
        let owner = draft::manager(&register.records, &self.manager);
        let Ok(Owner::Manager {
            name: by,
            uid: by_uid,
        }) = owner
        else {
            return Err(CommandError::NotManager(self.manager));
        };
        let uid = record.uid;
        let last = record.order.as_deref();
        let again = |last: &&ManagerOrder| {
            self.dedupe.is_some() && last.by_uid == by_uid && last.dedupe == self.dedupe
        };
        if let Some(last) = last.filter(again) {
            return Ok((Vec::new(), Given::Before(last.state.clone())));
        }
        let waiting = last.filter(|last| last.is_pending());
        if is_so {
            // What waits may be to change that.
            let against = waiting.filter(|waiting| waiting.verb.run().is_some());
            let Some(against) = against.filter(|waiting| waiting.verb != self.verb) else {
                return Ok((Vec::new(), Given::Already));
            };
            let reason = format!("{by} took it back");
            let order = Box::new(ManagerOrder {
                state: OrderState::Ended { reason },
                ..against.clone()
            });
            return Ok((vec![Change::Order { uid, order }], Given::TakenBack));
        }
        if let Some(waiting) = waiting.filter(|waiting| waiting.verb == self.verb) {
            return Ok((Vec::new(), Given::Waits(waiting.by.clone())));
        }
        let order = Box::new(ManagerOrder {
            number: last.map_or(1, |last| last.number + 1),
            verb: self.verb,
            by,
            by_uid,
            reason: self.reason,
            at: self.at,
            dedupe: self.dedupe,
            state: OrderState::Pending,
            gate: None,
        });
        let line = match order.reason.as_str() {
            "" => order.line(&record.name),
            reason => format!("{}: {reason}", order.line(&record.name)),
        };
        let told = event(&record.name, Level::Info, "ordered", line, self.at);
        Ok((vec![Change::Order { uid, order }, told], Given::New))
    }
}
