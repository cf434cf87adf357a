//! What the turn loop knows, what can happen to it, and what it can ask for.

use std::time::Duration;

use shared::Digest;
use shared::agent_api::PollResponse;
use shared::status::TurnState;

/// All the turn loop knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// The config in force; absent until one could be loaded.
    pub config: Option<InForce>,
    /// Why the last attempt to load the config file failed.
    pub load_error: Option<String>,
    /// What the daemon said last.
    pub announced: PollResponse,
    /// Turns in a row that did not end well, or had no message.
    pub failures: u32,
    /// Attempts in a row after which the announced config was not the one in force.
    pub load_failures: u32,
    /// Whether the next turn waits for [`Timer::Rest`].
    pub resting: bool,
    /// Whether the next attempt to load waits for [`Timer::Reload`].
    pub load_resting: bool,
    /// Whether it was told to end.
    pub stopping: bool,
}

impl State {
    /// The state at the start: the first [`Action::Load`] is under way.
    pub fn starting() -> Self {
        Self {
            phase: Phase::Loading,
            config: None,
            load_error: None,
            announced: PollResponse::default(),
            failures: 0,
            load_failures: 0,
            resting: false,
            load_resting: false,
            stopping: false,
        }
    }

    /// What to report.
    pub fn turn_state(&self) -> TurnState {
        match &self.phase {
            Phase::Ended => TurnState::Stopping,
            _ if self.stopping => TurnState::Stopping,
            Phase::InTurn { .. } | Phase::Settling => TurnState::Thinking,
            Phase::Loading | Phase::Idle | Phase::Leasing => match &self.config {
                None => TurnState::Starting,
                Some(_) if self.announced.paused => TurnState::Paused,
                Some(_) => TurnState::Idle,
            },
        }
    }

    /// Why the config file is not, or only in part, in force.
    pub fn config_error(&self) -> Option<&str> {
        let unusable = || self.config.as_ref().and_then(|config| config.unusable.as_deref());
        self.load_error.as_deref().or_else(unusable)
    }
}

/// Where the loop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The config file is being read.
    Loading,
    /// Between two turns.
    Idle,
    /// Messages are being leased; there may be none.
    Leasing,
    /// The driver runs.
    InTurn {
        /// Why it was told to stop.
        interrupted: Option<Interruption>,
    },
    /// The driver has ended, its leases are being acknowledged or given back.
    Settling,
    /// Nothing more will happen.
    Ended,
}

/// The config in force, as far as deciding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Its digest.
    pub digest: Digest,
    /// The longest turn.
    pub max_turn: Duration,
    /// Why no turn can be taken with it.
    pub unusable: Option<String>,
}

/// Why a turn is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// It took longer than the config allows.
    Hung,
    /// The harness is ending.
    Stop,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was no message to take one for.
    Nothing,
    /// Well; its leases are acknowledged.
    Completed,
    /// It was interrupted; its leases are given back.
    Interrupted,
    /// Not well; its leases are given back.
    Failed(String),
    /// The driver asks to end the whole harness with this status; the leases are left as they are.
    Exit(u8),
}

/// Lengths of time that something waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Between a turn that did not end well and the next.
    Rest,
    /// Between two attempts to load a config that could not be loaded.
    Reload,
    /// The longest turn.
    MaxTurn,
    /// How long a turn may still run after the harness was told to end.
    StopGrace,
    /// How long giving back leases may take after that.
    Abandon,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The config file was read, and what it holds is in force from now on.
    Loaded(InForce),
    /// The config file could not be loaded.
    LoadFailed(String),
    /// The daemon answered a poll.
    Polled(PollResponse),
    /// Messages were leased to the turn that was started.
    Leased,
    /// The driver ended; the leases are being settled.
    DriverEnded,
    /// The turn is over.
    TurnEnded(Outcome),
    /// A timer ran out.
    Elapsed(Timer),
    /// Somebody wants the harness to end.
    StopAsked,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the config file; answer with [`Event::Loaded`] or [`Event::LoadFailed`].
    Load,
    /// Lease messages and run the driver on them; answer with [`Event::Leased`] and [`Event::DriverEnded`] (unless
    /// there are no messages), then [`Event::TurnEnded`].
    StartTurn,
    /// Cut the turn short; it still ends with [`Event::TurnEnded`].
    Interrupt(Interruption),
    /// Send [`Event::Elapsed`] after this time, instead of what this timer was set to before.
    Set(Timer, Duration),
    /// Forget this timer.
    Clear(Timer),
    /// End the harness with this status.
    Exit(u8),
}
