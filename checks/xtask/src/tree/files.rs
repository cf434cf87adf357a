//! Which files there are: names at the top, sizes, files that must not exist.

use std::collections::BTreeSet;

use super::{Finding, MAX_FILE_BYTES, Tree};

/// Everything that may lie at the root.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".editorconfig",
    ".gitattributes",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "checks",
    "clippy.toml",
    "deny.toml",
    "docs",
    "flake.lock",
    "flake.nix",
    "harness",
    "modules",
    "reconciler",
    "rustfmt.toml",
    "shared",
    "templates",
];

/// Checks names and sizes.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = top_level(tree);
    for file in &tree.files {
        let name = file.path.file_name().unwrap_or_default();
        if file.size > MAX_FILE_BYTES {
            findings.push(Finding::violation(
                file.path.as_str(),
                format!(
                    "{} bytes, more than 1 MiB: generate it, fetch it in a build, or split it",
                    file.size
                ),
            ));
        }
        if name == "mod.rs" {
            let instead = file
                .path
                .parent()
                .map(|folder| format!("{folder}.rs"))
                .unwrap_or_default();
            findings.push(Finding::violation(
                file.path.as_str(),
                format!("modules are `foo.rs` beside `foo/`: move it to {instead}"),
            ));
        }
        if name.starts_with("rust-toolchain") {
            findings.push(Finding::violation(
                file.path.as_str(),
                "no toolchain file: remove it and see docs/decisions/0001-no-toolchain-file.md",
            ));
        }
    }
    findings
}

fn top_level(tree: &Tree) -> Vec<Finding> {
    let names: BTreeSet<&str> = tree
        .files
        .iter()
        .filter_map(|file| file.path.iter().next())
        .collect();
    let unknown = names.into_iter().filter(|name| !TOP_LEVEL.contains(name));
    unknown
        .map(|name| {
            Finding::violation(
                name,
                "not one of the names at the root: move it below one of them, ignore it in .gitignore, or add it to \
                 TOP_LEVEL in checks/xtask/src/tree/files.rs",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{TreeFile, places};
    use super::*;

    #[test]
    fn a_tree_of_known_names_is_fine() {
        let tree = Tree::planted(&[("README.md", ""), ("shared/src/lib.rs", ""), (".ci/run", "")]);
        assert_eq!(check(&tree), []);
    }

    #[test]
    fn an_unknown_name_at_the_root_is_named_once() {
        let tree = Tree::planted(&[("notes/a.md", ""), ("notes/b.md", ""), ("TODO", "")]);
        assert_eq!(places(&check(&tree)), ["TODO", "notes"]);
    }

    #[test]
    fn mod_rs_and_toolchain_files_are_found_at_any_depth() {
        let tree = Tree::planted(&[
            ("harness/src/turn/mod.rs", ""),
            ("checks/a/rust-toolchain.toml", ""),
        ]);
        let findings = check(&tree);
        assert_eq!(
            places(&findings),
            ["harness/src/turn/mod.rs", "checks/a/rust-toolchain.toml"]
        );
        assert!(
            findings[0].message.ends_with("harness/src/turn.rs"),
            "{}",
            findings[0]
        );
    }

    #[test]
    fn a_file_of_more_than_a_mebibyte_is_found() {
        let file = |path: &str, size| TreeFile {
            path: path.into(),
            size,
            text: None,
        };
        let tree = Tree {
            files: vec![
                file("docs/ok", MAX_FILE_BYTES),
                file("docs/big", MAX_FILE_BYTES + 1),
            ],
        };
        assert_eq!(places(&check(&tree)), ["docs/big"]);
    }
}
