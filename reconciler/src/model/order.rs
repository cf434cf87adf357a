//! What managers order about agents: start, stop, restart, rebuild, archive. Pure.
//!
//! An order is a row that waits for its gate, which the policy may approve at once. Until then nothing of it holds: a
//! stop that nobody agreed to keeps no crashed agent from being started again. Once it is allowed it becomes, in one
//! transaction, what the operator's own command would have been.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::gate::GateClass;
use shared::spec::RunState;
use shared::{AgentName, AgentUid, GateId};

use crate::model::draft::{self, Standing};
use crate::model::records::{AgentRecord, Override, Overrides};

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// That it run.
    Start,
    /// That it stop, and stay stopped.
    Stop,
    /// That the run there is now end, and another begin.
    Restart,
    /// That what the spec and its commit ask for be built once more.
    Rebuild,
    /// That it stop, and its state and repo be moved to the archive.
    Archive,
}

impl Verb {
    /// The class of its gate.
    pub fn class(self) -> GateClass {
        match self {
            Self::Start => GateClass::Start,
            Self::Stop => GateClass::Stop,
            Self::Restart => GateClass::Restart,
            Self::Rebuild => GateClass::Rebuild,
            Self::Archive => GateClass::Archive,
        }
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        self.class().as_str()
    }

    /// What becomes of an agent, in words.
    pub fn effect(self) -> &'static str {
        match self {
            Self::Start => "be started, and run",
            Self::Stop => "be stopped, and stay stopped",
            Self::Restart => "be restarted",
            Self::Rebuild => "be built once more",
            Self::Archive => "be stopped, and moved to the archive with its state",
        }
    }

    /// How the agent is to be from then on.
    pub fn run(self) -> Option<RunState> {
        match self {
            Self::Start => Some(RunState::Running),
            Self::Stop => Some(RunState::Stopped),
            Self::Restart | Self::Rebuild | Self::Archive => None,
        }
    }
}

/// Where an order is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderState {
    /// It waits for its gate.
    Pending,
    /// It was allowed, and holds.
    Done,
    /// It came to nothing.
    Ended {
        /// Why.
        reason: String,
    },
}

/// What a manager ordered about an agent last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagerOrder {
    /// Its number among the orders about this agent, from 1.
    pub number: u64,
    /// What.
    pub verb: Verb,
    /// Who.
    pub by: AgentName,
    /// Another agent may come to have that name.
    pub by_uid: AgentUid,
    /// Why. Untrusted.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The same order asked for once more has the same.
    #[serde(default)]
    pub dedupe: Option<String>,
    /// Where it is.
    pub state: OrderState,
    /// The gate that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateId>,
}

impl ManagerOrder {
    /// Whether it waits for its gate.
    pub fn is_pending(&self) -> bool {
        self.state == OrderState::Pending
    }

    /// The order in a line.
    pub fn line(&self, agent: &AgentName) -> String {
        format!("{} orders that {agent} {}", self.by, self.verb.effect())
    }

    /// What is to be written about the run state, for an agent of which the spec says `declared`. `None`: all is as
    /// ordered already.
    ///
    /// # Errors
    /// When the operator ordered something else, which stands.
    pub fn run_override(
        &self,
        overrides: &Overrides,
        declared: RunState,
        now: Timestamp,
    ) -> Result<Option<Option<Override<RunState>>>, String> {
        let Some(wanted) = self.verb.run() else {
            return Ok(None);
        };
        if let Some(theirs) = of_the_operator(overrides, now) {
            return match theirs.value == wanted {
                true => Ok(None),
                false => Err(stands(theirs)),
            };
        }
        let value = (wanted != declared).then(|| Override {
            value: wanted,
            by: format!("agent:{}", self.by),
            reason: self.reason.clone(),
            since: now,
            until: None,
            over: Some(declared),
        });
        Ok(Some(value))
    }
}

/// The operator's own order about the run state.
pub fn of_the_operator(overrides: &Overrides, now: Timestamp) -> Option<&Override<RunState>> {
    overrides
        .run
        .as_ref()
        .filter(|run| run.holds(now) && run.over.is_none())
}

/// That an order of the operator's stands.
pub fn stands(theirs: &Override<RunState>) -> String {
    let word = match theirs.value {
        RunState::Running => "run",
        RunState::Paused => "take no turns",
        RunState::Stopped => "stay stopped",
    };
    let since = theirs.since.strftime("%Y-%m-%d %H:%M:%SZ");
    format!("the operator ordered at {since} that it {word}, and that stands")
}

/// Whether an order may still be allowed: whoever gave it must be a manager.
pub fn standing(order: &ManagerOrder, records: &[AgentRecord]) -> Standing {
    let mut managers = records.iter().filter(|record| draft::is_manager(record));
    if managers.any(|record| record.uid == order.by_uid) {
        Standing::Fine
    } else {
        Standing::Void(format!(
            "{}, who gave it, is no manager of this hive any more",
            order.by
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(verb: Verb) -> ManagerOrder {
        ManagerOrder {
            number: 1,
            verb,
            by: "queen".parse().unwrap(),
            by_uid: AgentUid(uuid::Uuid::from_u128(1)),
            reason: "because".into(),
            at: Timestamp::UNIX_EPOCH,
            dedupe: None,
            state: OrderState::Pending,
            gate: None,
        }
    }

    fn overrides(value: RunState, over: Option<RunState>) -> Overrides {
        let run = Override {
            value,
            by: "somebody".into(),
            reason: String::new(),
            since: Timestamp::UNIX_EPOCH,
            until: None,
            over,
        };
        Overrides {
            run: Some(run),
            ..Overrides::default()
        }
    }

    fn written(
        verb: Verb,
        overrides: &Overrides,
        declared: RunState,
    ) -> Result<Option<Option<RunState>>, String> {
        let written = order(verb).run_override(overrides, declared, Timestamp::UNIX_EPOCH);
        written.map(|change| change.map(|run| run.map(|run| run.value)))
    }

    #[test]
    fn what_the_spec_says_anyway_needs_no_override() {
        use RunState::{Running, Stopped};
        let none = Overrides::default();
        assert_eq!(written(Verb::Stop, &none, Running), Ok(Some(Some(Stopped))));
        assert_eq!(written(Verb::Stop, &none, Stopped), Ok(Some(None)));
        assert_eq!(
            written(Verb::Start, &overrides(Stopped, Some(Running)), Running),
            Ok(Some(None))
        );
        assert_eq!(written(Verb::Restart, &none, Running), Ok(None));
    }

    #[test]
    fn an_order_of_the_operator_stands_against_a_managers() {
        use RunState::{Paused, Running, Stopped};
        for theirs in [Stopped, Paused] {
            let refused = written(Verb::Start, &overrides(theirs, None), Running).unwrap_err();
            assert!(refused.contains("stands"), "{refused}");
        }
        assert_eq!(written(Verb::Stop, &overrides(Stopped, None), Running), Ok(None));
        let own = order(Verb::Stop).run_override(&Overrides::default(), Running, Timestamp::UNIX_EPOCH);
        let own = own.unwrap().unwrap().unwrap();
        assert_eq!((own.by.as_str(), own.over), ("agent:queen", Some(Running)));
    }
}
