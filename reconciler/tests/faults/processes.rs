//! Programs and processes.

use std::collections::BTreeMap;
use std::fs;

use camino::Utf8Path;

use super::world::{World, is_ours, program};

/// Runs git; gives what it printed, trimmed.
pub(crate) fn git(folder: &Utf8Path, args: &[&str]) -> String {
    let output = program("git")
        .args(["-c", "safe.directory=*"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Every live process that has to do with this hive, by the name of its program.
pub(crate) fn census(world: &World) -> BTreeMap<String, Vec<i32>> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let Some(pid) = entry
            .unwrap()
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let text = |file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        // Zombies have neither a command line nor mounts.
        if is_ours(pid, &world.root) {
            found.entry(text("comm").trim().to_owned()).or_default().push(pid);
        }
    }
    found
}
