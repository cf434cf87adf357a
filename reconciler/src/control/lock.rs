//! The lock of the one program that may change a state folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::time::Duration;

use camino::Utf8PathBuf;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::host::layout::Layout;

/// How often the lock is asked for.
const TRIES: u32 = 10;
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a state folder may not be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another daemon{} uses the state folder {state}: stop it first, or give this one another --state", pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Taken {
        /// The folder.
        state: Utf8PathBuf,
        /// The other's process id, when it could be read.
        pid: Option<String>,
    },
    /// The lock's file cannot be used.
    #[error("cannot {op} {path}")]
    Io {
        /// The operation.
        op: &'static str,
        /// On what.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Held as long as the daemon runs; the kernel lets go when it dies.
///
/// One that was killed a moment ago may still be ending, so it is asked for more than once before it is refused.
///
/// # Errors
/// When another process has it.
pub async fn take(layout: &Layout) -> Result<File, LockError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(layout.lock())
        .map_err(io_error(layout, "open"))?;
    let mut tries = 0;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(Errno::WOULDBLOCK) => return Err(taken(layout, &file)),
            Err(errno) => return Err(io_error(layout, "lock")(errno.into())),
        }
    }
    file.set_len(0).map_err(io_error(layout, "write"))?;
    writeln!(file, "{}", std::process::id()).map_err(io_error(layout, "write"))?;
    Ok(file)
}

/// Whether the folder is free, found out without changing anything.
///
/// # Errors
/// When another process has it, or that cannot be said.
pub fn check(layout: &Layout) -> Result<(), LockError> {
    let file = match File::open(layout.lock()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(io_error(layout, "open"))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(taken(layout, &file)),
        Err(errno) => Err(io_error(layout, "lock")(errno.into())),
    }
}

fn taken(layout: &Layout, file: &File) -> LockError {
    let pid = io::read_to_string(file).ok().map(|text| text.trim().to_owned());
    LockError::Taken {
        state: layout.state().to_owned(),
        pid: pid.filter(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())),
    }
}

fn io_error(layout: &Layout, op: &'static str) -> impl FnOnce(io::Error) -> LockError + use<> {
    let path = layout.lock();
    move |source| LockError::Io { op, path, source }
}
