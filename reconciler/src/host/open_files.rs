//! How many files this process may have open. Every connection is one, so the usual soft limit of 1024 would let a few
//! hostile agents together take the admin door's.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// What programs expect to find: some use numbers of files in ways that break beyond it.
const USUAL: u64 = 1024;

/// Takes as many as the system grants.
///
/// # Errors
/// When the system refuses.
pub fn raise() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Goes back to what is usual, for the program that this process is about to become.
///
/// # Errors
/// When the system refuses.
pub fn lower() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit
        .current
        .map_or(Some(USUAL), |current| Some(current.min(USUAL)));
    Ok(setrlimit(Resource::Nofile, limit)?)
}
