//! `docs/mutants.md`, generated from the list. Pure.

use std::fmt::Write as _;

use super::list::{LIST, List, Mutant};

/// Where the page lies.
pub(crate) const PAGE: &str = "docs/mutants.md";

const INTRODUCTION: &str = "\
A mutant is a fault that is planted on purpose, to see that a test finds it. Each thing that must never happen has at
least one: `cargo xtask mutants` plants them, wakes them one at a time, and fails unless every test named beside a mutant
fails. A mutant that survives is a hole in the tests: write the test, never take the mutant away.

All mutants are planted in one copy of the tree, each behind a switch, so all of them cost one build
([why](decisions/0018-all-mutants-in-one-build.md)). `cargo xtask mutants NAME…` wakes only these.
";

/// The page.
pub(crate) fn render(list: &List) -> String {
    let mut page = format!(
        "# Planted mutants\n\n<!-- Generated from {LIST}: edit that, then run `cargo xtask mutants --page`. -->\n\n\
         {INTRODUCTION}"
    );
    for invariant in &list.invariant {
        // Writing to a String cannot fail.
        let _infallible = write!(page, "\n## Never: {}\n\n", invariant.never);
        page.push_str("| Mutant | In | What is planted | Killed by |\n| --- | --- | --- | --- |\n");
        for mutant in &invariant.mutant {
            page.push_str(&row(mutant));
        }
    }
    page
}

fn row(mutant: &Mutant) -> String {
    let Mutant {
        name,
        file,
        code,
        becomes,
        hangs,
        ..
    } = mutant;
    let part = code.split_once('«').map_or(code.as_str(), |(_, rest)| rest);
    let part = part.split_once('»').map_or(part, |(part, _)| part);
    let planted = if becomes.is_empty() {
        format!("without {}", quoted(part))
    } else {
        format!("{} for {}", quoted(becomes), quoted(part))
    };
    let tests: Vec<String> = mutant.kills().map(|kill| format!("`{}`", kill.test)).collect();
    let hangs = if *hangs { " (which then hangs)" } else { "" };
    format!(
        "| `{name}` | `{file}` | {planted} | {}{hangs} |\n",
        tests.join(", ")
    )
}

/// Code in a cell of a table: on one line, short, and without what would end the cell.
fn quoted(code: &str) -> String {
    const LONGEST: usize = 100;
    let line = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(LONGEST).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    let short = short.replace('|', "\\|");
    if short.contains('`') {
        format!("`` {short} ``")
    } else {
        format!("`{short}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_planted_and_what_kills_it() {
        let mutant = Mutant {
            name: "odd".to_owned(),
            file: "f.rs".to_owned(),
            code: "if «a\n    || b» {".to_owned(),
            becomes: "a".to_owned(),
            killed_by: vec!["reconciler gate::one".to_owned(), "reconciler/sim two".to_owned()],
            hangs: false,
        };
        assert_eq!(
            row(&mutant),
            "| `odd` | `f.rs` | `a` for `a \\|\\| b` | `gate::one`, `two` |\n"
        );
        let left_out = Mutant {
            becomes: String::new(),
            hangs: true,
            ..mutant
        };
        assert_eq!(
            row(&left_out),
            "| `odd` | `f.rs` | without `a \\|\\| b` | `gate::one`, `two` (which then hangs) |\n"
        );
    }

    #[test]
    fn long_code_is_cut_at_a_whole_character() {
        assert_eq!(quoted(&"ä".repeat(200)), format!("`{}…`", "ä".repeat(100)));
    }
}
