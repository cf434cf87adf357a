//! Processes as the kernel tells them apart: by id, start time and boot.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    state: u8,
    /// The parent.
    pub(super) parent: i32,
    /// The session.
    pub(super) session: i32,
    /// In clock ticks since boot. A process id that is used again comes with a later one.
    pub(super) start_time: u64,
}

impl Stat {
    /// Reads it; `None` when there is no such process.
    pub(super) fn read(pid: i32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("/proc/{pid}/stat is malformed"),
                )
            }),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The second field is the program's name in parentheses; it may hold anything, also `) R 1`.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it still runs: a zombie waits for its parent only.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The pid namespace of a process; `None` when it is gone or may not be asked.
pub(super) fn pid_namespace(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/pid"))
        .ok()
        .map(|metadata| metadata.ino())
}

/// The kernel's name for the time since the last boot.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// A handle on a process that cannot slip to another one; `None` when it is gone.
///
/// Whoever asks must afterwards make sure, by its start time or namespace, that the id still is the process he means.
pub(super) fn open(pid: i32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a process has set up a handler for this signal.
pub(super) fn catches(pid: i32, signal: Signal) -> io::Result<bool> {
    let status = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    Ok(caught & (1 << (signal.as_raw() - 1)) != 0)
}

/// The live processes of a session.
pub(super) fn of_session(session: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if Stat::read(pid)?.is_some_and(|stat| stat.session == session && stat.is_alive()) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_forge_the_fields_after_it() {
        let text = b"42 (evil) Z 1 1 1) S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let stat = Stat::parse(text).expect("a stat line");
        assert_eq!(
            stat,
            Stat {
                state: b'S',
                parent: 7,
                session: 9,
                start_time: 12345
            }
        );
        assert!(stat.is_alive());
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for text in [&b""[..], b"42", b"42 (x)", b"42 (x) S 1 2", b"42 (x) S a b c d"] {
            assert_eq!(Stat::parse(text), None);
        }
    }

    #[test]
    fn a_process_id_that_is_not_in_use_is_gone() {
        // Above the highest value that pid_max can have.
        assert_eq!(Stat::read(1 << 30).expect("read"), None);
        assert!(open(1 << 30).expect("open").is_none());
    }
}
