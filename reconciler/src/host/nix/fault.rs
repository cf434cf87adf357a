//! What it means when Nix fails, and how to say it. Pure.
//!
//! A fault of the input is [`HostError::Refused`]: the same input fails again. A fault of the machine is
//! [`HostError::Failed`], and is tried again. What Nix prints holds whatever an agent wants it to, so where a text would
//! make the machine the one to blame, the machine is looked at ([`Machine`]).

use std::time::Duration;

use super::evaluate::{End, Evaluated};
use crate::host::HostError;
use crate::untrusted::{clean, cut};

/// The most of a message, in bytes.
const MAX_MESSAGE: usize = 1500;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Input was being added to the store.
    Adding,
    /// The meta flake was being evaluated.
    Evaluating,
    /// The outcome was being built.
    Building,
}

/// What the machine looks like after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    /// Whether next to nothing is left on the store's file system.
    pub(super) is_full: bool,
    /// Whether the store answers: its daemon takes connections, or its folder can be written.
    pub(super) is_open: bool,
}

/// The bounds that hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Memory of an evaluation, in bytes.
    pub(super) memory: u64,
    /// Time for it.
    pub(super) time: Duration,
}

/// What to make of a run that failed.
pub(super) fn judge(
    stage: Stage,
    ended: &Evaluated,
    bounds: Bounds,
    machine: Machine,
    own_tree: Option<&str>,
) -> HostError {
    let subject = match stage {
        Stage::Adding => "the store",
        Stage::Evaluating => "the evaluation",
        Stage::Building => "the build",
    };
    let said = String::from_utf8_lossy(&ended.stderr);
    let mut message = message(&said, own_tree);
    if stage == Stage::Building {
        message = last_words(&said, message);
    }
    if machine.is_full {
        let message = format!("the file system of the Nix store is full: make room ({message})");
        return HostError::failed(subject, message);
    }
    if !machine.is_open {
        let message = format!("the Nix store cannot be used: {message}");
        return HostError::failed(subject, message);
    }
    let bound = |what: String| HostError::refused(subject, what);
    match (stage, ended.end) {
        (_, End::TimedOut) => bound(format!(
            "it took longer than {} seconds and was ended",
            bounds.time.as_secs()
        )),
        (Stage::Evaluating, End::OutOfMemory) => bound(too_much(bounds.memory)),
        (Stage::Evaluating, _) if is_memory(&said, ended.end) => bound(too_much(bounds.memory)),
        // Killed by somebody: not what the input did.
        (_, End::Signal(signal)) => {
            HostError::failed(subject, format!("it was killed by signal {signal}: {message}"))
        }
        (Stage::Adding, _) => HostError::failed(subject, message),
        _ => HostError::refused(subject, message),
    }
}

/// Whether the Nix daemon seems to have gone away in the middle of a run. What a builder prints can look the same, so this
/// is no reason for more than another run.
pub(super) fn lost_daemon(ended: &Evaluated) -> bool {
    let signs = [
        "unexpected end-of-file",
        "Nix daemon disconnected unexpectedly",
        "cannot open connection to remote store",
        "cannot connect to socket",
        "Broken pipe",
        "Connection reset by peer",
    ];
    let is_one = |text: &str| text.starts_with("error:") && signs.iter().any(|sign| text.contains(sign));
    let failed = matches!(ended.end, End::Exit(status) if status != 0);
    failed
        && String::from_utf8_lossy(&ended.stderr)
            .lines()
            .map(str::trim)
            .any(is_one)
}

fn too_much(memory: u64) -> String {
    format!(
        "it needs more than {} MiB of memory and was ended",
        memory / (1024 * 1024)
    )
}

fn is_memory(said: &str, end: End) -> bool {
    // The collector gives up with SIGABRT, what runs into its limits with SIGSEGV.
    matches!(end, End::Signal(6 | 11))
        || [
            "out of memory",
            "Out of memory",
            "Out of Memory",
            "bad_alloc",
            "Failed to expand heap",
        ]
        .iter()
        .any(|hint| said.contains(hint))
}

