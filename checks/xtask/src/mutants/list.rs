//! The list of planted mutants, `checks/mutants.toml`, and what it must say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::plant::{self, Planting};

/// Where the list lies.
pub(crate) const LIST: &str = "checks/mutants.toml";
/// The page whose table of invariants must be covered.
pub(crate) const ARCHITECTURE: &str = "docs/architecture.md";
/// The checks of plans; each kind of violation must be covered.
pub(crate) const INVARIANTS: &str = "reconciler/src/invariants.rs";

/// The whole list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// In the order of the page.
    pub(crate) invariant: Vec<Invariant>,
}

/// Something that must always hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invariant {
    /// What must never happen, in the words of `docs/architecture.md` where that names it.
    pub(crate) never: String,
    /// Faults that would make it happen.
    pub(crate) mutant: Vec<Mutant>,
}

/// One planted fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// What it is called on the command line: lower case words joined by `-`.
    pub(crate) name: String,
    /// The file it is planted in.
    pub(crate) file: String,
    /// Text that occurs exactly once in the file. The part between `«` and `»`, or else all of it, is replaced; that
    /// part is an expression or whole statements.
    pub(crate) code: String,
    /// What takes its place; nothing where statements are left out.
    #[serde(default)]
    pub(crate) becomes: String,
    /// The tests that must fail, each written `SUITE TEST`. A suite is a crate (its unit tests) or `CRATE/TEST`.
    pub(crate) killed_by: Vec<String>,
    /// It makes a test run without end, and the watchdog's end of it counts.
    #[serde(default)]
    pub(crate) hangs: bool,
}

/// One test that must fail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kill<'a> {
    /// A crate, or `CRATE/TEST`.
    pub(crate) suite: &'a str,
    /// The full name of the test.
    pub(crate) test: &'a str,
}

impl Mutant {
    /// The tests that must fail.
    pub(crate) fn kills(&self) -> impl Iterator<Item = Kill<'_>> {
        self.killed_by.iter().map(|line| {
            let (suite, test) = line.split_once(' ').unwrap_or((line, ""));
            Kill { suite, test }
        })
    }
}

impl List {
    /// Reads the list.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        toml::from_str(text).with_context(|| format!("reading {LIST}"))
    }

    /// All mutants, in order.
    pub(crate) fn mutants(&self) -> impl Iterator<Item = &Mutant> {
        self.invariant.iter().flat_map(|invariant| &invariant.mutant)
    }

    /// The mutants of each file.
    pub(crate) fn by_file(&self) -> BTreeMap<&str, Vec<&Mutant>> {
        let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
        for mutant in self.mutants() {
            files.entry(&mutant.file).or_default().push(mutant);
        }
        files
    }

    /// Every file that has mutants, with all of them planted; or what is wrong with the list.
    pub(crate) fn plant(
        &self,
        text_of: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<&str, String>, Vec<String>> {
        let mut planted = BTreeMap::new();
        let mut faults = Vec::new();
        for (file, mutants) in self.by_file() {
            let Some(text) = text_of(file) else {
                faults.push(format!("{}: there is no {file}", mutants[0].name));
                continue;
            };
            let plantings: Vec<Planting<'_>> = mutants.iter().map(|mutant| Planting::from(*mutant)).collect();
            match plant::plant(&text, &plantings) {
                Ok(text) => {
                    planted.insert(file, text);
                }
                Err(wrong) => faults.extend(wrong.into_iter().map(|wrong| format!("{file}: {wrong}"))),
            }
        }
        if faults.is_empty() {
            Ok(planted)
        } else {
            Err(faults)
        }
    }

    /// What is wrong with the list: names, stale code, invariants of the tree that it leaves out.
    pub(crate) fn faults(&self, text_of: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let mut faults = Vec::new();
        let mut names = BTreeSet::new();
        for mutant in self.mutants() {
            let name = &mutant.name;
            if !names.insert(name) {
                faults.push(format!("{name}: two mutants have this name"));
            }
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
                faults.push(format!("{name}: a name is lower case words joined by -"));
            }
            if mutant.killed_by.is_empty() || mutant.kills().any(|kill| kill.test.is_empty()) {
                faults.push(format!("{name}: killed_by names tests, each as `SUITE TEST`"));
            }
        }
        let named: BTreeSet<&str> = self
            .invariant
            .iter()
            .filter(|i| !i.mutant.is_empty())
            .map(|i| i.never.as_str())
            .collect();
        let architecture = text_of(ARCHITECTURE).unwrap_or_default();
        for never in never_rows(&architecture) {
            if !named.contains(never) {
                faults.push(format!(
                    "no mutant breaks `{never}`, which {ARCHITECTURE} says never happens"
                ));
            }
        }
        for kind in violations(&text_of(INVARIANTS).unwrap_or_default()) {
            let name = format!("unchecked{}", kebab(kind));
            if !names.contains(&name) {
                faults.push(format!(
                    "no mutant {name}: {INVARIANTS} finds violations of the kind {kind}"
                ));
            }
        }
        faults.extend(self.plant(text_of).err().unwrap_or_default());
        faults
    }
}

