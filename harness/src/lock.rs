//! One harness per state folder.

use std::fs::{File, OpenOptions, TryLockError};

use camino::{Utf8Path, Utf8PathBuf};

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another harness holds it.
    #[error(
        "another harness already runs with the state folder {0}: stop it first, or give this one its own --state"
    )]
    Held(Utf8PathBuf),
    /// The lock file cannot be opened or locked.
    #[error("cannot lock {path}: is the folder there, and may this user write in it?")]
    Io {
        /// The lock file.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Held as long as this lives; the kernel drops it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// Takes the lock of a state folder, without waiting.
///
/// # Errors
/// [`LockError::Held`] when another process has it.
pub fn acquire(state: &Utf8Path) -> Result<StateLock, LockError> {
    let path = state.join("harness.lock");
    let io = |source| LockError::Io {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(StateLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(LockError::Held(state.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_exclusive_and_free_again_afterwards() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let state = Utf8Path::from_path(dir.path()).expect("UTF-8 path");
        let held = acquire(state).expect("first");
        let error = acquire(state).expect_err("the second must be refused");
        assert!(
            error.to_string().contains("another harness already runs"),
            "{error}"
        );
        drop(held);
        acquire(state).expect("free again");
    }
}
