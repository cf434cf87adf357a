//! Links in Markdown to files of the tree.

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use pulldown_cmark::{Event, Parser, Tag};

use super::{Finding, Tree};

/// Checks that every relative link leads to a file or folder of the tree.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("md") {
        // Fixtures are data.
        if path.iter().any(|part| part == "tests" || part == "fixtures") {
            continue;
        }
        for (event, range) in Parser::new(text).into_offset_iter() {
            let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event else {
                continue;
            };
            if let Some(problem) = problem(tree, path, &dest_url) {
                let line = text[..range.start].matches('\n').count() + 1;
                findings.push(Finding::violation(format!("{path}:{line}"), problem));
            }
        }
    }
    findings
}

fn problem(tree: &Tree, page: &Utf8Path, link: &str) -> Option<String> {
    let target = link.split(['#', '?']).next().unwrap_or_default();
    let elsewhere =
        link.starts_with("//") || target.split('/').next().is_some_and(|first| first.contains(':'));
    if target.is_empty() || elsewhere {
        return None;
    }
    if target.starts_with('/') {
        return Some(format!("link to `{target}`: write it relative to this page"));
    }
    let folder = page.parent().unwrap_or(Utf8Path::new(""));
    match resolve(&folder.join(target.replace("%20", " "))) {
        None => Some(format!("link to `{target}` leaves the tree")),
        // The root itself.
        Some(path) if path == "" => None,
        Some(path) if tree.contains(&path) => None,
        Some(path) => Some(format!(
            "link to `{target}`: there is no {path}; write the file or correct the link"
        )),
    }
}

/// Takes `.` and `..` out of a path; `None` when it leaves the root.
fn resolve(path: &Utf8Path) -> Option<Utf8PathBuf> {
    let mut resolved = Utf8PathBuf::new();
    for component in path.components() {
        match component {
            Utf8Component::Normal(name) => resolved.push(name),
            Utf8Component::CurDir => {}
            Utf8Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Utf8Component::RootDir | Utf8Component::Prefix(_) => return None,
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    fn places_in(text: &str) -> Vec<String> {
        let tree = Tree::planted(&[
            ("docs/guide/page.md", text),
            ("docs/other.md", ""),
            ("README.md", "[docs](docs/) [page](docs/guide/page.md#part)"),
        ]);
        places(&check(&tree)).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn links_to_files_folders_headings_and_the_web_are_fine() {
        let text = "[a](../other.md) [b](..) [c](#here) [d](https://example.org/x) <mailto:a@example.org> \
                    [e](../../README.md#top) [f](../..)";
        assert_eq!(places_in(text), [""; 0]);
    }

    #[test]
    fn a_link_to_nothing_is_found_with_its_line() {
        let text = "# Title\n\n[gone](gone.md)\n\nand [ref][r]\n\n![img](x.png)\n\n[r]: ../missing.md\n";
        let page = "docs/guide/page.md";
        assert_eq!(
            places_in(text),
            [format!("{page}:3"), format!("{page}:5"), format!("{page}:7")]
        );
    }

    #[test]
    fn a_link_out_of_the_tree_is_found() {
        assert_eq!(places_in("[a](../../../etc/passwd) [b](/etc/passwd)").len(), 2);
    }

    #[test]
    fn links_in_code_are_text() {
        assert_eq!(places_in("`[a](gone.md)`\n\n```\n[a](gone.md)\n```\n"), [""; 0]);
    }
}