/// What Nix said, for people: from the first error on, without excerpts of code, on one line.
pub(super) fn message(said: &str, own_tree: Option<&str>) -> String {
    let said = clean(said);
    let from = first_error(&said).unwrap_or_default();
    let mut parts: Vec<String> = Vec::new();
    // Newer versions of Nix tell how they came to the error, and the error at the end. Of that way only what leads
    // through the agent's own files helps anybody.
    let mut way: Vec<String> = Vec::new();
    let mut on_the_way = false;
    for text in said[from..].lines() {
        let text = text.trim();
        if text.starts_with('\u{2026}') {
            on_the_way = true;
            continue;
        }
        if on_the_way && text.starts_with("at ") {
            on_the_way = false;
            if own_tree.is_some_and(|tree| text.contains(tree)) {
                way.push(text.to_owned());
            }
            continue;
        }
        let text = text.strip_prefix("error:").unwrap_or(text).trim();
        if text.is_empty() || is_excerpt(text) || is_about_the_trace(text) || is_news(text) {
            continue;
        }
        on_the_way = false;
        parts.push(text.trim_end_matches(';').to_owned());
    }
    // The last one is the nearest.
    parts.extend(way.pop());
    if parts.is_empty() {
        let last = said.lines().rev().map(str::trim).find(|text| !text.is_empty());
        parts.push(last.unwrap_or("it says nothing").to_owned());
    }
    let mut whole = parts.join("; ");
    if let Some(tree) = own_tree {
        whole = whole.replace(&format!("{tree}/"), "");
    }
    if whole.len() > MAX_MESSAGE {
        // The cause is at the beginning with old versions of Nix, at the end with new ones.
        let half = MAX_MESSAGE / 2;
        let tail = whole.ceil_char_boundary(whole.len() - half);
        whole = format!("{} … {}", cut(&whole, half), &whole[tail..]);
    }
    whole
}

/// Where the first line begins that is an error of Nix itself.
fn first_error(said: &str) -> Option<usize> {
    if said.starts_with("error:") {
        return Some(0);
    }
    said.find("\nerror:").map(|at| at + 1)
}

/// Adds to a message what builders said last before it.
fn last_words(said: &str, message: String) -> String {
    let said = clean(&said[..first_error(said).unwrap_or(said.len())]);
    let words: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|text| !text.is_empty() && !is_news(text))
        .collect();
    let last = words[words.len().saturating_sub(10)..].join("; ");
    if last.is_empty() {
        return message;
    }
    let from = last.ceil_char_boundary(last.len().saturating_sub(MAX_MESSAGE / 2));
    format!("{message}; last said: {}", &last[from..])
}

/// Whether a line shows code: `12| text`, `| ^`.
fn is_excerpt(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.starts_with('|')
}

/// Whether a line says how to be told more of the way to the error.
fn is_about_the_trace(text: &str) -> bool {
    text.starts_with("(use '--show-trace'") || text.starts_with("(stack trace truncated")
}

