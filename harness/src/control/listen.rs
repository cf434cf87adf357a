//! The loop's side of the control socket.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::{MAX_LINE, Reply, Said};

/// How many things said wait for the loop.
const QUEUE: usize = 64;
/// How many may speak at once.
const CONNECTIONS: usize = 16;
/// How long a connection may say nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// Why nobody can be listened to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket's folder cannot be made.
    #[error("cannot make the folder {path} of the control socket")]
    Folder {
        /// The folder.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {path}: its path may be too long (107 bytes), or something else is there")]
    Bind {
        /// The socket.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Listens on a socket that only this user can connect to, until the receiver is dropped. Whatever an earlier harness left at the
/// path is replaced: the lock of the state folder says that it is gone.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(path: &Utf8Path) -> Result<mpsc::Receiver<Said>, ListenError> {
    if let Some(folder) = path.parent() {
        make_folder(folder).map_err(|source| ListenError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    let listener = bind(path).map_err(|source| ListenError::Bind {
        path: path.to_owned(),
        source,
    })?;
    let (said, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(accept(listener, said));
    Ok(receiver)
}

fn make_folder(folder: &Utf8Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Under another name first, so that nobody can connect before the mode is set, and the old file is replaced at once.
fn bind(path: &Utf8Path) -> std::io::Result<UnixListener> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

async fn accept(listener: UnixListener, said: mpsc::Sender<Said>) {
    let turnstile = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed, so there is always a permit in the end.
        let permit = Arc::clone(&turnstile).acquire_owned().await;
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = said.closed() => return,
        };
        match stream {
            Ok((stream, _)) => {
                let said = said.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &said).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket: connection not accepted");
                // Out of descriptors, most likely: at once again would be a busy loop.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Takes in line after line. The first that is not understood is the last.
async fn converse(stream: UnixStream, said: &mpsc::Sender<Said>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut stream).take(MAX_LINE);
        let Ok(read) = tokio::time::timeout(SILENCE, bounded.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        if read? == 0 {
            return Ok(());
        }
        let understood = if line.ends_with(b"\n") {
            serde_json::from_slice::<Said>(&line).map_err(|error| error.to_string())
        } else {
            Err(format!("a line ends within {MAX_LINE} bytes"))
        };
        let reply = match understood {
            Ok(one) => match said.send(one).await {
                Ok(()) => Reply::Ok,
                Err(_) => Reply::Error("the harness is ending".into()),
            },
            Err(error) => Reply::Error(crate::tame(&error, 500)),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        stream.get_mut().write_all(&text).await?;
        if reply != Reply::Ok {
            return Ok(());
        }
    }
}
