//! Work that blocks, on the pool made for it.

use super::HostError;

/// Runs blocking work; `subject` is what it is about, should it end early.
pub(super) async fn blocking<T, F>(subject: impl Into<String>, work: F) -> Result<T, HostError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, HostError> + Send + 'static,
{
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(HostError::failed(subject, error.to_string())))
}
