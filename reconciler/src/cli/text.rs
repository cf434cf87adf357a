//! Makes untrusted text harmless and visible.
//!
//! Titles, reasons, diffs and error messages may come from an agent. On a terminal they could hide, reorder or forge
//! what the operator reads before approving, so everything that is not plain visible text is shown by name.

use shared::{CommitOid, Digest};

use crate::untrusted::is_hazard;

/// One line of text with every hazard replaced by something visible.
///
/// Control characters become control pictures (`␛`), tabs four spaces, the rest its code point (`<U+202E>`).
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            '\u{0}'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
            '\u{7f}' => out.push('\u{2421}'),
            c if is_hazard(c) => out.push_str(&format!("<U+{:04X}>", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// At most `max` characters of `text`, with an ellipsis where something was left out.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => {
            let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
            short.push('…');
            short
        }
    }
}

/// The same JSON document with hazards written as `\u` escapes, so that it means the same and shows nothing false.
///
/// Below U+0020 JSON has no raw characters inside strings, and outside strings only line breaks.
pub(crate) fn escape_json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if c >= '\u{7f}' && is_hazard(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A digest or commit id in the length people compare, also at the end of a path; any other text as it is.
pub(crate) fn short_id(text: &str) -> String {
    if let Some((_, name)) = text.rsplit_once('/')
        && name.parse::<Digest>().is_ok()
    {
        return short_id(name);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        let encoding = text.len() - digest.hex().len();
        return format!("{}{}", &text[..encoding], digest.short());
    }
    match text.parse::<CommitOid>() {
        Ok(commit) => commit.short().to_owned(),
        Err(_) => text.to_owned(),
    }
}

/// `1 agent`, `2 agents`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// `word` as one word of a shell command.
pub(crate) fn shell_word(word: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(safe) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_escape_sequence_is_shown_instead_of_obeyed() {
        assert_eq!(clean("\x1b[2J\x1b]0;x\x07done"), "␛[2J␛]0;x␇done");
        assert_eq!(clean("\u{9b}31m"), "<U+009B>31m");
    }

    #[test]
    fn a_line_cannot_be_overwritten_or_split() {
        assert_eq!(clean("good\rbad\nnew\u{2028}x"), "good␍bad␊new<U+2028>x");
    }

    #[test]
    fn text_that_reorders_or_hides_is_shown_by_code_point() {
        assert_eq!(
            clean("a\u{202e}b\u{200b}c\u{e0041}d"),
            "a<U+202E>b<U+200B>c<U+E0041>d"
        );
    }

    #[test]
    fn ordinary_text_of_any_script_is_left_alone() {
        let text = "naïve – 日本語 ✓ المثال 🙂";
        assert_eq!(clean(text), text);
    }

    #[test]
    fn escaped_json_is_the_same_document_without_hazards() {
        let value = serde_json::json!({ "a": "x\u{202e}y\u{9b}z\u{e0041}\n", "é": 1 });
        let text = escape_json(&serde_json::to_string_pretty(&value).expect("json"));
        assert!(!text.chars().any(|c| c != '\n' && is_hazard(c)), "{text:?}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).expect("json"),
            value
        );
    }

    #[test]
    fn a_shell_word_survives_the_shell() {
        assert_eq!(shell_word("/run/x.sock"), "/run/x.sock");
        assert_eq!(shell_word("a b'c"), r"'a b'\''c'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn only_identities_are_cut_short() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(short_id(&format!("config1-{hex}")), "config1-0123456789ab");
        assert_eq!(
            short_id(&format!("/var/lib/x/systems/system1-{hex}")),
            "system1-0123456789ab"
        );
        assert_eq!(short_id(&hex[..40]), "0123456789");
        assert_eq!(short_id("/nix/store/abc-system"), "/nix/store/abc-system");
    }

    #[test]
    fn shortening_counts_characters_not_bytes() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }

    proptest! {
        #[test]
        fn nothing_hazardous_is_left(text in any::<String>()) {
            prop_assert!(!clean(&text).chars().any(is_hazard));
        }
    }
}