/// Whether a line is about something else than the error.
fn is_news(text: &str) -> bool {
    let starts = [
        "warning:",
        "building '",
        "• Added input",
        "'path:",
        "copying path",
        "trace:",
        "/nix/store/",
        "these ",
        "this derivation will be built",
    ];
    starts.iter().any(|start| text.starts_with(start)) || text.ends_with(".drv")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Machine = Machine {
        is_full: false,
        is_open: true,
    };

    fn judged(stage: Stage, end: End, said: &str, machine: Machine) -> HostError {
        let ended = Evaluated {
            end,
            stdout: Vec::new(),
            stderr: said.as_bytes().to_vec(),
        };
        let bounds = Bounds {
            memory: 2 << 30,
            time: Duration::from_secs(7),
        };
        judge(stage, &ended, bounds, machine, Some("/nix/store/x-source"))
    }

    #[test]
    fn an_error_is_told_without_code_and_without_the_stores_path() {
        let said = "warning: not writing modified lock file\n\u{2022} Added input 'guest':\nerror: infinite recursion \
                    encountered\n\n       at /nix/store/x-source/agent.nix:1:16:\n\n            1| {...}: let x = x; in\n\
                    \x20            |                ^\n(use '--show-trace' to show detailed location information)\n";
        let error = judged(Stage::Evaluating, End::Exit(1), said, WELL);
        assert!(error.is_terminal());
        assert_eq!(
            error.chain(),
            "the evaluation: infinite recursion encountered; at agent.nix:1:16:"
        );
    }

    #[test]
    fn of_the_way_to_an_error_the_agents_own_line_is_told() {
        // As Nix 2.34 says it.
        let said = "error:\n       \u{2026} while evaluating attribute 'config'\n         at /s/y-source/flake.nix:56:9:\n\
                    \x20          55|       inherit x;\n           56|       config = y;\n             |         ^\n\n\
                    \x20      \u{2026} while calling the 'fetchGit' builtin\n         at /nix/store/x-source/agent.nix:1:30:\n\
                    \x20           1| { ... }: builtins.fetchGit \"/tmp\"\n\n       (stack trace truncated; use '--show-trace' to \
                    show the full, detailed trace)\n\n       error: in pure evaluation mode, 'fetchGit' doesn't fetch \
                    unlocked input 'git+file:///tmp'\n";
        assert_eq!(
            judged(Stage::Evaluating, End::Exit(1), said, WELL).chain(),
            "the evaluation: in pure evaluation mode, 'fetchGit' doesn't fetch unlocked input 'git+file:///tmp'; at \
             agent.nix:1:30:"
        );
        // Nothing but a way: better than nothing.
        let said = "error:\n       \u{2026} while evaluating\n";
        assert!(
            judged(Stage::Evaluating, End::Exit(1), said, WELL)
                .chain()
                .contains("while evaluating")
        );
    }

    #[test]
    fn what_the_input_did_is_refused() {
        for (stage, end, said, told) in [
            (Stage::Evaluating, End::TimedOut, "", "longer than 7 seconds"),
            (Stage::Evaluating, End::OutOfMemory, "", "more than 2048 MiB"),
            (
                Stage::Evaluating,
                End::Exit(1),
                "error: out of memory",
                "more than 2048 MiB",
            ),
            (
                Stage::Evaluating,
                End::Exit(134),
                "GC Warning: Failed to expand heap by 1 KiB",
                "more than 2048 MiB",
            ),
            (Stage::Evaluating, End::Signal(11), "", "more than 2048 MiB"),
            (
                Stage::Building,
                End::Exit(100),
                "error: builder for '/nix/store/y.drv' failed with exit code 1;\n  last 1 log lines:\n  > no",
                "failed with exit code 1; last 1 log lines:; > no",
            ),
            (Stage::Building, End::TimedOut, "", "longer than"),
        ] {
            let error = judged(stage, end, said, WELL);
            assert!(error.is_terminal(), "{said}");
            assert!(error.chain().contains(told), "{}", error.chain());
        }
    }

    #[test]
    fn what_the_machine_did_is_tried_again() {
        let full = Machine {
            is_full: true,
            ..WELL
        };
        let shut = Machine {
            is_open: false,
            ..WELL
        };
        for (end, machine, told) in [
            (End::Exit(1), full, "make room"),
            (End::TimedOut, full, "make room"),
            (End::Exit(1), shut, "cannot be used"),
            (End::Signal(9), WELL, "signal 9"),
        ] {
            for stage in [Stage::Evaluating, Stage::Building] {
                let error = judged(stage, end, "error: x", machine);
                assert!(!error.is_terminal(), "{}", error.chain());
                assert!(error.chain().contains(told), "{}", error.chain());
            }
        }
    }

    #[test]
    fn a_daemon_that_went_away_is_known_by_what_nix_says_of_it() {
        let lost = |end, said: &str| {
            lost_daemon(&Evaluated {
                end,
                stdout: Vec::new(),
                stderr: said.as_bytes().to_vec(),
            })
        };
        for said in [
            "building '/nix/store/y.drv'...\nerror: unexpected end-of-file\n",
            "error: Nix daemon disconnected unexpectedly (maybe it crashed?)",
            "error:\n       … while building\n       error: writing to file: Broken pipe",
            "error: cannot open connection to remote store 'daemon': error: cannot connect to socket at '/x'",
        ] {
            assert!(lost(End::Exit(1), said), "{said}");
            assert!(!lost(End::Exit(0), said) && !lost(End::Signal(9), said), "{said}");
        }
        for said in [
            "error: syntax error, unexpected '}'",
            "cat: Broken pipe\nerror: builder for '/nix/store/y.drv' failed with exit code 1",
        ] {
            assert!(!lost(End::Exit(1), said), "{said}");
        }
    }

    #[test]
    fn a_text_alone_makes_nobody_try_again() {
        for said in [
            "error: No space left on device",
            "error: cannot connect to socket",
        ] {
            assert!(judged(Stage::Evaluating, End::Exit(1), said, WELL).is_terminal());
        }
    }

    #[test]
    fn a_long_message_keeps_beginning_and_end_and_is_safe_to_show() {
        let said = format!("error: first\x1b[2J {} last", "é".repeat(100_000));
        let told = message(&said, None);
        assert!(told.len() < MAX_MESSAGE + 10, "{}", told.len());
        assert!(told.starts_with("first\u{fffd}") && told.ends_with(" last"));
        assert_eq!(message("", None), "it says nothing");
    }
}
