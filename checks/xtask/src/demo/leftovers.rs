//! Agents that a killed daemon left running, found through what their runtime noted and ended by id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;

use crate::poll::{Look, eventually};

/// `launch/run.json` is a few lines; more is not what we look for.
const MAX_RUN_FILE: u64 = 64 << 10;

/// A process, told from a later one with the same pid by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    #[serde(alias = "startTime")]
    start_time: u64,
}

/// Kills every agent noted below `<state>/agents` with all its descendants, and waits until they are gone. The daemon
/// must be gone already.
pub(crate) fn kill_agents(state: &Utf8Path) -> Result<()> {
    let mut doomed = BTreeSet::new();
    eventually(Duration::from_secs(10), "the agents left behind are gone", || {
        // Read again at every look: one that was being started notes itself late. Descendants are collected before
        // anything dies, because orphans lose their parent and a sandbox's outer process may leave its inner ones.
        doomed.extend(
            noted(state)
                .into_values()
                .filter(|it| alive(*it))
                .flat_map(with_descendants),
        );
        let mut living = Vec::new();
        for process in doomed.iter().filter(|it| alive(**it)) {
            kill(*process)?;
            living.push(process.pid);
        }
        Ok(if living.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(format!("alive: {living:?}"))
        })
    })
}

/// The process of each agent whose `launch/run.json` can be read; a file being written or long gone is no error.
pub(crate) fn noted(state: &Utf8Path) -> BTreeMap<String, Process> {
    let Ok(agents) = state.join("agents").read_dir_utf8() else {
        return BTreeMap::new();
    };
    agents
        .flatten()
        .filter_map(|agent| {
            let mut text = Vec::new();
            fs::File::open(agent.path().join("launch/run.json"))
                .ok()?
                .take(MAX_RUN_FILE)
                .read_to_end(&mut text)
                .ok()?;
            Some((agent.file_name().to_owned(), serde_json::from_slice(&text).ok()?))
        })
        .collect()
}

fn with_descendants(root: Process) -> Vec<Process> {
    let all: Vec<(Process, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| read_stat(entry.file_name().to_str()?.parse().ok()?))
        .map(|stat| (stat.process, stat.parent))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|it| it.pid) {
        let children = all
            .iter()
            .filter(|(process, its_parent)| *its_parent == parent && !found.contains(process));
        let children: Vec<Process> = children.map(|(process, _)| *process).collect();
        found.extend(children);
        next += 1;
    }
    found
}

struct Stat {
    process: Process,
    parent: i32,
    /// Dead, but not collected by its parent yet.
    dead: bool,
}

fn read_stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&text))
}

/// The program's name is in parentheses and may hold anything, parentheses and spaces included.
fn parse_stat(pid: i32, text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    // After the name comes field 3.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let start_time = fields.get(22 - 3)?.parse().ok()?;
    let dead = matches!(*fields.first()?, "Z" | "X");
    Some(Stat {
        process: Process { pid, start_time },
        parent: fields.get(1)?.parse().ok()?,
        dead,
    })
}

/// Whether it is this process that has the pid, and it is not dead.
pub(crate) fn alive(process: Process) -> bool {
    read_stat(process.pid).is_some_and(|stat| stat.process == process && !stat.dead)
}

fn kill(process: Process) -> Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Ok(());
    };
    // The handle is taken first and checked then: whatever it stands for is what gets the signal.
    let result = pidfd_open(pid, PidfdFlags::empty()).and_then(|handle| {
        if alive(process) {
            pidfd_send_signal(handle, Signal::KILL)
        } else {
            Ok(())
        }
    });
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("killing process {} left behind by the daemon", process.pid))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::super::folder::ShortFolder;
    use super::*;

    /// A shell with a child of its own; both would stay for long.
    fn family() -> Child {
        let mut command = Command::new("sh");
        command
            .args(["-c", "tail -f /dev/null & echo; wait"])
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh runs");
        // The line says that the inner one has been started.
        let mut line = [0];
        child
            .stdout
            .as_mut()
            .expect("piped")
            .read_exact(&mut line)
            .expect("a line");
        child
    }

    fn process_of(child: &Child) -> Process {
        read_stat(i32::try_from(child.id()).expect("a pid"))
            .expect("running")
            .process
    }

    fn note(state: &Utf8Path, agent: &str, text: &str) {
        let launch = state.join("agents").join(agent).join("launch");
        fs::create_dir_all(&launch).expect("made");
        fs::write(launch.join("run.json"), text).expect("written");
    }

    #[test]
    fn noted_agents_are_killed_with_their_descendants() {
        let folder = ShortFolder::new().expect("made");
        let mut child = family();
        let process = process_of(&child);
        let all = with_descendants(process);
        assert!(all.len() >= 2, "{all:?}");
        let run = format!(
            r#"{{ "pid": {}, "start_time": {}, "more": 1 }}"#,
            process.pid, process.start_time
        );
        note(folder.path(), "alice", &run);
        note(folder.path(), "bob", "not JSON");
        kill_agents(folder.path()).expect("killed");
        assert!(all.iter().all(|it| !alive(*it)), "{all:?}");
        child.wait().expect("collected");
    }

    #[test]
    fn a_later_process_with_the_same_pid_is_left_alone() {
        let folder = ShortFolder::new().expect("made");
        let mut child = family();
        let process = process_of(&child);
        let run = format!(
            r#"{{ "pid": {}, "startTime": {} }}"#,
            process.pid,
            process.start_time + 1
        );
        note(folder.path(), "alice", &run);
        kill_agents(folder.path()).expect("nothing to do");
        let all = with_descendants(process);
        assert!(all.iter().all(|it| alive(*it)), "{all:?}");
        for it in all {
            kill(it).expect("killed");
        }
        child.wait().expect("collected");
    }

    #[test]
    fn a_state_folder_that_does_not_exist_holds_nothing_to_kill() {
        kill_agents(Utf8Path::new("/nonexistent")).expect("nothing to do");
    }

    #[test]
    fn a_program_name_cannot_forge_the_fields_after_it() {
        let text = "7 (a) S 1 2 (b)) S 42 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9876 1 1";
        let stat = parse_stat(7, text).expect("parses");
        assert_eq!(
            (stat.parent, stat.process.start_time, stat.dead),
            (42, 9876, false)
        );
        assert!(parse_stat(7, "7 (a) Z 1").is_none());
    }
}
