//! Rules of Cargo.toml files: every dependency is declared once, in the workspace.

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use toml::de::{DeTable, DeValue};

use super::{Finding, Tree};

const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Workspaces of their own, and why: they share neither dependencies nor lints with ours.
const APART: &[(&str, &str)] = &[(
    "checks/fuzz/Cargo.toml",
    "built with other flags, and what it needs is no dependency of the product",
)];

/// Checks the manifests of all members.
pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("toml") {
        let apart = APART.iter().any(|(listed, _)| path == *listed);
        if path.file_name() == Some("Cargo.toml") && path != "Cargo.toml" && !apart {
            let table = DeTable::parse(text).with_context(|| format!("parsing {path}"))?;
            Manifest { path, text }.check(table.get_ref(), &mut findings);
        }
    }
    Ok(findings)
}

struct Manifest<'a> {
    path: &'a Utf8Path,
    text: &'a str,
}

impl Manifest<'_> {
    fn check(&self, manifest: &DeTable<'_>, findings: &mut Vec<Finding>) {
        if !manifest
            .get("lints")
            .is_some_and(|lints| inherits(lints.get_ref()))
        {
            findings.push(Finding::violation(
                self.path.as_str(),
                "does not take the workspace's lints: add `[lints]` with `workspace = true`",
            ));
        }
        self.dependencies(manifest, findings);
        let targets = manifest
            .get("target")
            .and_then(|target| target.get_ref().as_table());
        for (_, target) in targets.into_iter().flatten() {
            if let Some(target) = target.get_ref().as_table() {
                self.dependencies(target, findings);
            }
        }
    }

    fn dependencies(&self, parent: &DeTable<'_>, findings: &mut Vec<Finding>) {
        let tables = DEPENDENCY_TABLES
            .iter()
            .filter_map(|name| parent.get(*name)?.get_ref().as_table());
        for (name, value) in tables.flatten().filter(|(_, value)| !inherits(value.get_ref())) {
            let line = self.text[..value.span().start].matches('\n').count() + 1;
            let name = name.get_ref();
            findings.push(Finding::violation(
                format!("{}:{line}", self.path),
                format!(
                    "`{name}` is declared here: declare it in [workspace.dependencies] of the root and write \
                     `{name}.workspace = true`"
                ),
            ));
        }
    }
}

/// Whether a value is a table with `workspace = true`.
fn inherits(value: &DeValue<'_>) -> bool {
    value
        .as_table()
        .and_then(|table| table.get("workspace"))
        .is_some_and(|it| it.get_ref().as_bool() == Some(true))
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    fn places_in(text: &str) -> Vec<String> {
        let tree = Tree::planted(&[
            ("Cargo.toml", "[workspace.dependencies]\na = \"1\"\n"),
            ("shared/Cargo.toml", text),
        ]);
        places(&check(&tree).expect("parses"))
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn inherited_dependencies_and_lints_are_fine() {
        let text = "[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\n\
                    [lints]\nworkspace = true\n";
        assert_eq!(places_in(text), [""; 0]);
    }

    #[test]
    fn a_dependency_declared_in_a_member_is_found_in_every_kind_of_table() {
        let text = "[dependencies]\na = \"1\"\nb.workspace = true\n[dev-dependencies]\nc = { version = \"1\" }\n\
                    [build-dependencies]\nd = { path = \"../d\" }\n[target.'cfg(unix)'.dependencies]\ne = \"1\"\n\
                    [lints]\nworkspace = true\n";
        let lines = [2, 5, 7, 9].map(|line| format!("shared/Cargo.toml:{line}"));
        assert_eq!(places_in(text), lines);
    }

    #[test]
    fn a_workspace_apart_declares_its_own() {
        let tree = Tree::planted(&[(
            "checks/fuzz/Cargo.toml",
            "[workspace]\n[dependencies]\na = \"1\"\n",
        )]);
        assert_eq!(check(&tree).expect("parses"), []);
    }

    #[test]
    fn a_member_without_the_lints_of_the_workspace_is_found() {
        assert_eq!(places_in("[package]\nname = \"shared\"\n"), ["shared/Cargo.toml"]);
    }
}
