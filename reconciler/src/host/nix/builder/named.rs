//! Store paths that a system's launch and config name: programs of the host, of MCP servers, of binds.

use std::collections::BTreeSet;

use camino::Utf8PathBuf;

use super::{Building, NixBuilder, lines};
use crate::host::HostError;
use crate::host::nix::fault::Stage;
use crate::host::nix::store::Store;
use crate::model::build::BuildOutput;

/// More are not kept for one system: an agent could fill its config with them.
const MOST: usize = 256;

impl NixBuilder {
    /// Those that are in the store. Whoever declared them may have replaced them since, and the collector must leave them
    /// to the systems that need them.
    pub(super) async fn named(
        &self,
        job: &Building<'_>,
        output: &BuildOutput,
    ) -> Result<Vec<String>, HostError> {
        let text = serde_json::to_string(&(&output.launch, &output.config))
            .map_err(|error| HostError::failed("the system's files", error.to_string()))?;
        let mut found = mentioned(&self.options.store, &text);
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut words = ["--check-validity", "--print-invalid"]
            .map(str::to_owned)
            .to_vec();
        words.extend(found.iter().map(ToString::to_string));
        let answer = self.store(job, Stage::Building, words).await?;
        for invalid in lines(&answer.stdout) {
            found.remove(&Utf8PathBuf::from(invalid));
        }
        Ok(found.into_iter().map(Utf8PathBuf::into_string).collect())
    }
}

/// The store paths that occur in a text, as Nix itself looks for references: by their look.
fn mentioned(store: &Store, text: &str) -> BTreeSet<Utf8PathBuf> {
    let folder = format!("{}/", store.dir);
    let starts = text.match_indices(&folder).map(|(at, _)| &text[at..]);
    let paths = starts.filter_map(|rest| {
        let is_of_path = |c: char| c.is_ascii_alphanumeric() || "+-._?=/".contains(c);
        let end = rest.find(|c| !is_of_path(c)).unwrap_or(rest.len());
        Some(store.path(&rest[..end]).ok()?.root().to_owned())
    });
    paths.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_paths_are_found_wherever_they_stand() {
        let store = Store::of_machine();
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        let text = format!(
            r#"{{"command":"/nix/store/{hash}-wiki/bin/wiki","args":["--data=/nix/store/{hash}-data:/x","/nix/store/no"],
                "env":"/nix/store/{hash}-wiki"}}"#
        );
        let found: Vec<_> = mentioned(&store, &text).into_iter().collect();
        let path = |name: &str| Utf8PathBuf::from(format!("/nix/store/{hash}-{name}"));
        assert_eq!(found, [path("data"), path("wiki")]);
    }

    #[test]
    fn a_config_full_of_paths_keeps_no_more_than_so_many() {
        let text: String = (0..1_000)
            .map(|n| format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-{n} "))
            .collect();
        assert_eq!(mentioned(&Store::of_machine(), &text).len(), MOST);
    }
}
