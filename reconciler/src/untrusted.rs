//! Making text that an agent wrote safe to store and to show.

/// What stands for a character that is not shown.
const REPLACEMENT: char = '\u{fffd}';

/// Whether a terminal or a browser may act on `c`, or draw nothing for it, or reorder its neighbours.
pub(crate) fn is_hazard(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Replaces hazards, except line feeds and tabs.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if is_hazard(c) => REPLACEMENT,
            c => c,
        })
        .collect()
}

/// Cuts a text to at most `max` bytes, between characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// One clean line of at most `max` characters, with an ellipsis where something was left out. Costs the same however
/// long the text is.
pub(crate) fn line(text: &str, max: usize) -> String {
    let mut chars = text.trim().chars();
    let mut line: String = chars
        .by_ref()
        .take(max)
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if is_hazard(c) => REPLACEMENT,
            c => c,
        })
        .collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
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
    fn letters_that_draw_nothing_are_hazards() {
        for c in ['\u{3164}', '\u{115f}', '\u{ffa0}', '\u{34f}', '\u{e0041}'] {
            assert_eq!(clean(&format!("a{c}b")), "a\u{fffd}b");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 9), "aé");
    }

    #[test]
    fn a_line_is_one_line_whatever_it_was() {
        assert_eq!(line("  a\nb\tc\x1b[2J ", 100), "a b c\u{fffd}[2J");
        assert_eq!(line("äöü", 2), "äö…");
        assert_eq!(line("äö", 2), "äö");
    }
}
