//! The conversation: its id is the program's, and it is kept in a file, so that a restart goes on with it.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::driver::claude::session as files;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// The longest id, in bytes.
const MAX_ID: usize = 256;

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
    #[error("{path} does not name a conversation: put back what was there, or delete it to begin a new one")]
    Malformed {
        /// The file.
        path: Utf8PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

/// A conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    /// Its id, made by the program; absent before it has begun.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// Turns that ended well in it.
    #[serde(default)]
    pub(super) turns: u64,
    /// The highest number the daemon has announced.
    #[serde(default)]
    pub(super) number: u64,
}

impl Session {
    /// A conversation that has not begun.
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }
}

/// Whether this can be the id of a conversation.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID && !text.contains(char::is_control)
}

/// Where everything of the driver lies.
pub(super) fn home(state: &Utf8Path) -> Utf8PathBuf {
    state.join("acp")
}

fn path(state: &Utf8Path) -> Utf8PathBuf {
    home(state).join("hive-session.json")
}

/// The conversation that goes on; a new one when there is none, or when `number` asks for one.
///
/// # Errors
/// When a file is there that cannot be read: a new conversation would silently take the place of the old.
pub(super) fn load(state: &Utf8Path, number: Option<u64>) -> Result<Session, SessionError> {
    let path = path(state);
    let bytes = match files::read(&path, MAX_BYTES) {
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
    files::write(&path, &text).map_err(|source| SessionError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_kept_until_a_higher_number_asks_for_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Utf8Path::from_path(dir.path()).expect("UTF-8");
        assert_eq!(load(state, None).expect("new"), Session::default());
        let session = Session {
            id: Some("abc".to_owned()),
            turns: 3,
            number: 1,
        };
        save(state, &session).expect("kept");
        for number in [None, Some(0), Some(1)] {
            assert_eq!(load(state, number).expect("read"), session);
        }
        assert_eq!(load(state, Some(2)).expect("read"), Session::new(2));
        files::write(&path(state), b"{").expect("written");
        assert!(matches!(load(state, None), Err(SessionError::Malformed { .. })));
    }

    #[test]
    fn an_id_is_short_and_plain() {
        assert!(is_id("43d6b5ec-7172") && is_id(&"x".repeat(256)));
        for bad in ["", "a\nb", "a\u{1b}", &"x".repeat(257)] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }
}
