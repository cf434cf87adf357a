//! What keeps steps of one kind from crowding the machine, and those that count others from counting wrong.

use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::reconciler::lock;

/// The right to carry out steps of one kind.
#[derive(Debug)]
pub(super) struct Permits {
    semaphore: Semaphore,
    /// How many there are, those in use included.
    most: Mutex<usize>,
    /// Steps of this kind are planned upon how many others there are.
    counts: bool,
}

/// The right to one step.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Permits,
    _permit: Option<SemaphorePermit<'a>>,
    /// Whether what was planned before can be carried out with it. Else the world may have gone on: look again.
    pub(super) plan_holds: bool,
}

impl Permits {
    /// So many steps at once.
    pub(super) fn up_to(most: usize) -> Self {
        Self {
            semaphore: Semaphore::new(most),
            most: Mutex::new(most),
            counts: false,
        }
    }

    /// One step at a time, each planned while no other is carried out: it sees those before it when it counts.
    pub(super) fn one_by_one() -> Self {
        Self {
            counts: true,
            ..Self::up_to(1)
        }
    }

    /// Waits for the right to a step.
    pub(super) async fn get(&self) -> Permit<'_> {
        let free = self.semaphore.try_acquire().ok();
        let plan_holds = free.is_some() && !self.counts;
        let permit = match free {
            Some(permit) => Some(permit),
            // The semaphore is never closed.
            None => self.semaphore.acquire().await.ok(),
        };
        Permit {
            of: self,
            _permit: permit,
            plan_holds,
        }
    }

    /// So many steps at once from now on; those that are being carried out already are not cut short.
    pub(super) fn resize(&self, most: usize) {
        let mut now = lock(&self.most);
        if most > *now {
            self.semaphore.add_permits(most - *now);
            *now = most;
        } else {
            *now -= self.semaphore.forget_permits(*now - most);
        }
    }
}

impl Permit<'_> {
    /// Whether it is for steps of this kind.
    pub(super) fn is_of(&self, permits: &Permits) -> bool {
        std::ptr::eq(self.of, permits)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_planned_holds_when_a_permit_was_free() {
        let permits = Permits::up_to(2);
        let (first, second) = (permits.get().await, permits.get().await);
        assert!(first.plan_holds && second.plan_holds);
        assert!(first.is_of(&permits) && !first.is_of(&Permits::up_to(2)));
    }

    #[tokio::test]
    async fn whoever_waited_for_a_permit_looks_again() {
        let permits = Permits::up_to(1);
        let first = permits.get().await;
        let mut second = Box::pin(permits.get());
        assert!((&mut second).now_or_never().is_none(), "there is one");
        drop(first);
        assert!(!second.await.plan_holds);
    }

    #[tokio::test]
    async fn whoever_counts_others_looks_again_with_the_permit_in_hand() {
        // Between the plan and the permit another one may have come and gone.
        assert!(!Permits::one_by_one().get().await.plan_holds);
    }

    #[tokio::test]
    async fn permits_in_use_are_taken_back_later() {
        let permits = Permits::up_to(0);
        permits.resize(3);
        let held = [permits.get().await, permits.get().await];
        permits.resize(1);
        assert!(permits.get().now_or_never().is_none(), "the third is gone");
        drop(held);
        permits.resize(1);
        let _one = permits.get().await;
        assert!(permits.get().now_or_never().is_none(), "so is the second");
    }
}
