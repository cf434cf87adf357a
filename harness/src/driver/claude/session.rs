//! The conversation: its id is ours, and it is kept in a file, so that a restart goes on with it.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command;
use crate::driver::conversation::Conversation;

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

impl Conversation for Session {
    fn path(state: &Utf8Path) -> Utf8PathBuf {
        command::home(state).join("hive-session.json")
    }

    fn new(number: u64) -> Self {
        Self {
            id: crate::ids::session_id(),
            began: false,
            turns: 0,
            number,
            notes_asked: 0,
        }
    }

    fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::conversation::{load, save};

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8");
        (dir, path)
    }

    #[test]
    fn a_conversation_is_the_same_after_a_restart() {
        let (_dir, state) = folder();
        let mut session: Session = load(&state, None).expect("a new one");
        assert!(!session.began);
        session.began = true;
        save(&state, &session).expect("kept");
        assert_eq!(load::<Session>(&state, None).expect("read"), session);
        assert_eq!(load::<Session>(&state, Some(0)).expect("read"), session);
    }

    #[test]
    fn a_higher_number_begins_a_new_conversation_once() {
        let (_dir, state) = folder();
        let old: Session = load(&state, None).expect("a new one");
        save(&state, &old).expect("kept");
        let new: Session = load(&state, Some(1)).expect("another");
        assert_ne!(new.id, old.id);
        save(&state, &new).expect("kept");
        assert_eq!(load::<Session>(&state, Some(1)).expect("the same"), new);
        assert_eq!(load::<Session>(&state, None).expect("the same"), new);
    }
}
