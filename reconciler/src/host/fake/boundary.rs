//! The boundaries of the fake world: where it can go wrong, stop, or show what was.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::AgentName;

use super::{Effect, Fault, State, World};
use crate::host::HostError;
use crate::ledger::{Boundary, LedgerError};

/// Something that is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Containers.
    Runtime,
    /// Config repos.
    Repos,
    /// Agents' folders.
    Folders,
    /// Built systems.
    Systems,
    /// What the archive keeps.
    Archive,
    /// What harnesses report. One that cannot be observed has not called.
    Harness,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 6] = [
        Self::Runtime,
        Self::Repos,
        Self::Folders,
        Self::Systems,
        Self::Archive,
        Self::Harness,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Repos => "repos",
            Self::Folders => "folders",
            Self::Systems => "systems",
            Self::Archive => "archive",
            Self::Harness => "harness",
        }
    }
}

/// How old the answer of a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Lag {
    /// From before the latest effect.
    Effect,
    /// As it was when the world was last remembered; no older than the daemon's own next effect.
    Remembered,
    /// It has caught up.
    Not,
}

/// A source that does not show what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It cannot be observed.
    Blind(Source),
    /// It shows what was.
    Lag(Source, Lag),
}

/// Finds out, while nothing is wrong, which trouble would have been noticed.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// It would have.
    pub noticed: BTreeSet<Trouble>,
    /// The daemon did something since, so that what was remembered is too old.
    acted: bool,
}

/// Where the world stops, so that something else can happen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nowhere.
    Nowhere,
    /// Before or after the boundary of this number.
    At {
        /// The boundary.
        boundary: usize,
        /// Whether after it.
        after: bool,
    },
    /// Before and after every boundary.
    Everywhere,
}

type Look = dyn Fn(&Effect, &State) + Send + Sync;

/// Looks at an effect, and at the world, before it happens.
#[derive(Clone)]
pub struct Auditor(pub Arc<Look>);

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auditor")
    }
}

