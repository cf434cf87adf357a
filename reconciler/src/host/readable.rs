//! Waiting for descriptors that tokio has no type for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has tokio wait until a descriptor can be read.
#[expect(
    unsafe_code,
    reason = "tokio has no safe way to wait for a descriptor of its own kind"
)]
pub(super) fn readable(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and nothing takes it out of the `AsyncFd`.
    let watched = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) };
    Ok(watched?)
}
