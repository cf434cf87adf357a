//! The hive's own folders: whose they are, what they are on, and how much room is left there.

use super::judgement::{Judgement, fail, ok, warn};
use super::{Facts, Folder};
use crate::host::layout::MAX_SOCKET_PATH;

/// Less free space than this is a warning; a tenth of it a failure.
const LOW_SPACE: u64 = 1 << 30;
/// The same for files.
const LOW_FILES: u64 = 10_000;

pub(super) fn state(facts: &Facts) -> Judgement {
    let todo = "name the state folder with --state, or start the daemon once";
    let folder = match &facts.state {
        Err(why) => return fail(why, todo),
        Ok(folder) => folder,
    };
    let path = &folder.path;
    match folder.owner {
        None => fail(format!("there is no folder {path}"), todo),
        Some(owner) if owner != facts.user && facts.user != 0 => warn(
            format!("{path} belongs to user {owner}, and this is user {}", facts.user),
            "sudo hive doctor, to see all there is",
        ),
        Some(_) if folder.mode & 0o077 != 0 => fail(
            format!("{path} is open to others (mode {:o})", folder.mode),
            format!("chmod 700 {path}"),
        ),
        Some(_) => ok(format!("{path}, mode {:o}", folder.mode)),
    }
}

pub(super) fn file_system(facts: &Facts) -> Judgement {
    let Ok(folder) = &facts.state else {
        return ok("not looked at");
    };
    let kind = folder.file_system.as_str();
    if folder.read_only {
        return fail(
            format!("{} cannot be written ({kind}, read-only)", folder.path),
            "look at dmesg for why, and mount it for writing again",
        );
    }
    match kind {
        "tmpfs" | "ramfs" => warn(
            format!("{kind}: it does not survive a reboot"),
            "put the state folder on a disk",
        ),
        _ if folder.is_remote() => warn(
            format!("{kind}: a write-ahead log over it may not be safe"),
            "put the state folder on a local disk",
        ),
        _ => ok(kind),
    }
}

pub(super) fn space(facts: &Facts) -> Judgement {
    let Ok(folder) = &facts.state else {
        return ok("not looked at");
    };
    let todo = format!("free space on the file system of {}", folder.path);
    let state = room(folder, &todo);
    let roots = facts.containers.as_ref().and_then(|it| it.roots.as_ref().ok());
    let roots = roots.map(|roots| room(roots, &format!("free space on the file system of {}", roots.path)));
    match roots {
        Some(roots) if roots.verdict > state.verdict => roots,
        _ => state,
    }
}

/// How much room is left where a folder is.
pub(super) fn room(folder: &Folder, todo: &str) -> Judgement {
    let files = folder
        .free_files
        .map_or_else(String::new, |files| format!(", {files} more files"));
    let found = format!("{} MiB free{files}", folder.free_bytes >> 20);
    let share = |low: u64| folder.free_bytes < low;
    let files = |low: u64| folder.free_files.is_some_and(|files| files < low);
    if share(LOW_SPACE / 10) || files(LOW_FILES / 10) {
        fail(found, todo)
    } else if share(LOW_SPACE) || files(LOW_FILES) {
        warn(found, todo)
    } else {
        ok(found)
    }
}

pub(super) fn run(facts: &Facts) -> Judgement {
    let folder = match &facts.run {
        Err(why) => return fail(why, "name the run folder with --run"),
        Ok(folder) => folder,
    };
    let (path, mode) = (&folder.path, folder.mode);
    // With containers the egress service reads a file there, as a user of its own.
    let (shut, right) = match facts.containers {
        Some(_) => (0o022, "755"),
        None => (0o007, "750"),
    };
    if folder.owner.is_none() {
        ok(format!("{path} is made when the daemon starts"))
    } else if mode & shut != 0 {
        fail(
            format!("{path} is open to others (mode {mode:o})"),
            format!("chmod {right} {path}"),
        )
    } else {
        ok(format!("{path}, mode {mode:o}"))
    }
}

pub(super) fn socket_path(facts: &Facts) -> Judgement {
    let found = format!("the longest has {} bytes of {MAX_SOCKET_PATH}", facts.socket_path);
    if facts.socket_path > MAX_SOCKET_PATH {
        fail(found, "choose a shorter --run folder, or shorter names")
    } else {
        ok(found)
    }
}
