//! Differences between two commits, for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use gix::ObjectId;
use gix::objs::Kind;
use similar::TextDiff;
use similar::udiff::UnifiedHunkHeader;

use super::repo::Repo;
use super::tree::{self, File};
use crate::host::HostError;
use crate::untrusted::{clean, cut};

/// The largest file whose lines are compared.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// After this long, lines are compared coarsely: the result stays true and gets longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many unchanged lines are shown around a change.
const CONTEXT: usize = 3;
/// How many of the files that did not fit are named.
const MAX_NAMED: usize = 20;

/// A unified diff of at most `max` bytes. When it is cut, its last line says which files are missing from it.
pub(super) fn diff(repo: &Repo, from: ObjectId, to: ObjectId, max: usize) -> Result<String, HostError> {
    let old = tree::list(repo, from)?;
    let new = tree::list(repo, to)?;
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed: Vec<&String> = paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path))
        .collect();
    let deadline = Instant::now() + PATIENCE;

    let mut text = String::new();
    for (shown, path) in changed.iter().enumerate() {
        let whole = text.len();
        push_file(repo, &mut text, path, old.get(*path), new.get(*path), deadline)?;
        if text.len() > max {
            let note = cut_note(&changed[shown..], changed.len(), max);
            let room = max.saturating_sub(note.len());
            // A file that is shown in part ends at a whole line, if it has one.
            let kept = cut(&text, room);
            let kept = kept
                .rfind('\n')
                .map_or("", |end| &kept[..=end])
                .len()
                .max(whole.min(kept.len()));
            text.truncate(kept);
            text.push_str(&note);
            return Ok(cut(&text, max).to_owned());
        }
    }
    Ok(text)
}

fn cut_note(missing: &[&String], all: usize, max: usize) -> String {
    let named: Vec<String> = missing.iter().take(MAX_NAMED).map(|path| clean(path)).collect();
    let more = if missing.len() > MAX_NAMED { ", …" } else { "" };
    let note = format!(
        "[cut at {max} bytes: {} of {all} changed files are not shown in full: {}{more}]\n",
        missing.len(),
        named.join(", ")
    );
    // Names must not push out the diff itself.
    if note.len() <= max / 4 {
        return note;
    }
    format!(
        "[cut at {max} bytes: {} of {all} changed files are not shown in full]\n",
        missing.len()
    )
}

fn push_file(
    repo: &Repo,
    text: &mut String,
    path: &str,
    old: Option<&File>,
    new: Option<&File>,
    deadline: Instant,
) -> Result<(), HostError> {
    let mut head = format!("diff --git a/{path} b/{path}\n");
    let mode = |file: &File| if file.executable { "100755" } else { "100644" };
    let written = match (old, new) {
        (None, Some(new)) => writeln!(head, "new file mode {}", mode(new)),
        (Some(old), None) => writeln!(head, "deleted file mode {}", mode(old)),
        (Some(old), Some(new)) if old.executable != new.executable => {
            writeln!(head, "old mode {}\nnew mode {}", mode(old), mode(new))
        }
        _ => Ok(()),
    };
    written.map_err(|error| repo.failed(format!("cannot show {path:?}: {error}")))?;
    text.push_str(&clean(&head));
    if old.map(|file| file.id) == new.map(|file| file.id) {
        return Ok(());
    }

    let sizes = [old, new].map(|file| file.map_or(0, |file| file.size));
    let told = |what: &str| format!("{what} ({} bytes before, {} after)\n", sizes[0], sizes[1]);
    if sizes.iter().any(|size| *size > MAX_FILE_BYTES) {
        text.push_str(&told("File too large to be compared"));
        return Ok(());
    }
    let read = |file: Option<&File>| {
        file.map_or(Ok(Vec::new()), |file| {
            repo.read(file.id, Kind::Blob, MAX_FILE_BYTES)
        })
    };
    let (before, after) = (read(old)?, read(new)?);
    if before.contains(&0) || after.contains(&0) {
        text.push_str(&told("Binary files differ"));
        return Ok(());
    }
    let name =
        |side: &str, file: Option<&File>| file.map_or("/dev/null".to_owned(), |_| format!("{side}/{path}"));
    text.push_str(&clean(&format!(
        "--- {}\n+++ {}\n",
        name("a", old),
        name("b", new)
    )));
    push_hunks(text, &before, &after, deadline);
    Ok(())
}

/// Compares bytes and cleans afterwards: a change of what is not shown is still a change.
fn push_hunks(text: &mut String, before: &[u8], after: &[u8], deadline: Instant) {
    // Lines end at line feeds alone; a library that also ends them at carriage returns would let a line pass for two.
    let (before, after) = (lines(before), lines(after));
    let changes = TextDiff::configure()
        .deadline(deadline)
        .diff_slices(&before, &after);
    for hunk in changes.grouped_ops(CONTEXT) {
        text.push_str(&UnifiedHunkHeader::new(&hunk).to_string());
        text.push('\n');
        for change in hunk.iter().flat_map(|op| changes.iter_changes(op)) {
            let line = change.value();
            text.push_str(&change.tag().to_string());
            text.push_str(&clean(&String::from_utf8_lossy(line)));
            if !line.ends_with(b"\n") {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}