/// The first column of the table below `What must never happen`.
fn never_rows(page: &str) -> Vec<&str> {
    page.lines()
        .skip_while(|line| *line != "## What must never happen")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|cell| *cell != "Never" && !cell.starts_with("---"))
        .collect()
}

/// The variants of `enum Violation`.
fn violations(source: &str) -> Vec<&str> {
    source
        .lines()
        .skip_while(|line| !line.starts_with("pub enum Violation"))
        .skip(1)
        .take_while(|line| *line != "}")
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.trim_end_matches([',', ' ', '{']))
        .collect()
}

/// `TwoWords` as `-two-words`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "fn f() -> bool { a() && b() }\n";
    const PAGE: &str =
        "## What must never happen\n\n| Never | Kept by |\n| --- | --- |\n| harm | f |\n\n## More\n| x |\n";
    const KINDS: &str = "pub enum Violation {\n    /// Two.\n    TwoThings {\n        kind: u8,\n    },\n}\n";
    const GOOD: &str = r#"
        [[invariant]]
        never = "harm"
        [[invariant.mutant]]
        name = "unchecked-two-things"
        file = "f.rs"
        code = "«a()» && b()"
        becomes = "true"
        killed_by = ["reconciler f::it_is_a"]
    "#;

    fn faults(list: &str) -> Vec<String> {
        List::parse(list).expect("it is TOML").faults(|path| match path {
            "f.rs" => Some(SOURCE.to_owned()),
            ARCHITECTURE => Some(PAGE.to_owned()),
            INVARIANTS => Some(KINDS.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn a_list_that_covers_the_tree_is_fine() {
        assert_eq!(faults(GOOD), [""; 0]);
    }

    #[test]
    fn an_invariant_without_a_mutant_is_named() {
        let found = faults(&GOOD.replace("\"harm\"", "\"other\""));
        assert!(matches!(&found[..], [one] if one.contains("`harm`")), "{found:?}");
    }

    #[test]
    fn a_kind_of_violation_without_a_mutant_is_named() {
        let found = faults(&GOOD.replace("unchecked-two-things", "other"));
        assert!(
            matches!(&found[..], [one] if one.contains("TwoThings")),
            "{found:?}"
        );
    }

    #[test]
    fn code_that_is_not_there_any_more_is_stale() {
        let found = faults(&GOOD.replace("&& b()", "&& c()"));
        assert!(
            matches!(&found[..], [one] if one.contains("unchecked-two-things") && one.contains("stale")),
            "{found:?}"
        );
    }

    #[test]
    fn a_missing_file_a_bad_name_and_a_test_without_its_suite_are_faults() {
        assert!(faults(&GOOD.replace("\"f.rs\"", "\"g.rs\""))[0].contains("there is no g.rs"));
        assert!(faults(&GOOD.replace("unchecked-two-things", "Un checked"))[0].contains("lower case"));
        assert!(faults(&GOOD.replace("reconciler f::", "f::"))[0].contains("SUITE TEST"));
        assert!(List::parse(&GOOD.replace("becomes", "become")).is_err());
    }
}
