//! Rules of Rust files: their length, ignored tests, tests that sleep.

use camino::Utf8Path;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::{Finding, Tree};

/// From here on a file is worth a look.
const LONG_LINES: usize = 500;
/// From here on it must be split, or listed below.
const MAX_LINES: usize = 600;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[
    (
        "reconciler/src/spec/tests.rs",
        "a table of faults and their messages",
    ),
    (
        "shared/src/spec.rs",
        "the spec is one document, read from top to bottom",
    ),
];

/// Test code that may sleep, and why.
const SLEEPERS: &[(&str, &str)] = &[
    ("checks/xtask/src/poll.rs", "polls, with a deadline"),
    (
        "checks/testbed/src/wait.rs",
        "polls, with a deadline: units and machines change on their own",
    ),
    (
        "reconciler/tests/process/world.rs",
        "polls, with a deadline: processes write files and die without telling",
    ),
];

/// Files that hold a test which another test runs by name, in a process of its own, and who that is.
const RUN_BY_OTHERS: &[(&str, &str)] = &[(
    "reconciler/tests/process/survival.rs",
    "the daemon that an_agent_survives_the_death_of_the_daemon_that_started_it kills",
)];

/// Checks every Rust file.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        findings.extend(length(path, text));
        match text.parse::<TokenStream>() {
            Ok(tokens) => {
                let mut scan = Scan {
                    path,
                    sleeps_allowed: listed(SLEEPERS, path),
                    findings: Vec::new(),
                };
                scan.tokens(tokens, is_test_file(path));
                findings.append(&mut scan.findings);
            }
            Err(error) => {
                let line = error.span().start().line;
                findings.push(Finding::violation(
                    format!("{path}:{line}"),
                    format!("not Rust: {error}"),
                ));
            }
        }
    }
    findings
}

fn listed(list: &[(&str, &str)], path: &Utf8Path) -> bool {
    list.iter().any(|(listed, _)| path == *listed)
}

fn length(path: &Utf8Path, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    if lines > MAX_LINES && !listed(LONG_FILES, path) {
        let advice =
            "split it, or list it with a reason in LONG_FILES in checks/xtask/src/tree/rust_source.rs";
        return Some(Finding::violation(
            format!("{path}:{MAX_LINES}"),
            format!("{lines} lines, more than {MAX_LINES}: {advice}"),
        ));
    }
    (lines > LONG_LINES).then(|| Finding::note(path.as_str(), format!("{lines} lines: is it one thing?")))
}

/// Whether a whole file is test code. The demo's story is: it waits on a daemon just like a test.
fn is_test_file(path: &Utf8Path) -> bool {
    let story = path == "checks/xtask/src/demo.rs" || path.starts_with("checks/xtask/src/demo");
    let scenario = path.starts_with("checks/testbed");
    story || scenario || path.iter().any(|part| part == "tests" || part == "tests.rs")
}

struct Scan<'a> {
    path: &'a Utf8Path,
    sleeps_allowed: bool,
    findings: Vec<Finding>,
}

impl Scan<'_> {
    fn tokens(&mut self, tokens: TokenStream, in_test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        // Set by `#[cfg(test)]` or `#[test]`, until the item that it stands on ends.
        let mut marked = false;
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) if is_attribute(&tokens, index) => {
                    marked |= marks_test(group);
                    self.ignored(group);
                }
                TokenTree::Group(group) => {
                    self.tokens(group.stream(), in_test || marked);
                    if group.delimiter() == Delimiter::Brace {
                        marked = false;
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => marked = false,
                TokenTree::Ident(ident) if (in_test || marked) && sleeps(&tokens, index) => {
                    self.sleep(ident.span().start().line);
                }
                _ => {}
            }
        }
    }

    fn ignored(&mut self, attribute: &Group) {
        if listed(RUN_BY_OTHERS, self.path) {
            return;
        }
        if let Some(line) = ident_line(attribute.stream(), "ignore") {
            self.findings.push(Finding::violation(
                format!("{}:{line}", self.path),
                "an ignored test proves nothing: repair it, or delete it and open an issue; one that another test \
                 runs by name is listed in RUN_BY_OTHERS in checks/xtask/src/tree/rust_source.rs",
            ));
        }
    }

    fn sleep(&mut self, line: usize) {
        if !self.sleeps_allowed {
            self.findings.push(Finding::violation(
                format!("{}:{line}", self.path),
                "tests never sleep: wait on a condition with a deadline, or advance a paused clock; the file that \
                 polls for others is listed in SLEEPERS in checks/xtask/src/tree/rust_source.rs",
            ));
        }
    }
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_ident(token: Option<&TokenTree>, wanted: &[&str]) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if wanted.iter().any(|word| ident == word))
}

/// Whether the group at `index` is the bracket of `#[…]` or `#![…]`.
fn is_attribute(tokens: &[TokenTree], index: usize) -> bool {
    let bracket =
        matches!(&tokens[index], TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket);
    let before = |back: usize| index.checked_sub(back).and_then(|at| tokens.get(at));
    bracket && (is_punct(before(1), '#') || (is_punct(before(1), '!') && is_punct(before(2), '#')))
}

