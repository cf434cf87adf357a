//! The conversation: its id is the program's, and it is kept in a file, so that a restart goes on with it.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::driver::conversation::Conversation;

/// The longest id, in bytes.
const MAX_ID: usize = 256;

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

impl Conversation for Session {
    fn path(state: &Utf8Path) -> Utf8PathBuf {
        home(state).join("hive-session.json")
    }

    fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    fn number(&self) -> u64 {
        self.number
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::conversation::{load, save};

    #[test]
    fn a_conversation_is_kept_until_a_higher_number_asks_for_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Utf8Path::from_path(dir.path()).expect("UTF-8");
        assert_eq!(load::<Session>(state, None).expect("new"), Session::default());
        let session = Session {
            id: Some("abc".to_owned()),
            turns: 3,
            number: 1,
        };
        save(state, &session).expect("kept");
        for number in [None, Some(0), Some(1)] {
            assert_eq!(load::<Session>(state, number).expect("read"), session);
        }
        assert_eq!(load::<Session>(state, Some(2)).expect("read"), Session::new(2));
    }

    #[test]
    fn an_id_is_short_and_plain() {
        assert!(is_id("43d6b5ec-7172") && is_id(&"x".repeat(256)));
        for bad in ["", "a\nb", "a\u{1b}", &"x".repeat(257)] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }
}
