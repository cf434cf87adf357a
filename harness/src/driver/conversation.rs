//! The conversation of a driver that runs a program, kept in a file, so that a restart goes on with it.

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why the conversation is not known, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConversationError {
    /// The file cannot be read or written.
    #[error("cannot keep the conversation in {path}: is the disk full, or something else there?")]
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

/// What a driver keeps of a conversation.
pub(super) trait Conversation: Serialize + DeserializeOwned + Clone + Send + 'static {
    /// Its file, in this state folder.
    fn path(state: &Utf8Path) -> Utf8PathBuf;

    /// A conversation that has not begun.
    fn new(number: u64) -> Self;

    /// The highest number that the daemon had announced when it began.
    fn number(&self) -> u64;
}

/// The conversation that goes on; a new one when there is none, or when `number` asks for one. Blocks.
///
/// # Errors
/// When a file is there that cannot be read: a new conversation would silently take the place of the old.
pub(super) fn load<C: Conversation>(state: &Utf8Path, number: Option<u64>) -> Result<C, ConversationError> {
    let path = C::path(state);
    let bytes = match files::read(&path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(C::new(number.unwrap_or_default()));
        }
        Err(source) => return Err(ConversationError::Io { path, source }),
    };
    let kept: C =
        serde_json::from_slice(&bytes).map_err(|source| ConversationError::Malformed { path, source })?;
    Ok(match number {
        Some(number) if number > kept.number() => C::new(number),
        _ => kept,
    })
}

/// Keeps it. Blocks.
///
/// # Errors
/// When it cannot be written.
pub(super) fn save<C: Conversation>(state: &Utf8Path, conversation: &C) -> Result<(), ConversationError> {
    let path = C::path(state);
    let text = serde_json::to_vec(conversation).map_err(|source| ConversationError::Malformed {
        path: path.clone(),
        source,
    })?;
    files::write(&path, &text).map_err(|source| ConversationError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Kept {
        number: u64,
        turns: u64,
    }

    impl Conversation for Kept {
        fn path(state: &Utf8Path) -> Utf8PathBuf {
            state.join("driver/kept.json")
        }

        fn new(number: u64) -> Self {
            Self { number, turns: 0 }
        }

        fn number(&self) -> u64 {
            self.number
        }
    }

    #[test]
    fn a_conversation_is_kept_until_a_higher_number_asks_for_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Utf8Path::from_path(dir.path()).expect("UTF-8");
        assert_eq!(load::<Kept>(state, None).expect("new"), Kept::new(0));
        assert_eq!(load::<Kept>(state, Some(1)).expect("new"), Kept::new(1));
        let kept = Kept { number: 1, turns: 3 };
        save(state, &kept).expect("kept");
        for number in [None, Some(0), Some(1)] {
            assert_eq!(load::<Kept>(state, number).expect("read"), kept);
        }
        assert_eq!(load::<Kept>(state, Some(2)).expect("another"), Kept::new(2));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_new_conversation() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Utf8Path::from_path(dir.path()).expect("UTF-8");
        let path = Kept::path(state);
        files::write(&path, b"{ not JSON").expect("written");
        let error = load::<Kept>(state, None).expect_err("refused");
        assert!(
            error.to_string().contains("does not name a conversation"),
            "{error}"
        );
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("a folder in its place");
        let error = load::<Kept>(state, None).expect_err("refused");
        assert!(matches!(error, ConversationError::Io { .. }), "{error}");
    }
}
