//! The rules for host folders in a container.
//!
//! They read the text alone. Whether a folder is a link that leads elsewhere is for the launcher to find out, when it
//! is about to bind it.

use std::collections::BTreeMap;

use shared::spec::BindSpec;

use super::words;
use crate::spec::fault::{At, Findings};

/// Nothing of the host below these is ever shown to an agent: sockets, kernel interfaces, the daemon's own folders.
const NEVER_SOURCES: [&str; 7] = [
    "/run",
    "/var/run",
    "/proc",
    "/sys",
    "/dev",
    "/nix",
    "/var/lib/hyperhive",
];

/// Folders that hold one of those.
const TOO_WIDE_SOURCES: [&str; 3] = ["/", "/var", "/var/lib"];

/// Folders of the host system: an agent that writes there owns the host.
const SYSTEM_FOLDERS: [&str; 9] = [
    "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/root", "/sbin", "/usr",
];

/// Folders shared by many: writable only in part.
const SHARED_FOLDERS: [&str; 9] = [
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/tmp",
    "/var/cache",
    "/var/log",
    "/var/tmp",
];

/// What the container itself puts there.
const NEVER_TARGETS: [&str; 8] = [
    "/run", "/var/run", "/proc", "/sys", "/dev", "/nix", "/config", "/state",
];

/// Folders without which the container does not start.
const WHOLE_TARGETS: [&str; 13] = [
    "/", "/bin", "/etc", "/home", "/lib", "/lib32", "/lib64", "/root", "/sbin", "/tmp", "/usr", "/usr/bin",
    "/var",
];

pub(super) fn binds(at: &At<'_>, binds: &[BindSpec], out: &mut Findings) {
    let mut targets: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, bind) in binds.iter().enumerate() {
        let BindSpec {
            source,
            target,
            read_only,
        } = bind;
        let at = at.item(index);
        let (source_at, target_at) = (at.key("source").to_string(), at.key("target").to_string());
        // Not `readOnly`'s stand-in: false would blame the source for what the operator never asked.
        let writable = !read_only && !out.is_patched(&at.key("readOnly").to_string());
        if let Some(message) = words::path_fault(source).or_else(|| source_fault(source, writable)) {
            out.judge(source_at, message);
        }
        if let Some(message) = words::path_fault(target).or_else(|| target_fault(target)) {
            out.judge(target_at, message);
        } else if let Some(first) = targets.insert(target, index) {
            let first_at = format!("{at}").replace(&format!("[{index}]"), &format!("[{first}]"));
            if !out.is_patched(&first_at) {
                out.judge(
                    target_at,
                    format!("is the target of {first_at} too: give each bind its own"),
                );
            }
        }
    }
}

fn source_fault(source: &str, writable: bool) -> Option<String> {
    let within = |folders: &[&'static str]| {
        folders
            .iter()
            .copied()
            .find(|folder| words::is_within(source, folder))
    };
    // One path of the store, read-only, is what every container sees anyway.
    let store_path = source
        .strip_prefix("/nix/store/")
        .is_some_and(|rest| !rest.is_empty());
    if store_path {
        return writable.then(|| "the Nix store cannot be written to: write \"readOnly\": true".to_owned());
    }
    if TOO_WIDE_SOURCES.contains(&source) {
        return Some(format!(
            "{source} holds the daemon's own folders and sockets: name the folder below it that the agent needs"
        ));
    }
    if let Some(folder) = within(&NEVER_SOURCES) {
        return Some(format!(
            "nothing below {folder} is ever bound: copy what the agent needs to another folder, such as /srv"
        ));
    }
    if !writable {
        return None;
    }
    if let Some(folder) = within(&SYSTEM_FOLDERS) {
        return Some(format!(
            "{folder} belongs to the host system and cannot be writable: write \"readOnly\": true, or name a folder \
             made for the agent, such as one below /srv"
        ));
    }
    SHARED_FOLDERS.contains(&source).then(|| {
        format!("{source} as a whole cannot be writable: write \"readOnly\": true, or name a folder below it")
    })
}

fn target_fault(target: &str) -> Option<String> {
    let taken = NEVER_TARGETS
        .into_iter()
        .find(|folder| words::is_within(target, folder))
        .or_else(|| WHOLE_TARGETS.into_iter().find(|folder| target == *folder))?;
    Some(format!(
        "{taken} in the container is taken: choose another place, such as \"/data\""
    ))
}
