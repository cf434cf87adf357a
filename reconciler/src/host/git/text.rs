//! What a commit's message says, in a form that is safe to show.

use crate::untrusted::{clean, cut};

/// The longest title, in characters.
const MAX_TITLE_CHARS: usize = 200;

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 8 * 1024;

/// Title and reason: the first line of a commit's message and the rest, cleaned and bounded.
pub(super) fn title_and_reason(message: &[u8]) -> (String, String) {
    // Cut first, so that cleaning costs the same whatever the message's size; four bytes hold any character.
    let bound = MAX_REASON_BYTES + 4 * MAX_TITLE_CHARS + 2;
    let message = String::from_utf8_lossy(&message[..message.len().min(bound)]).replace("\r\n", "\n");
    let message = message.trim_start_matches('\n');
    let (title, reason) = message.split_once('\n').unwrap_or((message, ""));
    let title: String = title.trim().chars().take(MAX_TITLE_CHARS).collect();
    let reason = clean(reason.trim());
    (
        clean(&title).replace('\t', " "),
        cut(&reason, MAX_REASON_BYTES).to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_title_and_the_rest_the_reason() {
        let (title, reason) = title_and_reason(b"Add a\twiki\x07\r\n\r\nBecause.\nIt helps.\n");
        assert_eq!(title, "Add a wiki\u{fffd}");
        assert_eq!(reason, "Because.\nIt helps.");
        assert_eq!(title_and_reason(b""), (String::new(), String::new()));
    }

    #[test]
    fn title_and_reason_are_bounded_whatever_the_message() {
        let (title, reason) = title_and_reason(&[0x1b; 1 << 20]);
        assert_eq!(title.chars().count(), 200);
        assert_eq!(reason, "");
        let (_, reason) = title_and_reason(format!("t\n{}", "\x1b".repeat(100_000)).as_bytes());
        assert!(reason.len() <= 8 * 1024, "{} bytes", reason.len());
        assert!(reason.len() > 8 * 1024 - 4, "{} bytes", reason.len());
    }
}
