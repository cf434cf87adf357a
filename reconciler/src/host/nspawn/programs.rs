//! The hive's own programs inside a container: where they are found, whatever the guest's system is.

use camino::{Utf8Path, Utf8PathBuf};

use crate::host::Launch;

/// What is the same inside and outside.
pub(in crate::host) const STORE: &str = "/nix/store";
/// Where programs that are not in the store are shown inside.
const SHOWN: &str = "/run/hive-programs";

/// A program that the guest finds by a link in `/config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Program {
    /// The link's name.
    pub(in crate::host) name: &'static str,
    /// On the host.
    pub(in crate::host) source: Utf8PathBuf,
    /// Inside.
    pub(in crate::host) inside: Utf8PathBuf,
}

impl Program {
    fn new(name: &'static str, source: &Utf8Path) -> Self {
        let inside = if source.starts_with(STORE) {
            source.to_owned()
        } else {
            Utf8Path::new(SHOWN).join(name)
        };
        Self {
            name,
            source: source.to_owned(),
            inside,
        }
    }

    /// Whether it has to be shown inside.
    pub(super) fn needs_mount(&self) -> bool {
        self.source != self.inside
    }
}

/// The programs of an agent in a container; none without one.
pub(in crate::host) fn of(launch: &Launch) -> Vec<Program> {
    if launch.user_range.is_none() {
        return Vec::new();
    }
    let harness = Program::new("hive-harness", &launch.harness);
    let claude = launch
        .claude
        .as_deref()
        .map(|claude| Program::new("claude", claude));
    [harness].into_iter().chain(claude).collect()
}
