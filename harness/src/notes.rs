//! The agent's notes: how large they are, and when that is too large. What is in them is the agent's own affair.

use std::path::PathBuf;

use camino::Utf8PathBuf;

/// Where an agent keeps what it wants to remember, below its state folder.
pub const FOLDER: &str = "notes";
/// The most files and folders that are looked at.
const MOST: usize = 10_000;
/// From here on an agent is asked to tidy its notes up, in bytes: more than it can read when it is unsure.
pub const BLOATED: u64 = 256 * 1024;

/// Whether to ask an agent to tidy its notes up. Whoever was asked and keeps them all the same is asked again when they have
/// grown by a quarter. `asked` is how large they were when it was asked last, 0 for never; the same is given back for
/// the next time.
pub fn to_tidy(asked: u64, size: u64) -> (bool, u64) {
    if size <= BLOATED {
        (false, 0)
    } else if asked == 0 || size > asked.saturating_add(asked / 4) {
        (true, size)
    } else {
        (false, asked)
    }
}

/// How large an agent's notes are, in bytes; nothing when that cannot be found out. Links are not followed.
pub async fn size(state: Utf8PathBuf) -> Option<u64> {
    let looking = tokio::task::spawn_blocking(move || look(state.join(FOLDER).into()));
    match looking.await {
        Ok(Ok(size)) => Some(size),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the notes cannot be looked at");
            None
        }
        Err(_) => None,
    }
}

fn look(notes: PathBuf) -> std::io::Result<u64> {
    let (mut folders, mut size, mut seen) = (vec![notes], 0_u64, 0);
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            // There are none, or they have just gone.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            seen += 1;
            if seen > MOST {
                return Ok(size);
            }
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                size = size.saturating_add(metadata.len());
            }
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_asked_when_its_notes_grow_and_not_again_and_again() {
        let (mut asked, mut times) = (0, Vec::new());
        let kib = [10, 256, 257, 300, 257, 322, 400, 200, 260];
        for size in kib {
            let (ask, next) = to_tidy(asked, size * 1024);
            asked = next;
            times.extend(ask.then_some(size));
        }
        assert_eq!(times, [257, 322, 260]);
    }

    #[tokio::test]
    async fn files_in_all_folders_count_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let state = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8 path");
        assert_eq!(size(state.clone()).await, Some(0), "no notes are no bytes");
        let notes = state.join(FOLDER);
        std::fs::create_dir_all(notes.join("people")).expect("folders");
        #[expect(clippy::disallowed_methods, reason = "notes of a test")]
        for (file, text) in [("notes.md", "12345"), ("people/bob.md", "123")] {
            std::fs::write(notes.join(file), text).expect("written");
        }
        for target in ["/etc/passwd", "/", ".."] {
            let name = format!("link{}", target.len());
            std::os::unix::fs::symlink(target, notes.join(name)).expect("a link");
        }
        assert_eq!(size(state.clone()).await, Some(8));
        std::fs::remove_dir_all(&notes).expect("removed");
        std::os::unix::fs::symlink("/nonexistent/loop", &notes).expect("a link");
        assert_eq!(size(state).await, Some(0));
    }
}