/// Whether an attribute makes what follows test code: `cfg(test)`, `test`, `tokio::test`.
fn marks_test(attribute: &Group) -> bool {
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    if is_ident(tokens.first(), &["cfg"]) {
        return ident_line(attribute.stream(), "test").is_some()
            && ident_line(attribute.stream(), "not").is_none();
    }
    let path = tokens
        .iter()
        .take_while(|token| matches!(token, TokenTree::Ident(_)) || is_punct(Some(token), ':'));
    is_ident(path.last(), &["test"])
}

/// Whether the identifier at `index` calls or names a function that sleeps.
fn sleeps(tokens: &[TokenTree], index: usize) -> bool {
    if !is_ident(tokens.get(index), &["sleep", "sleep_until", "sleep_ms"]) {
        return false;
    }
    let before = |back: usize| index.checked_sub(back).and_then(|at| tokens.get(at));
    let of_path = is_punct(before(1), ':') && is_ident(before(3), &["thread", "time"]);
    let called = matches!(
        tokens.get(index + 1),
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis
    );
    // `fn sleep(…)` declares one and `x.sleep(…)` is a method of something else.
    of_path
        || (called && !is_punct(before(1), '.') && !is_punct(before(1), ':') && !is_ident(before(1), &["fn"]))
}

/// The line of the first such identifier, at any depth.
fn ident_line(tokens: TokenStream, wanted: &str) -> Option<usize> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == wanted => Some(ident.span().start().line),
        TokenTree::Group(group) => ident_line(group.stream(), wanted),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, places};
    use super::*;

    fn places_in(path: &str, text: &str) -> Vec<String> {
        places(&check(&Tree::planted(&[(path, text)])))
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn ignored_tests_are_found_whatever_their_form() {
        let text = "#[test]\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\nfn b() {}\n\
                    #[cfg_attr(unix, ignore)]\nfn c() {}\n";
        assert_eq!(
            places_in("shared/src/a.rs", text),
            ["shared/src/a.rs:2", "shared/src/a.rs:4", "shared/src/a.rs:6"]
        );
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        let text = "// #[ignore]\n/* thread::sleep(x) */\n#[cfg(test)]\nmod tests {\n    const A: &str = r#\"\
                    #[ignore] std::thread::sleep(x)\"#;\n}\n";
        assert_eq!(places_in("shared/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn sleeping_is_found_in_test_modules_and_test_functions_only() {
        let text = "fn product() { std::thread::sleep(D); }\n\
                    #[cfg(not(test))]\nmod real { fn a() { tokio::time::sleep(D); } }\n\
                    #[cfg(test)]\nmod tests {\n    fn a() {\n        tokio::time::sleep(D);\n    }\n}\n\
                    fn product_too() { thread::sleep(D); }\n\
                    #[tokio::test(start_paused = true)]\nasync fn b() {\n    time::sleep_until(x);\n}\n";
        assert_eq!(
            places_in("shared/src/a.rs", text),
            ["shared/src/a.rs:7", "shared/src/a.rs:13"]
        );
    }

    #[test]
    fn whole_test_files_may_not_sleep_even_through_an_import() {
        let text = "use std::thread::sleep;\nfn a() {\n    sleep(D);\n}\n";
        let path = "harness/tests/loop/main.rs";
        assert_eq!(places_in(path, text), [format!("{path}:1"), format!("{path}:3")]);
        let path = "harness/src/turn/tests.rs";
        assert_eq!(places_in(path, text).len(), 2);
        assert_eq!(places_in("harness/src/turn.rs", text), [""; 0]);
    }

    #[test]
    fn other_things_called_sleep_are_fine() {
        let text =
            "#[cfg(test)]\nmod tests { fn sleep(x: u8) {} fn a() { clock.sleep(1); let sleep = 1; } }\n";
        assert_eq!(places_in("shared/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn the_listed_poller_may_sleep() {
        let (path, _) = SLEEPERS[0];
        assert_eq!(places_in(path, "fn a() { thread::sleep(D); }"), [""; 0]);
        assert_eq!(
            places_in("checks/xtask/src/demo.rs", "fn a() { thread::sleep(D); }").len(),
            1
        );
    }

    #[test]
    fn files_are_noted_from_500_lines_and_refused_from_600() {
        let lines = |count| "\n".repeat(count);
        let of = |count| check(&Tree::planted(&[("shared/src/a.rs", &lines(count))]));
        assert_eq!(of(500), []);
        assert_eq!(of(501)[0].severity, Severity::Note);
        assert_eq!(of(600)[0].severity, Severity::Note);
        assert_eq!(places(&of(601)), ["shared/src/a.rs:600"]);
    }

    #[test]
    fn a_file_that_is_not_rust_is_reported_with_its_line() {
        assert_eq!(
            places_in("shared/src/a.rs", "fn a() {}\n\n)"),
            ["shared/src/a.rs:3"]
        );
    }
}
