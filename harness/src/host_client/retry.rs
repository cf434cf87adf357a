//! Tries again, at growing distances, while the daemon is away.

use std::time::Duration;

use super::ClientError;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Distances between attempts: 0.2 s, doubling up to 5 s.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The distance to the next attempt.
    pub fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(LONGEST);
        step
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// Repeats a call until it succeeds or is refused for good.
///
/// # Errors
/// The error that is not [transient](ClientError::is_transient).
pub async fn until_answered<T, F, R>(call: F) -> Result<T, ClientError>
where
    F: Fn() -> R,
    R: Future<Output = Result<T, ClientError>>,
{
    repeated(call, ClientError::is_transient).await
}

/// Repeats a call also while the daemon takes no more: what must not be lost waits until it does.
///
/// # Errors
/// The error that is for good.
pub async fn until_taken<T, F, R>(call: F) -> Result<T, ClientError>
where
    F: Fn() -> R,
    R: Future<Output = Result<T, ClientError>>,
{
    repeated(call, |error| error.is_transient() || error.is_too_much()).await
}

async fn repeated<T, F, R>(call: F, again: fn(&ClientError) -> bool) -> Result<T, ClientError>
where
    F: Fn() -> R,
    R: Future<Output = Result<T, ClientError>>,
{
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(error) if again(&error) => {
                tracing::debug!(error = crate::error_chain(&error), "trying again");
                tokio::time::sleep(backoff.step()).await;
            }
            answered => return answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_grow_to_a_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let steps: Vec<u128> = (0..7).map(|_| backoff.step().as_millis()).collect();
        assert_eq!(steps, [200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.step(), FIRST);
    }
}
