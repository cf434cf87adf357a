//! The lines of a log, made safe to show.

use crate::host::Output;
use crate::untrusted;

/// How much of a log is looked at, from its end.
pub(super) const MAX_BYTES: u64 = 128 * 1024;
/// The longest line, in characters.
const MAX_LINE: usize = 2_000;
/// What stands for what looks like a key.
const MASK: &str = "(masked)";
/// How keys and tokens of well-known kinds begin.
const KEYS: &[&str] = &[
    "sk-",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "AIza",
    "eyJ",
];
/// Nothing shorter is a key.
const SHORTEST_KEY: usize = 16;

/// The last lines, oldest first, and whether there is more before them.
pub(super) fn tail(output: &Output, lines: usize) -> (Vec<String>, bool) {
    let text = String::from_utf8_lossy(&output.end);
    // Of the first line only the end may be there.
    let whole = if output.cut {
        text.split_once('\n').map_or("", |(_, rest)| rest)
    } else {
        &text
    };
    let all = whole.lines().count();
    let shown = whole.lines().skip(all.saturating_sub(lines));
    let shown = shown.map(|line| masked(&untrusted::line(line, MAX_LINE)));
    (shown.collect(), output.cut || all > lines)
}

/// One line, made safe to show.
pub(super) fn line(printed: &[u8]) -> String {
    masked(&untrusted::line(&String::from_utf8_lossy(printed), MAX_LINE))
}

/// A line without what looks like a key, and without what follows `Bearer`. A net below: nothing is to log keys.
fn masked(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '~');
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    let mut after_bearer = false;
    while !rest.is_empty() {
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, more) = rest.split_at(length);
        let is_key = word.len() >= SHORTEST_KEY && KEYS.iter().any(|begin| word.starts_with(begin));
        shown.push_str(if is_key || (after_bearer && !word.is_empty()) {
            MASK
        } else {
            word
        });
        if !word.is_empty() {
            after_bearer = word.eq_ignore_ascii_case("bearer");
        }
        let between = more.find(is_part).unwrap_or(more.len());
        let (gap, next) = more.split_at(between);
        shown.push_str(gap);
        rest = next;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str, cut: bool) -> Output {
        Output {
            end: text.as_bytes().to_vec(),
            cut,
        }
    }

    #[test]
    fn the_last_lines_are_shown_and_half_a_line_is_not() {
        assert_eq!(
            tail(&output("a\nb\nc\n", false), 9),
            (vec!["a".into(), "b".into(), "c".into()], false)
        );
        assert_eq!(
            tail(&output("a\nb\nc\n", false), 2),
            (vec!["b".into(), "c".into()], true)
        );
        assert_eq!(tail(&output("half\nb\n", true), 9), (vec!["b".into()], true));
        assert_eq!(tail(&output("no end of line", true), 9), (Vec::new(), true));
        assert_eq!(tail(&output("", false), 9), (Vec::new(), false));
    }

    #[test]
    fn nothing_in_a_line_acts_on_a_terminal_and_a_long_one_is_cut() {
        let (lines, _) = tail(
            &Output {
                end: b"\x1b[2Jred \xff\n".to_vec(),
                cut: false,
            },
            9,
        );
        assert_eq!(lines, ["\u{fffd}[2Jred \u{fffd}"]);
        let (lines, _) = tail(&output(&"x".repeat(9_000), false), 9);
        assert_eq!(lines[0].chars().count(), MAX_LINE + 1);
    }

    #[test]
    fn what_looks_like_a_key_is_masked_and_other_words_are_not() {
        for (line, shown) in [
            ("key=sk-ant-api03-abcdefghij end", "key=(masked) end"),
            ("authorization: Bearer abc.def", "authorization: Bearer (masked)"),
            ("\"ghp_0123456789abcdef\",", "\"(masked)\","),
            ("sk-short, a bearer", "sk-short, a bearer"),
            (
                "turn 6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f",
                "turn 6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f",
            ),
        ] {
            assert_eq!(masked(line), shown);
        }
    }
}
