//! The conversation: its id is ours, and it is kept in a file, so that a restart goes on with it.

use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why the conversation is not known, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The file cannot be read or written.
    #[error("cannot keep the conversation in {path}")]
    Io {
        /// The file.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file says something else.
    #[error(
        "{path} does not name a conversation: put back what was there, or delete it to begin a new conversation"
    )]
    Malformed {
        /// The file.
        path: Utf8PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    /// Its id, made here.
    pub(super) id: Uuid,
    /// Whether the program has it.
    #[serde(default)]
    pub(super) began: bool,
    /// Turns that ended well in it.
    #[serde(default)]
    pub(super) turns: u64,
    /// The highest number the daemon has announced.
    #[serde(default)]
    pub(super) number: u64,
    /// How large the notes were when the agent was asked last to tidy them up, in bytes; 0: it need not be.
    #[serde(default)]
    pub(super) notes_asked: u64,
}

impl Session {
    /// A conversation that has not begun.
    pub(super) fn new(number: u64) -> Self {
        Self {
            id: crate::ids::session_id(),
            began: false,
            turns: 0,
            number,
            notes_asked: 0,
        }
    }
}

/// The file.
fn path(state: &Utf8Path) -> Utf8PathBuf {
    state.join("claude/hive-session.json")
}

/// The conversation that goes on; a new one when there is none, or when `number` asks for one.
///
/// # Errors
/// When a file is there that cannot be read: a new conversation would silently take the place of the old.
pub(super) fn load(state: &Utf8Path, number: Option<u64>) -> Result<Session, SessionError> {
    let path = path(state);
    let bytes = match read(&path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Session::new(number.unwrap_or_default()));
        }
        Err(source) => return Err(SessionError::Io { path, source }),
    };
    let session: Session =
        serde_json::from_slice(&bytes).map_err(|source| SessionError::Malformed { path, source })?;
    Ok(match number {
        Some(number) if number > session.number => Session::new(number),
        _ => session,
    })
}

/// Keeps it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn save(state: &Utf8Path, session: &Session) -> Result<(), SessionError> {
    let path = path(state);
    let text = serde_json::to_vec(session).map_err(|source| SessionError::Malformed {
        path: path.clone(),
        source,
    })?;
    write(&path, &text).map_err(|source| SessionError::Io { path, source })
}

/// Reads a file, at most so many bytes of it.
///
/// # Errors
/// The operating system's.
pub(in crate::driver) fn read(path: &Utf8Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that is there in whole or not at all, in a folder that is made if need be.
///
/// # Errors
/// The operating system's.
pub(in crate::driver) fn write(path: &Utf8Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Utf8Path::new("."));
    std::fs::create_dir_all(folder)?;
    let new = Utf8PathBuf::from(format!("{path}.new"));
    // Of a run that was cut short; never followed if somebody made it a link.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::File::create_new(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8");
        (dir, path)
    }

    #[test]
    fn a_conversation_is_the_same_after_a_restart() {
        let (_dir, state) = folder();
        let mut session = load(&state, None).expect("a new one");
        assert!(!session.began);
        session.began = true;
        save(&state, &session).expect("kept");
        assert_eq!(load(&state, None).expect("read"), session);
        assert_eq!(load(&state, Some(0)).expect("read"), session);
    }

    #[test]
    fn a_higher_number_begins_a_new_conversation_once() {
        let (_dir, state) = folder();
        let old = load(&state, None).expect("a new one");
        save(&state, &old).expect("kept");
        let new = load(&state, Some(1)).expect("another");
        assert_ne!(new.id, old.id);
        save(&state, &new).expect("kept");
        assert_eq!(load(&state, Some(1)).expect("the same"), new);
        assert_eq!(load(&state, None).expect("the same"), new);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_new_conversation() {
        let (_dir, state) = folder();
        write(&path(&state), b"{ not JSON").expect("written");
        let error = load(&state, None).expect_err("refused");
        assert!(
            error.to_string().contains("does not name a conversation"),
            "{error}"
        );
        std::fs::remove_file(path(&state)).expect("removed");
        std::fs::create_dir(path(&state)).expect("a folder in its place");
        assert!(matches!(load(&state, None), Err(SessionError::Io { .. })));
    }

    #[test]
    fn what_a_crash_left_of_a_file_is_in_nobodys_way() {
        let (_dir, state) = folder();
        let session = Session::new(0);
        save(&state, &session).expect("kept");
        let target = state.join("elsewhere");
        std::os::unix::fs::symlink(&target, format!("{}.new", path(&state))).expect("a link");
        save(&state, &session).expect("kept again");
        assert!(!target.exists(), "it was written through a link");
    }
}
