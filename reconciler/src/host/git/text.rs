//! Making text that an agent wrote safe to show.

/// What stands for a character that is not shown.
const REPLACEMENT: char = '\u{fffd}';

/// The longest title, in characters.
const MAX_TITLE_CHARS: usize = 200;

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 8 * 1024;

/// Whether a character is invisible, or changes the order in which its neighbours are shown.
pub(super) fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Replaces control and invisible characters, except line feeds and tabs.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() || is_hidden(c) => REPLACEMENT,
            c => c,
        })
        .collect()
}

/// Cuts a text to at most `max` bytes, between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

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
    fn escapes_and_direction_changes_are_replaced() {
        assert_eq!(
            clean("a\x1b[2J\tb\r\n\u{202e}c\u{2066}\u{7f}"),
            "a\u{fffd}[2J\tb\u{fffd}\n\u{fffd}c\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 9), "aé");
    }

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
