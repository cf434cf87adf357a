//! A program that ends together with all that it started.

use rustix::process::{Pid, Signal, kill_process_group};

/// A process group that is killed unless its leader was waited for.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    /// The group that this process leads.
    pub(super) fn of(leader: Option<Pid>) -> Self {
        Self(leader)
    }

    /// Its leader was waited for: its number may be another's from now on.
    pub(super) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may be gone already; its number is not reused before it is waited for, which is not done yet.
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}
