//! What the harness inherits from its launcher stays with the harness.

use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Marks every open descriptor above 2 close-on-exec.
///
/// The launcher leaves a locked descriptor open on purpose: the lock lives as long as the harness. A tool that
/// outlives the harness must not keep it locked.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn keep_from_children() -> std::io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if fd <= 2 {
            continue;
        }
        #[expect(unsafe_code, reason = "a number is all there is of an inherited descriptor")]
        // SAFETY: the kernel just listed the descriptor as open, this runs before any other thread exists, so nobody
        // closes it meanwhile (the listing's own descriptor is open until the loop ends), and the borrow ends here.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = fcntl_getfd(fd)?;
        fcntl_setfd(fd, flags | FdFlags::CLOEXEC)?;
    }
    Ok(())
}
