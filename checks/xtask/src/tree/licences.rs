//! deny.toml, as far as the tests read it, and the licences of all packages.
//!
//! `cargo deny check` reads the same file and does more (advisories, licence texts); the part that can be known from
//! `cargo metadata` alone is checked here, so that no test depends on another program.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use super::Finding;
use super::packages::{Metadata, Package};

/// The parts of deny.toml that are read here.
#[derive(Debug, Deserialize)]
pub(super) struct DenyConfig {
    #[serde(default)]
    graph: Graph,
    licenses: Licences,
    #[serde(default)]
    bans: Bans,
}

#[derive(Debug, Default, Deserialize)]
struct Graph {
    #[serde(default)]
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Entry>,
    #[serde(default)]
    skip: Vec<Entry>,
}

/// `crate = "name"` or `crate = "name@1.2"`, which stands for 1.2 and every 1.2.x; and why.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

impl Entry {
    fn matches(&self, name: &str, version: &str) -> bool {
        let Some((own_name, own_version)) = self.package.split_once('@') else {
            return self.package == name;
        };
        let rest = version.strip_prefix(own_version);
        own_name == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl DenyConfig {
    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("parsing deny.toml")
    }

    /// The platforms whose dependencies count.
    pub(super) fn targets(&self) -> Vec<String> {
        self.graph.targets.clone()
    }

    /// Why a package is banned.
    pub(super) fn ban(&self, name: &str, version: &str) -> Option<&str> {
        self.bans
            .deny
            .iter()
            .find(|entry| entry.matches(name, version))
            .map(|entry| entry.reason.as_str())
    }

    /// Whether this version does not count as a duplicate.
    pub(super) fn skips(&self, name: &str, version: &str) -> bool {
        self.bans.skip.iter().any(|entry| entry.matches(name, version))
    }

    fn allowed(&self) -> Result<Vec<Licensee>> {
        let parse = |text: &String| {
            Licensee::parse(text).with_context(|| format!("`{text}` in deny.toml is not an SPDX licence"))
        };
        self.licenses.allow.iter().map(parse).collect()
    }
}

/// Checks that every package can be used under licences from the list in deny.toml.
pub(super) fn check(metadata: &Metadata, deny: &DenyConfig) -> Result<Vec<Finding>> {
    let allowed = deny.allowed()?;
    let problems = metadata.packages.iter().filter_map(|package| {
        let problem = problem(package, &allowed)?;
        Some(Finding::violation(format!("package {package}"), problem))
    });
    Ok(problems.collect())
}

fn problem(package: &Package, allowed: &[Licensee]) -> Option<String> {
    let Some(text) = &package.license else {
        return Some("names no licence in its manifest: replace it, or ask its author to".to_owned());
    };
    // Lax: old packages write `MIT/Apache-2.0`.
    let expression = match Expression::parse_mode(text, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => {
            return Some(format!(
                "licence `{text}` is not an SPDX expression: {}",
                error.reason
            ));
        }
    };
    let satisfied = |req: &LicenseReq| allowed.iter().any(|licensee| licensee.satisfies(req));
    (!expression.evaluate(satisfied)).then(|| {
        format!("licence `{text}` is not covered by [licenses] allow in deny.toml: replace it, or allow the licence there")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::packages::tests::metadata;
    use super::super::places;
    use super::*;

    fn allows(allow: &str, licence: &str) -> bool {
        let deny = DenyConfig::parse(&format!("[licenses]\nallow = {allow}\n")).expect("parses");
        let licence = if licence.is_empty() {
            serde_json::Value::Null
        } else {
            licence.into()
        };
        let metadata = metadata(&json!([{ "id": "a", "name": "a", "version": "1.0.0", "license": licence }]));
        let findings = check(&metadata, &deny).expect("licences");
        assert!(places(&findings).iter().all(|place| *place == "package a 1.0.0"));
        findings.is_empty()
    }

    #[test]
    fn one_of_alternatives_and_all_of_a_conjunction_must_be_allowed() {
        assert!(allows("['MIT']", "MIT OR Apache-2.0"));
        assert!(allows("['MIT']", "Unlicense/MIT"));
        assert!(!allows("['MIT']", "(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(allows(
            "['MIT', 'Unicode-3.0']",
            "(MIT OR Apache-2.0) AND Unicode-3.0"
        ));
    }

    #[test]
    fn copyleft_missing_and_unreadable_licences_are_found() {
        assert!(!allows("['MIT']", "GPL-3.0-only"));
        assert!(!allows("['MIT']", ""));
        assert!(!allows("['MIT']", "see the website"));
    }

    #[test]
    fn an_exception_must_be_allowed_by_name() {
        assert!(!allows("['Apache-2.0']", "Apache-2.0 WITH LLVM-exception"));
        assert!(allows(
            "['Apache-2.0 WITH LLVM-exception']",
            "Apache-2.0 WITH LLVM-exception"
        ));
    }

    #[test]
    fn an_entry_stands_for_its_version_and_the_patches_of_it() {
        let entry = Entry {
            package: "syn@2".to_owned(),
            reason: String::new(),
        };
        assert!(entry.matches("syn", "2.0.119") && entry.matches("syn", "2"));
        assert!(!entry.matches("syn", "20.1.0") && !entry.matches("sync", "2.0.0"));
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        let text = "[licenses]\nallow = []\n[bans]\nskip = [{ crate = 'syn@2' }]\n";
        let error = format!("{:#}", DenyConfig::parse(text).expect_err("no reason"));
        assert!(error.contains("reason"), "{error}");
    }
}
