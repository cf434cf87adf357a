//! The list of planted mutants fits the tree, and its page fits the list.

use super::{Finding, Tree};
use crate::mutants::list::{LIST, List};
use crate::mutants::page;

/// Checks the list without building anything.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(LIST) else {
        return vec![Finding::violation(LIST, "there is no list of planted mutants")];
    };
    let list = match List::parse(text) {
        Ok(list) => list,
        Err(error) => return vec![Finding::violation(LIST, format!("{error:#}"))],
    };
    let faults = list.faults(|path| tree.text(path).map(str::to_owned));
    let mut findings: Vec<Finding> = faults
        .into_iter()
        .chain(unknown_tests(tree, &list))
        .map(|fault| Finding::violation(LIST, fault))
        .collect();
    if tree.text(page::PAGE) != Some(page::render(&list).as_str()) {
        findings.push(Finding::violation(
            page::PAGE,
            "not what the list says: run `cargo xtask mutants --page`",
        ));
    }
    findings
}

/// Tests that are named in the list and are nowhere in their crate: renamed, most likely. The run of the mutants would
/// say so too, after minutes of building.
fn unknown_tests(tree: &Tree, list: &List) -> Vec<String> {
    let is_there = |suite: &str, test: &str| {
        let folder = suite.split('/').next().unwrap_or(suite);
        let head = format!("fn {}(", test.rsplit("::").next().unwrap_or(test));
        tree.with_extension("rs")
            .any(|(path, text)| path.starts_with(folder) && text.contains(&head))
    };
    list.mutants()
        .flat_map(|mutant| mutant.kills().map(move |kill| (mutant, kill)))
        .filter(|(_, kill)| !is_there(kill.suite, kill.test))
        .map(|(mutant, kill)| format!("{}: {} has no test {}", mutant.name, kill.suite, kill.test))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    const GOOD: &str = "[[invariant]]\nnever = \"harm\"\n[[invariant.mutant]]\nname = \"odd\"\nfile = \"f.rs\"\n\
                        code = \"a()\"\nbecomes = \"b()\"\nkilled_by = [\"shared t\"]\n";

    const TESTS: (&str, &str) = ("shared/src/t.rs", "fn t() {}");

    fn found(list: &str, page: &str) -> Vec<String> {
        let tree = Tree::planted(&[
            (LIST, list),
            (page::PAGE, page),
            ("f.rs", "fn f() { a() }"),
            TESTS,
        ]);
        places(&check(&tree)).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_list_with_its_page_is_fine_and_a_stale_page_or_entry_is_not() {
        let page = page::render(&List::parse(GOOD).expect("a list"));
        assert_eq!(found(GOOD, &page), [""; 0]);
        assert_eq!(found(GOOD, "# Old\n"), [page::PAGE]);
        assert_eq!(found(&GOOD.replace("a()", "c()"), &page), [LIST, page::PAGE]);
        let renamed = GOOD.replace("shared t", "harness t");
        assert_eq!(
            found(&renamed, &page::render(&List::parse(&renamed).expect("a list"))),
            [LIST]
        );
        assert_eq!(found("[[invariant]]", &page), [LIST]);
    }
}
