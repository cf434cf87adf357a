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

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    const GOOD: &str = "[[invariant]]\nnever = \"harm\"\n[[invariant.mutant]]\nname = \"odd\"\nfile = \"f.rs\"\n\
                        code = \"a()\"\nbecomes = \"b()\"\nkilled_by = [\"shared t\"]\n";

    fn found(list: &str, page: &str) -> Vec<String> {
        let tree = Tree::planted(&[(LIST, list), (page::PAGE, page), ("f.rs", "fn f() { a() }")]);
        places(&check(&tree)).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_list_with_its_page_is_fine_and_a_stale_page_or_entry_is_not() {
        let page = page::render(&List::parse(GOOD).expect("a list"));
        assert_eq!(found(GOOD, &page), [""; 0]);
        assert_eq!(found(GOOD, "# Old\n"), [page::PAGE]);
        assert_eq!(found(&GOOD.replace("a()", "c()"), &page), [LIST, page::PAGE]);
        assert_eq!(found("[[invariant]]", &page), [LIST]);
    }
}
