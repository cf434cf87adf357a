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
    /// What the latest turn is for.
    pub purpose: Purpose,
    /// Why no turn is taken for a while.
    pub parked: Option<Parked>,
    /// Why the last turn did not end well, or what it was worried about.
    pub turn_error: Option<String>,
    /// Messages that the latest turn has taken up.
    pub taken_up: usize,
    /// Messages that waited when the latest turn began.
    pub waited: u64,
    /// Turns in a row that ended well and took up nothing although there was something.
    pub fruitless: u32,
    /// Times in a row that the provider refused.
    pub refusals: u32,
    /// Whether the driver shortens its conversation in the middle of a turn.
    pub compacting: bool,
    /// What the shortening of the conversation is wanted for.
    pub compaction: Compaction,
    /// A nap the agent wishes for after this turn; whether a message ends it.
    pub nap: Option<bool>,
    /// A nap that is instructed for after this turn; whether a message ends it.
    pub instructed_nap: Option<bool>,
    /// The last instruction that was seen.
    pub seen: u64,
    /// The instruction to shorten the conversation that waits for its place.
    pub compact: Option<u64>,
    /// Whether the running turn was ended by instruction.
    pub cancelled: bool,
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
            purpose: Purpose::Messages,
            parked: None,
            turn_error: None,
            taken_up: 0,
            waited: 0,
            fruitless: 0,
            refusals: 0,
            compacting: false,
            compaction: Compaction::NotWanted,
            nap: None,
            instructed_nap: None,
            seen: 0,
            compact: None,
            cancelled: false,
        }
    }

    /// The number up to which every instruction was carried out.
    pub fn instructed(&self) -> u64 {
        self.compact.map_or(self.seen, |waits| waits.saturating_sub(1))
    }

    /// What to report.
    pub fn turn_state(&self) -> TurnState {
        match &self.phase {
            Phase::Ended => TurnState::Stopping,
            _ if self.stopping => TurnState::Stopping,
            Phase::InTurn { .. } | Phase::Settling => match self.purpose {
                Purpose::Messages if !self.compacting => TurnState::Thinking,
                Purpose::Messages | Purpose::Compaction => TurnState::Compacting,
            },
            Phase::Loading | Phase::Idle | Phase::Leasing => self.state_between_turns(),
        }
    }

    fn state_between_turns(&self) -> TurnState {
        if self.config.is_none() {
            return TurnState::Starting;
        }
        // What the operator wants is shown before what stands in the way of it.
        if self.announced.paused {
            return TurnState::Paused;
        }
        if self.announced.over_budget {
            return TurnState::OverBudget;
        }
        match self.parked {
            Some(Parked::NeedsLogin) => TurnState::NeedsLogin,
            Some(Parked::Refused) => TurnState::RateLimited,
            Some(Parked::Napping { .. }) => TurnState::Napping,
            Some(Parked::Stuck { .. }) | None => TurnState::Idle,
        }
    }

    /// Whether a turn is under way, from before its first lease until its last is settled.
    pub fn is_in_turn(&self) -> bool {
        matches!(
            self.phase,
            Phase::Leasing | Phase::InTurn { .. } | Phase::Settling
        )
    }

    /// Why the config file is not, or only in part, in force.
    pub fn config_error(&self) -> Option<&str> {
        let unusable = || self.config.as_ref().and_then(|config| config.unusable.as_deref());
        self.load_error.as_deref().or_else(unusable)
    }
}

/// What a turn is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Messages that wait.
    #[default]
    Messages,
    /// Shortening the conversation; it takes up no message.
    Compaction,
}

/// Why no turn is taken for a while. What ends each is in [`super::decide()`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// The driver has no valid login.
    NeedsLogin,
    /// The provider refuses.
    Refused,
    /// Turns do not get anywhere.
    Stuck {
        /// Messages that waited meanwhile; one more is a reason to try again.
        inbox: u64,
    },
    /// The agent wished for it.
    Napping {
        /// Whether a message ends it.
        wake_on_message: bool,
    },
}

/// What the shortening of the conversation is wanted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compaction {
    /// Nothing.
    #[default]
    NotWanted,
    /// The conversation takes most of the model's window.
    NearlyFull,
    /// A turn found no room; it is to be tried once more.
    NoRoom,
    /// It was shortened for want of room, and the turn is tried once more.
    Retrying,
}

/// Where the loop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The config file is being read.
    Loading,
    /// Between two turns.
    Idle,
    /// The daemon is being told of the turn, and messages may be leased; there may be none.
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
    /// The operator wants it.
    Cancelled,
}

/// An instruction of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instructed {
    /// Its number.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What the operator wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// End the turn that runs.
    Cancel,
    /// Shorten the conversation.
    Compact,
    /// Take no turns.
    Nap {
        /// For how long.
        length: Duration,
        /// Whether a message ends it.
        wake_on_message: bool,
    },
    /// Take turns again.
    Wake,
    /// Nothing but to take note.
    Nothing,
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
    /// It could not go on, for a reason that another turn would meet too; its leases are given back.
    Refused {
        /// The reason.
        why: Refusal,
        /// In words.
        error: String,
    },
    /// The driver asks to end the whole harness with this status; the leases are left as they are.
    Exit(u8),
}

/// What stands in the way of any turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no valid login.
    Login,
    /// The provider refuses for a while: this long, when it said so.
    RateLimited(Option<Duration>),
    /// The provider has no room, or cannot be reached.
    Overloaded,
    /// The account cannot pay.
    Billing,
    /// The conversation is longer than the model takes.
    ContextFull,
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
    /// The end of what no turn is taken for, unless something else ends it.
    Parked,
    /// Between two looks at the login.
    Login,
    /// The end of a nap.
    Nap,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The config file was read, and what it holds is in force from now on.
    Loaded(InForce),
    /// The config file could not be loaded.
    LoadFailed(String),
    /// The operator instructs the agent.
    Instructed(Instructed),
    /// The daemon answered a poll.
    Polled(PollResponse),
    /// Messages were leased to the turn that was started, or its driver fetches them itself: it starts now.
    Leased,
    /// The running turn has taken up so many more messages.
    TakenUp(usize),
    /// The driver shortens its conversation in the middle of a turn, or has done so.
    Compacting(bool),
    /// The conversation takes so much of the model's window, both in tokens.
    Context {
        /// It takes this.
        tokens: u64,
        /// Of this.
        window: u64,
    },
    /// The agent wants no turn for so long after this one.
    Nap {
        /// How long.
        length: Duration,
        /// Whether a message ends it.
        wake_on_message: bool,
    },
    /// The login is another than when it was found wanting.
    LoginChanged,
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
    /// Run the driver so that it shortens its conversation; answer as for [`Action::StartTurn`].
    Compact,
    /// Look whether the login is another by now; answer with [`Event::LoginChanged`] if so.
    CheckLogin,
    /// Cut the turn short; it still ends with [`Event::TurnEnded`].
    Interrupt(Interruption),
    /// Send [`Event::Elapsed`] after this time, instead of what this timer was set to before.
    Set(Timer, Duration),
    /// Forget this timer.
    Clear(Timer),
    /// End the harness with this status.
    Exit(u8),
}
