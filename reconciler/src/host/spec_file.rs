//! The real spec file.

use async_trait::async_trait;
use camino::Utf8PathBuf;

use super::{HostError, SpecFile};

/// The spec at a path.
pub struct SpecAt(pub Utf8PathBuf);

#[async_trait]
impl SpecFile for SpecAt {
    fn path(&self) -> String {
        self.0.to_string()
    }

    async fn read(&self) -> Result<Vec<u8>, HostError> {
        let path = self.0.clone();
        let read = tokio::task::spawn_blocking(move || crate::spec::read(&path)).await;
        let failed = |message: String| HostError::failed(self.0.as_str(), message);
        match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(failed(crate::error_chain(&error))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
