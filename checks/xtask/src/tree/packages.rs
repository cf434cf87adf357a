//! Rules of the dependency graph: layers, Rust version, sources, bans, duplicates.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;
use serde::Deserialize;

use super::Finding;
use super::licences::DenyConfig;
use crate::toolchain;

/// What nixos-26.05 ships; whatever needs more cannot be built there.
const NEWEST_RUST: RustVersion = RustVersion { major: 1, minor: 94 };

/// Where packages may come from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Which members may depend on which: `shared` below, the two programs side by side, xtask apart. Only tests use the
/// made-up model provider.
const LAYERS: &[(&str, &[&str])] = &[
    ("shared", &[]),
    ("model-server", &[]),
    ("harness", &["shared", "model-server"]),
    ("reconciler", &["shared", "model-server"]),
    // It looks from outside: at the wire, never at types.
    ("testbed", &[]),
    ("xtask", &["shared"]),
];

/// What `cargo metadata` says.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    /// All packages, members included.
    pub(super) packages: Vec<Package>,
    workspace_members: Vec<String>,
}

/// One package.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Package {
    id: String,
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// Its licence as an SPDX expression.
    #[serde(default)]
    pub(super) license: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    rust_version: Option<String>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone, Deserialize)]
struct Dependency {
    name: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Metadata {
    /// Asks cargo, for these target triples.
    pub(super) fn load(targets: &[String]) -> Result<Self> {
        let platforms = targets.iter().flat_map(|target| ["--filter-platform", target]);
        toolchain::metadata(platforms)
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }
}

/// A `rust-version`, without its patch level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RustVersion {
    major: u32,
    minor: u32,
}

impl RustVersion {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(str::parse::<u32>);
        let major = parts.next()?.ok()?;
        let minor = parts.next().unwrap_or(Ok(0)).ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for RustVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Checks the graph.
pub(super) fn check(metadata: &Metadata, deny: &DenyConfig) -> Vec<Finding> {
    let mut findings = layers(metadata);
    findings.extend(rust_versions(metadata));
    findings.extend(sources(metadata));
    findings.extend(banned(metadata, deny));
    findings.extend(duplicates(metadata, deny));
    findings
}

fn layers(metadata: &Metadata) -> Vec<Finding> {
    let members: BTreeSet<&str> = metadata.members().map(|member| member.name.as_str()).collect();
    let mut findings = Vec::new();
    for member in metadata.members() {
        let name = member.name.as_str();
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            let advice = "say what it may depend on in LAYERS in checks/xtask/src/tree/packages.rs";
            findings.push(Finding::violation(
                format!("package {name}"),
                format!("a new member: {advice}"),
            ));
            continue;
        };
        let wrong: BTreeSet<&str> = member
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .filter(|dependency| members.contains(dependency) && !allowed.contains(dependency))
            .collect();
        findings.extend(wrong.into_iter().map(|dependency| {
            let advice = "move what both need to `shared` (docs/decisions/0002-two-programs-one-protocol.md)";
            Finding::violation(
                format!("package {name}"),
                format!("depends on `{dependency}`: {advice}"),
            )
        }));
    }
    findings
}

fn rust_versions(metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let member = metadata.workspace_members.contains(&package.id);
        let place = format!("package {package}");
        match package
            .rust_version
            .as_deref()
            .map(|text| (text, RustVersion::parse(text)))
        {
            None if member => {
                findings.push(Finding::violation(
                    place,
                    "no rust-version: add `rust-version.workspace = true`",
                ));
            }
            // A dependency that does not say is built by the tests with what there is.
            None => {}
            Some((text, None)) => {
                findings.push(Finding::violation(
                    place,
                    format!("rust-version `{text}` is not a version"),
                ));
            }
            Some((_, Some(version))) if version > NEWEST_RUST => {
                let advice = if member {
                    "lower it in the root Cargo.toml"
                } else {
                    "take an older version with `cargo update --precise`"
                };
                findings.push(Finding::violation(
                    place,
                    format!("needs Rust {version}, newer than the {NEWEST_RUST} we support: {advice}"),
                ));
            }
            Some(_) => {}
        }
    }
    findings
}

fn sources(metadata: &Metadata) -> Vec<Finding> {
    let foreign = metadata.packages.iter().filter(|package| match &package.source {
        Some(source) => source != CRATES_IO,
        None => !metadata.workspace_members.contains(&package.id),
    });
    foreign
        .map(|package| {
            let source = package
                .source
                .as_deref()
                .unwrap_or("a folder outside the workspace");
            let advice = "take it from crates.io, so that every build can find it again";
            Finding::violation(
                format!("package {package}"),
                format!("comes from {source}: {advice}"),
            )
        })
        .collect()
}

fn banned(metadata: &Metadata, deny: &DenyConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        if let Some(ban) = deny.ban(&package.name, &package.version) {
            let advice = format!("find who wants it with `cargo tree -i {}`", package.name);
            findings.push(Finding::violation(
                format!("package {package}"),
                format!("banned: {ban}; {advice}"),
            ));
        }
    }
    findings
}

