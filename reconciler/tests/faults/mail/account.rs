//! What clients know: what was accepted, what they took up, and how their turns ended. Nothing here was asked of the
//! daemon's ledger.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::client::Phase;
use crate::world::DEADLINE;

/// How a question of the story ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Whoever is asked answers with a message.
    Message,
    /// Whoever is asked answers at the question's own address.
    Route,
    /// Nobody answers before its time runs out.
    Default,
    /// Its asker takes it back.
    Cancel,
}

/// How a turn ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It ended well, and the daemon has said so.
    Acknowledged,
    /// It did not end well.
    GivenBack,
    /// Its harness died.
    Died,
    /// Its harness died before it was told whether the end was noted.
    Unsure,
}

/// A message as it was taken up.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) id: u64,
    pub(crate) from: String,
    pub(crate) redelivered: bool,
}

/// Something a client was answered, or did.
#[derive(Debug, Clone)]
pub(crate) enum Did {
    /// Sent under a key that is its text and its dedupe id.
    Sent {
        from: String,
        to: String,
        key: String,
        id: u64,
        again: bool,
    },
    Broadcast {
        from: String,
        key: String,
        count: u64,
    },
    Asked {
        from: String,
        key: String,
        id: u64,
        ending: Ending,
    },
    Reminded {
        owner: String,
        key: String,
        id: u64,
    },
    TookUp {
        by: String,
        turn: u64,
        batch: u64,
        messages: Vec<Taken>,
    },
    Ended {
        by: String,
        turn: u64,
        end: End,
    },
    /// An end that a turn of an earlier run had asked for comes late.
    Late {
        by: String,
        turn: u64,
    },
    Killed(u64),
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent {
                from,
                to,
                key,
                id,
                again,
            } => {
                let known = if *again { ", known already" } else { "" };
                write!(f, "{from} sent {key:?} to {to}: message {id}{known}")
            }
            Self::Broadcast { from, key, count } => {
                write!(f, "{from} sent {key:?} to all: {count} (0: known already)")
            }
            Self::Asked { from, key, id, .. } => write!(f, "{from} asked {key:?}: question {id}"),
            Self::Reminded { owner, key, id } => write!(f, "{owner} set {key:?}: reminder {id}"),
            Self::TookUp {
                by,
                turn,
                batch,
                messages,
            } => {
                write!(f, "{by} took up in turn {turn}, batch {batch}:")?;
                for Taken {
                    id,
                    from,
                    redelivered,
                } in messages
                {
                    let again = if *redelivered { " again" } else { "" };
                    write!(f, " {id} from {from}{again};")?;
                }
                Ok(())
            }
            Self::Ended { by, turn, end } => write!(f, "{by} ended turn {turn}: {end:?}"),
            Self::Late { by, turn } => write!(f, "{by} was told late of the end of turn {turn}"),
            Self::Killed(number) => write!(f, "the daemon was killed for the {number}. time"),
        }
    }
}

/// What a history is about: the numbers of messages, of which questions are some.
pub(crate) type Subjects = BTreeSet<u64>;

impl Did {
    /// The turn in which one of these was taken up.
    fn turn_with(&self, subjects: &Subjects) -> Option<(String, u64)> {
        match self {
            Self::TookUp {
                by, turn, messages, ..
            } => {
                let concerns = messages.iter().any(|message| subjects.contains(&message.id));
                concerns.then(|| (by.clone(), *turn))
            }
            _ => None,
        }
    }

    fn concerns(&self, subjects: &Subjects, turns: &BTreeSet<(String, u64)>) -> bool {
        match self {
            Self::Sent { id, .. } | Self::Asked { id, .. } => subjects.contains(id),
            Self::TookUp { by, turn, .. } | Self::Ended { by, turn, .. } | Self::Late { by, turn } => {
                turns.contains(&(by.clone(), *turn))
            }
            Self::Broadcast { .. } | Self::Reminded { .. } => false,
            Self::Killed(_) => true,
        }
    }
}

/// All that clients did, in the order in which they knew of it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    did: Mutex<Vec<Did>>,
    requests: Mutex<u64>,
    more: Condvar,
    phase: AtomicU8,
}

impl Account {
    pub(crate) fn note(&self, did: Did) {
        self.did.lock().unwrap_or_else(PoisonError::into_inner).push(did);
    }

    pub(crate) fn did(&self) -> MutexGuard<'_, Vec<Did>> {
        self.did.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn killed(&self, number: u64) {
        self.note(Did::Killed(number));
    }

    /// A client is about to ask the daemon for something.
    pub(crate) fn request(&self) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.more.notify_all();
    }

    /// Waits until clients have begun so many more requests, answered or not.
    pub(crate) fn after_requests(&self, more: u64) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = *requests + more;
        let (_requests, timeout) = self
            .more
            .wait_timeout_while(requests, DEADLINE, |requests| *requests < wanted)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "the clients do nothing any more");
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Relaxed))
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Tells all clients to end once this is dropped, and to give up when that is because the test failed.
    pub(crate) fn over_at_the_end(&self) -> impl Drop {
        struct Over<'a>(&'a Account);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                let failed = std::thread::panicking();
                self.0.enter(if failed { Phase::Failed } else { Phase::Over });
            }
        }
        Over(self)
    }

    /// What has to do with these, and the kills around it.
    pub(crate) fn history(&self, subjects: &Subjects) -> String {
        let did = self.did();
        let turns: BTreeSet<(String, u64)> = did.iter().filter_map(|did| did.turn_with(subjects)).collect();
        let chosen: Vec<&Did> = did.iter().filter(|did| did.concerns(subjects, &turns)).collect();
        let mut lines = Vec::new();
        for (index, did) in chosen.iter().enumerate() {
            // Of kills in a row the last is told: what lies between two concerns nobody here.
            let kill = matches!(did, Did::Killed(_));
            let kill_follows = matches!(chosen.get(index + 1), Some(Did::Killed(_)) | None);
            if !kill || !kill_follows && !lines.is_empty() {
                lines.push(format!("  {did}"));
            }
        }
        lines.join("\n")
    }
}
