//! Which file names a commit may hold.
//!
//! The tree of a proposal is written to disk, shown to people and handed to evaluators. A name must mean the same
//! to all of them, on every file system, and must not be mistaken for git's own folder.

use unicode_normalization::UnicodeNormalization as _;

use crate::untrusted::is_hazard;

/// The longest name of a file or folder on Linux, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Checks the name of one tree entry.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check(name: &[u8]) -> Result<&str, &'static str> {
    if name.len() > MAX_NAME_BYTES {
        return Err("is longer than 255 bytes");
    }
    let name = std::str::from_utf8(name).map_err(|_| "is not UTF-8")?;
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err("is not a plain file name");
    }
    if name.chars().any(is_hazard) {
        return Err("has control or invisible characters");
    }
    if is_git_folder(name) {
        return Err("stands for git's own folder");
    }
    Ok(name)
}

/// What two names have in common when some file system takes one for the other: case and Unicode form.
pub fn folded(name: &str) -> String {
    name.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Whether some file system opens `.git` under this name: by case (HFS, NTFS), by a short name, by trailing dots and
/// spaces, by a stream (NTFS). Invisible characters, which HFS ignores, are refused before.
fn is_git_folder(name: &str) -> bool {
    let stem = name.split(['\\', ':']).next().unwrap_or_default();
    let stem = folded(stem.trim_end_matches(['.', ' ']));
    let short_name = stem
        .strip_prefix("git~")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    stem == ".git" || short_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for good in [
            "agent.json",
            "agent.nix",
            ".gitignore",
            ".gitattributes",
            "größe.txt",
            "a b",
            "...",
            "git",
            "git~",
            "git~x",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(good));
        }
    }

    #[test]
    fn names_that_some_file_system_takes_for_the_git_folder_are_refused() {
        for bad in [
            ".git",
            ".GIT",
            ".Git",
            ".git ",
            ".git.",
            ".git. .",
            "git~1",
            "GIT~2",
            ".git::$INDEX_ALLOCATION",
            ".git\\hooks",
            ".g\u{200c}it",
            ".gi\u{130}t\u{feff}",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names_that_mislead_or_escape_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\nb",
            "a\x1b[2J",
            "a\u{202e}b",
            "a\u{3164}b",
            &"x".repeat(256),
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?} was accepted");
        }
        assert!(
            check(b"\xff\xfe").is_err(),
            "bytes that are not UTF-8 were accepted"
        );
    }

    #[test]
    fn names_that_differ_in_case_or_unicode_form_alone_fold_to_the_same() {
        assert_eq!(folded("README"), folded("readme"));
        assert_eq!(folded("\u{e9}"), folded("E\u{301}"));
        assert_ne!(folded("a"), folded("b"));
    }
}