fn duplicates(metadata: &Metadata, deny: &DenyConfig) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &metadata.packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let mut findings = Vec::new();
    for (name, versions) in versions {
        let kept: Vec<&str> = versions
            .into_iter()
            .filter(|version| !deny.skips(name, version))
            .collect();
        if let [oldest, _, ..] = kept.as_slice() {
            let list = kept.join(" and ");
            findings.push(Finding::violation(
                format!("package {name}"),
                format!(
                    "is built in versions {list}: agree on one (`cargo tree -i {name}@{oldest}` says who wants which), \
                     or add the odd one to `skip` in deny.toml with a reason"
                ),
            ));
        }
    }
    findings
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::places;
    use super::*;

    pub(in super::super) fn metadata(packages: &serde_json::Value) -> Metadata {
        let members = ["shared", "harness", "reconciler", "xtask"];
        let json = serde_json::json!({ "packages": packages, "workspace_members": members });
        serde_json::from_value(json).expect("like what cargo says")
    }

    fn findings(packages: &serde_json::Value) -> Vec<Finding> {
        let deny = DenyConfig::parse(
            "[bans]\nskip = [{ crate = \"syn@2\", reason = \"r\" }]\n\
             deny = [{ crate = \"openssl-sys\", reason = \"a second TLS\" }]\n[licenses]\nallow = []\n",
        );
        check(&metadata(packages), &deny.expect("parses"))
    }

    fn package(name: &str, version: &str) -> serde_json::Value {
        let id = format!("{name}@{version}");
        serde_json::json!({ "id": id, "name": name, "version": version, "source": CRATES_IO })
    }

    fn member(name: &str, dependencies: &[&str]) -> serde_json::Value {
        let dependencies: Vec<_> = dependencies
            .iter()
            .map(|name| serde_json::json!({ "name": name }))
            .collect();
        serde_json::json!({
            "id": name, "name": name, "version": "0.1.0", "rust_version": "1.94", "dependencies": dependencies
        })
    }

    #[test]
    fn programs_on_top_of_shared_are_fine() {
        let packages = serde_json::json!([
            member("shared", &["serde"]),
            member("harness", &["shared"]),
            member("reconciler", &["shared"]),
            package("serde", "1.0.0"),
        ]);
        assert_eq!(findings(&packages), []);
    }

    #[test]
    fn each_dependency_between_layers_is_found_whatever_its_direction() {
        let packages = serde_json::json!([
            member("shared", &["harness"]),
            member("harness", &["shared", "reconciler"]),
            member("reconciler", &["shared", "harness", "harness"]),
        ]);
        let findings = findings(&packages);
        assert_eq!(
            places(&findings),
            ["package shared", "package harness", "package reconciler"]
        );
        assert!(findings[1].message.contains("`reconciler`"), "{}", findings[1]);
    }

    #[test]
    fn a_member_without_a_layer_or_a_rust_version_is_found() {
        let mut unknown = member("xtask", &[]);
        unknown["name"] = "helper".into();
        unknown["rust_version"] = serde_json::Value::Null;
        assert_eq!(
            places(&findings(&serde_json::json!([unknown]))),
            ["package helper", "package helper 0.1.0"]
        );
    }

    #[test]
    fn a_package_that_needs_a_newer_rust_is_found() {
        let of = |version: &str| {
            let mut new = package("new", "1.2.3");
            new["rust_version"] = version.into();
            findings(&serde_json::json!([new])).len()
        };
        assert_eq!(
            [of("1.85"), of("1.94.1"), of("1.95"), of("2"), of("new")],
            [0, 0, 1, 1, 1]
        );
    }

    #[test]
    fn packages_from_git_or_from_outside_the_workspace_are_found() {
        let mut git = package("git", "1.0.0");
        git["source"] = "git+https://example.org/git".into();
        let mut folder = package("folder", "1.0.0");
        folder["source"] = serde_json::Value::Null;
        let packages = serde_json::json!([git, folder]);
        assert_eq!(
            places(&findings(&packages)),
            ["package git 1.0.0", "package folder 1.0.0"]
        );
    }

    #[test]
    fn banned_packages_are_found() {
        let packages = serde_json::json!([package("openssl-sys", "0.9.1"), package("openssl", "1.0.0")]);
        assert_eq!(places(&findings(&packages)), ["package openssl-sys 0.9.1"]);
    }

    #[test]
    fn a_package_in_two_versions_is_found_unless_one_is_skipped() {
        let packages = serde_json::json!([
            package("syn", "2.0.119"),
            package("syn", "3.0.9"),
            package("rand", "0.9.0"),
            package("rand", "0.10.3"),
        ]);
        assert_eq!(places(&findings(&packages)), ["package rand"]);
    }
}
