//! The turn that runs, noted in a file for a harness that comes after one that was killed: two processes must never have
//! one conversation.

use camino::{Utf8Path, Utf8PathBuf};
use shared::TurnId;

use super::files;
use crate::leftovers;

/// The variable by which a process is known as one of a turn, however it was started.
pub(super) const TURN_MARK: &str = "HIVE_TURN";

/// The file, in the driver's own folder.
fn file(home: &Utf8Path) -> Utf8PathBuf {
    home.join("hive-running")
}

/// Notes the turn. Blocks.
///
/// # Errors
/// The operating system's.
pub(super) fn note(home: &Utf8Path, turn: TurnId) -> std::io::Result<()> {
    files::write(&file(home), turn.to_string().as_bytes())
}

/// The turn is over. Blocks.
pub(super) fn clear(home: &Utf8Path) {
    if let Err(error) = std::fs::remove_file(file(home)) {
        tracing::debug!(%error, "the mark of the running turn is not there");
    }
}

/// Ends a turn that an earlier run of the harness did not live to end. Blocks.
pub(super) fn end_stray(home: &Utf8Path) {
    let file = file(home);
    let Ok(text) = std::fs::read_to_string(&file) else {
        return;
    };
    // Whoever wrote the file: only an id of a turn is looked for.
    if let Ok(turn) = text.trim().parse::<TurnId>() {
        sweep(turn);
    }
    if let Err(error) = std::fs::remove_file(&file) {
        tracing::warn!(%file, %error, "not removed");
    }
}

/// Ends every process of the turn. Blocks.
pub(super) fn sweep(turn: TurnId) {
    let turn = turn.to_string();
    match leftovers::kill_marked(TURN_MARK, &turn) {
        Ok(0) => {}
        Ok(count) => tracing::info!(turn, count, "what the turn left behind is ended"),
        Err(error) => tracing::warn!(turn, %error, "what the turn left behind cannot be looked for"),
    }
}
