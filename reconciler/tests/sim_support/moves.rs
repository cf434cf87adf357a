//! What can happen to the hive, as values that can be written down and read again.

use reconciler::host::fake::{Behaviour, Fault, Lag, Source};
use serde::{Deserialize, Deserializer, Serialize};

use super::driver::End;

/// A text of a script that was read. Scripts live as long as the test.
fn kept<'de, D: Deserializer<'de>>(text: D) -> Result<&'static str, D::Error> {
    String::deserialize(text).map(|text| &*text.leak())
}

/// A decision that arrives while something is under way.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decide {
    /// At the boundary that is so many boundaries away,
    pub(crate) away: usize,
    /// before or after it.
    pub(crate) after: bool,
    pub(crate) approve: bool,
}

/// One thing that happens to the hive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Move {
    /// The operator writes this spec.
    Spec(String),
    /// The spec file goes away.
    SpecVanishes,
    /// An agent offers a commit on top of `main`, holding this overlay.
    Propose(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// An agent offers a commit on top of what `main` was at first.
    ProposeOnSeed(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// The operator approves every open gate.
    Approve,
    /// The operator denies every open gate.
    Deny,
    /// An agent's process is killed.
    Kill(#[serde(deserialize_with = "kept")] &'static str),
    /// The kernel kills a process of an agent for want of memory.
    OutOfMemory(#[serde(deserialize_with = "kept")] &'static str),
    /// Somebody holds an agent's container to other limits.
    ChangeLimits(#[serde(deserialize_with = "kept")] &'static str),
    /// Somebody moves `main` of an agent's repo to its seed.
    TamperMain(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator stops an agent.
    Stop(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator starts it again.
    Start(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator destroys an agent that no spec declares.
    Destroy(#[serde(deserialize_with = "kept")] &'static str),
    /// The same, and nothing is to be kept of it.
    Purge(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator brings an agent back from the archive.
    Restore(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator goes back to what an agent had deployed before.
    Rollback(#[serde(deserialize_with = "kept")] &'static str),
    /// A manager begins a draft.
    Draft(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// A manager stages a file: its path and its text.
    Stage(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// A manager sends a commit with this overlay for its draft.
    DraftCommit(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// A manager offers its draft.
    Offer(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// A manager gives its draft up.
    GiveUp(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// A manager asks for an agent with this overlay and one file, in one go.
    SpawnOnce(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// The operator does.
    OperatorSpawns(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// An agent orders something about another, as a manager may: who, about whom, what.
    Order(
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
        #[serde(deserialize_with = "kept")] &'static str,
    ),
    /// The operator suspends an agent.
    Suspend(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator resumes it.
    Resume(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator asks for a restart.
    RestartAgent(#[serde(deserialize_with = "kept")] &'static str),
    /// The operator has everything that failed tried again.
    Retry(#[serde(deserialize_with = "kept")] &'static str),
    /// An agent begins a turn.
    TurnBegins(#[serde(deserialize_with = "kept")] &'static str),
    /// It ends its turn.
    TurnEnds(#[serde(deserialize_with = "kept")] &'static str),
    /// Time passes.
    Wait(i64),
    /// The daemon restarts.
    Restart,
    /// This source cannot be observed during the next move.
    Blind(Source),
    /// This source cannot be observed in the pass that is so many passes away.
    BlindPass(usize, Source),
    /// This source shows what was, in the pass that is so many passes away.
    LagPass(usize, Source, Lag),
    /// This goes wrong at the boundary that is so many boundaries away.
    Fault(usize, Fault),
    /// The event that is so many events away is lost.
    Drop(usize),
    /// The event that is so many events away comes twice.
    Double(usize),
    /// The operator decides about every open gate before or after the boundary that is so many boundaries away.
    Decide(Decide),
    /// Passes over different agents take turns at every boundary from here on, as this number has it.
    Interleave(u64),
}

impl Move {
    /// Whether it changes when things happen and never what is wanted.
    pub(crate) fn is_disturbance(&self) -> bool {
        matches!(
            self,
            Self::Restart
                | Self::Blind(_)
                | Self::BlindPass(..)
                | Self::LagPass(..)
                | Self::Fault(..)
                | Self::Drop(_)
                | Self::Double(_)
                | Self::Interleave(_)
        )
    }

    /// Whether it changes nothing where nobody looks.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::BlindPass(..) | Self::LagPass(..) | Self::Decide(_))
    }

    /// Whether it only prepares what happens during the next move.
    pub(crate) fn is_ahead(&self) -> bool {
        matches!(self, Self::Decide(_)) || (self.is_disturbance() && !matches!(self, Self::Restart))
    }
}

/// A story, and what must be true at its end.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) behaviours: Vec<(&'static str, Behaviour)>,
    pub(crate) unbuildable: Vec<&'static str>,
    pub(crate) moves: Vec<Move>,
    pub(crate) expect: fn(&End),
}

impl Scenario {
    /// Harnesses whose prompt holds this text behave like this.
    pub(crate) fn with_behaviour(mut self, text: &'static str, behaviour: Behaviour) -> Self {
        self.behaviours.push((text, behaviour));
        self
    }

    /// Overlays that hold this text cannot be built.
    pub(crate) fn with_unbuildable(mut self, text: &'static str) -> Self {
        self.unbuildable.push(text);
        self
    }
}

/// How a script is judged when it is played again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Oracle {
    /// It keeps the promises.
    Alone,
    /// It ends as it does without its disturbances, and did nothing twice.
    Same,
    /// It ends as it does without its disturbances, and stopped or removed nothing twice.
    Late,
    /// It ends as it does without its disturbances.
    SameEnd,
    /// A decision on the way counts like one at rest, or like none, or it is withdrawn and everybody is told.
    Decided,
    /// Whoever the last spec declares is in sync with it.
    Specs,
}

/// A story that fails, as it is printed and read again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Script {
    pub(crate) oracle: Oracle,
    #[serde(deserialize_with = "kept_behaviours")]
    pub(crate) behaviours: Vec<(&'static str, Behaviour)>,
    #[serde(deserialize_with = "kept_texts")]
    pub(crate) unbuildable: Vec<&'static str>,
    #[serde(deserialize_with = "kept_moves")]
    pub(crate) moves: Vec<Move>,
}

fn kept_behaviours<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<(&'static str, Behaviour)>, D::Error> {
    let list: Vec<(String, Behaviour)> = Vec::deserialize(list)?;
    Ok(list
        .into_iter()
        .map(|(text, behaviour)| (&*text.leak(), behaviour))
        .collect())
}

fn kept_texts<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<&'static str>, D::Error> {
    let list: Vec<String> = Vec::deserialize(list)?;
    Ok(list.into_iter().map(|text| &*text.leak()).collect())
}

/// What borrows its texts is read from a text that stays.
fn kept_moves<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<Move>, D::Error> {
    let text = serde_json::Value::deserialize(list)?.to_string();
    serde_json::from_str(text.leak()).map_err(serde::de::Error::custom)
}
