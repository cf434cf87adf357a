//! The machine's clock and randomness. Nothing else in this crate may ask for either.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use shared::{AgentUid, HiveId, LoginId};

use super::{Clock, Ids};

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine for the time"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn steady(&self) -> Duration {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        FIRST.get_or_init(Instant::now).elapsed()
    }
}

/// Random identifiers.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

#[expect(clippy::disallowed_methods, reason = "the one place that makes random ids")]
impl Ids for RandomIds {
    fn agent_uid(&self) -> AgentUid {
        AgentUid(uuid::Uuid::new_v4())
    }

    fn hive_id(&self) -> HiveId {
        HiveId(uuid::Uuid::new_v4())
    }

    fn login_id(&self) -> LoginId {
        LoginId(uuid::Uuid::new_v4())
    }

    fn jitter(&self) -> f64 {
        rand::random()
    }
}