/// Something went wrong on purpose.
struct Planned(&'static str);

impl World {
    /// Remembers how everything is now, for sources that lag behind.
    pub fn remember(&self) {
        let mut state = self.lock();
        state.remembered = Some(Arc::new(state.alone()));
    }

    /// Carries out one effect, or what the planned fault makes of it.
    pub(super) async fn effect<T>(
        &self,
        kind: &'static str,
        agent: &AgentName,
        detail: impl Into<String>,
        act: impl FnOnce(&mut State) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let effect = Effect {
            kind,
            agent: agent.clone(),
            detail: detail.into(),
        };
        let failed = |planned: Planned| HostError::failed(kind, planned.0);
        let number = self.reach().await.map_err(failed)?;
        let result = {
            let mut state = self.lock();
            if let Some(Auditor(look)) = &state.auditor {
                look(&effect, &state);
            }
            state.begun += 1;
            let before = Arc::new(state.alone());
            state.changes_nothing = false;
            let result = act(&mut state);
            if result.is_ok() && !state.changes_nothing {
                state.effects.push(effect);
            }
            state.before_effect = Some(before);
            if let Some((_, age @ Lag::Remembered)) = &mut state.lag {
                *age = Lag::Not;
            }
            if let Some(probe) = &mut state.probe {
                probe.acted = true;
            }
            result
        };
        self.leave(number).await.map_err(failed)?;
        result
    }

    /// Answers from what is there, or from what was.
    pub(super) fn see<T: PartialEq>(
        &self,
        source: Source,
        look: impl Fn(&State) -> T,
    ) -> Result<T, HostError> {
        let mut state = self.lock();
        if state.blind.contains(&source) {
            state.misled = true;
            return Err(HostError::failed(source.word(), "it cannot be observed"));
        }
        let now = look(&state);
        if let Some(mut probe) = state.probe.take() {
            let differs = |was: &Option<Arc<State>>| was.as_deref().is_some_and(|was| look(was) != now);
            probe.noticed.insert(Trouble::Blind(source));
            if differs(&state.before_effect) {
                probe.noticed.insert(Trouble::Lag(source, Lag::Effect));
            }
            if !probe.acted && differs(&state.remembered) {
                probe.noticed.insert(Trouble::Lag(source, Lag::Remembered));
            }
            state.probe = Some(probe);
        }
        let was = match &state.lag {
            Some((lags, Lag::Effect)) if *lags == source => state.before_effect.as_deref(),
            Some((lags, Lag::Remembered)) if *lags == source => state.remembered.as_deref(),
            _ => None,
        };
        match was.map(look) {
            Some(was) if was != now => {
                state.misled = true;
                Ok(was)
            }
            _ => Ok(now),
        }
    }

    /// Answers what can never change.
    pub(super) fn recall<T>(&self, source: Source, look: impl FnOnce(&State) -> T) -> Result<T, HostError> {
        let mut state = self.lock();
        if state.blind.contains(&source) {
            state.misled = true;
            return Err(HostError::failed(source.word(), "it cannot be observed"));
        }
        if let Some(probe) = &mut state.probe {
            probe.noticed.insert(Trouble::Blind(source));
        }
        Ok(look(&state))
    }

    /// Comes to the next boundary. Returns its number.
    async fn reach(&self) -> Result<usize, Planned> {
        let number = {
            let mut state = self.lock();
            state.boundaries += 1;
            state.boundaries - 1
        };
        self.stop(number, false).await;
        match self.planned(number, |fault| {
            matches!(fault, Fault::CrashBefore | Fault::ErrorBefore)
        }) {
            Some(Fault::CrashBefore) => self.crash().await,
            Some(_) => Err(Planned("it did not work this time")),
            None => Ok(number),
        }
    }

    /// Leaves a boundary behind.
    async fn leave(&self, number: usize) -> Result<(), Planned> {
        match self.planned(number, |fault| {
            matches!(fault, Fault::CrashAfter | Fault::ErrorAfter)
        }) {
            Some(Fault::CrashAfter) => self.crash().await,
            Some(_) => Err(Planned("its answer was lost")),
            None => {
                self.stop(number, true).await;
                Ok(())
            }
        }
    }

    /// Takes the fault that is planned here, if it is of this kind.
    fn planned(&self, number: usize, kind: fn(&Fault) -> bool) -> Option<Fault> {
        let mut state = self.lock();
        let taken = state.fault.take_if(|(at, fault)| *at == number && kind(fault));
        taken.map(|(_, fault)| fault)
    }

    async fn stop(&self, number: usize, is_after: bool) {
        let stops = {
            let mut state = self.lock();
            let stops = match state.stop {
                Stop::Nowhere => false,
                Stop::Everywhere => true,
                Stop::At { boundary, after } => boundary == number && after == is_after,
            };
            if matches!(state.stop, Stop::At { .. }) && stops {
                state.stop = Stop::Nowhere;
            }
            if stops {
                state.stopped = Some((number, is_after));
            }
            stops
        };
        if stops {
            tokio::task::yield_now().await;
        }
    }

    /// The daemon dies: whatever it was about stays where it is.
    async fn crash<T>(&self) -> T {
        self.lock().crashed = true;
        std::future::pending().await
    }
}

impl State {
    /// A copy that holds no older ones.
    fn alone(&self) -> Self {
        Self {
            effects: Vec::new(),
            before_effect: None,
            remembered: None,
            auditor: None,
            ..self.clone()
        }
    }
}

fn unwritten(planned: &Planned) -> LedgerError {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    rusqlite::Error::SqliteFailure(full, Some(planned.0.to_owned())).into()
}

#[async_trait]
impl Boundary for World {
    async fn before(&self) -> Result<usize, LedgerError> {
        self.reach().await.map_err(|planned| unwritten(&planned))
    }

    async fn after(&self, number: usize) -> Result<(), LedgerError> {
        self.leave(number).await.map_err(|planned| unwritten(&planned))
    }
}
