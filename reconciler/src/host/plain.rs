//! The plain builder: a system is a folder named after its digest, with the commit's tree and its rendered config.
//!
//! ```text
//! systems/<digest>/tree/         the commit's raw blobs
//! systems/<digest>/system.json   what follows from commit and spec: launch, config, origins, grants
//! ```
//!
//! A folder is written beside its place, synced, and renamed: what has the name is whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use shared::config::{OVERLAY_FILE, Overlay};

use super::blocking::blocking;
use super::folders::write_atomic;
use super::layout::Layout;
use super::{Builder, HostError, Repos};
use crate::model::build::{BuildOutput, BuildRequest, assemble};
use crate::spec::overlay_faults;

/// The largest `agent.json`, in bytes.
pub(super) const MAX_OVERLAY: u64 = 256 * 1024;

/// Builds by writing folders.
pub struct PlainBuilder {
    layout: Layout,
    repos: Arc<dyn Repos>,
}

impl PlainBuilder {
    /// A builder that reads commits through `repos`.
    pub fn new(layout: Layout, repos: Arc<dyn Repos>) -> Self {
        Self { layout, repos }
    }

    async fn overlay(&self, request: &BuildRequest) -> Result<Overlay, HostError> {
        let bytes = self
            .repos
            .read_file(&request.agent, &request.commit, OVERLAY_FILE, MAX_OVERLAY)
            .await?;
        match bytes {
            None => Ok(Overlay::default()),
            Some(bytes) => parse_overlay(&bytes),
        }
    }
}

/// Writes a system's folder, unless it is there.
pub(super) async fn write_system(
    layout: &Layout,
    repos: &dyn Repos,
    request: &BuildRequest,
    output: &BuildOutput,
) -> Result<(), HostError> {
    let target = Utf8PathBuf::from(&output.system);
    if exists(&target).await? {
        return Ok(());
    }
    let json = serde_json::to_vec_pretty(output)
        .map_err(|error| HostError::failed("system.json", error.to_string()))?;
    let draft = layout.systems().join(format!(".{}.draft", request.agent));
    remake(&draft).await?;
    repos
        .write_tree(&request.agent, &request.commit, &draft.join("tree"))
        .await?;
    blocking(output.system.clone(), move || {
        write_atomic(&draft.join("system.json"), &json, 0o644)?;
        match std::fs::rename(&draft, &target) {
            Ok(()) => Ok(()),
            // Another build of the same content came first.
            Err(_) if target.join("system.json").exists() => {
                std::fs::remove_dir_all(&draft).map_err(HostError::io("remove", draft.as_str()))
            }
            Err(error) => Err(HostError::io("place", target.as_str())(error)),
        }
    })
    .await
}

/// Reads an overlay, naming the field at fault.
pub fn parse_overlay(bytes: &[u8]) -> Result<Overlay, HostError> {
    parse_overlay_of(OVERLAY_FILE, "", bytes)
}

/// The same for one that comes from `file`, where its fields' names begin with `prefix`.
pub(super) fn parse_overlay_of(file: &str, prefix: &str, bytes: &[u8]) -> Result<Overlay, HostError> {
    // serde would take a list for the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let message = "it is not a JSON object: write one that begins with `{`";
        return Err(HostError::refused(file, message));
    }
    let parser = &mut serde_json::Deserializer::from_slice(bytes);
    let refused = |path: &str, error: &serde_json::Error| {
        let place = if path == "." {
            file.to_owned()
        } else {
            format!("{file}: {prefix}{path}")
        };
        HostError::refused(place, error.to_string())
    };
    let overlay: Overlay = serde_path_to_error::deserialize(&mut *parser)
        .map_err(|error| refused(&error.path().to_string(), error.inner()))?;
    parser.end().map_err(|error| refused(".", &error))?;
    match overlay_faults(bytes, &overlay).into_iter().next() {
        Some(fault) => Err(HostError::refused(
            format!("{file}: {prefix}{}", fault.path),
            fault.message,
        )),
        None => Ok(overlay),
    }
}

async fn exists(system: &Utf8Path) -> Result<bool, HostError> {
    let marker = system.join("system.json");
    blocking(system.to_string(), move || {
        marker
            .try_exists()
            .map_err(HostError::io("look at", marker.as_str()))
    })
    .await
}

pub(super) async fn remake(draft: &Utf8Path) -> Result<(), HostError> {
    let draft = draft.to_owned();
    blocking(draft.to_string(), move || {
        match std::fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HostError::io("remove", draft.as_str())(error));
            }
            _ => {}
        }
        std::fs::create_dir_all(&draft).map_err(HostError::io("make", draft.as_str()))
    })
    .await
}

#[async_trait]
impl Builder for PlainBuilder {
    async fn build(&self, request: &BuildRequest) -> Result<BuildOutput, HostError> {
        let overlay = self.overlay(request).await?;
        let systems = self.layout.systems();
        let output = assemble(request, &overlay, |digest| {
            systems.join(digest.as_str()).into_string()
        })
        .map_err(|error| HostError::refused(OVERLAY_FILE, error.to_string()))?;
        write_system(&self.layout, &*self.repos, request, &output).await?;
        Ok(output)
    }

    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError> {
        let systems = systems.to_vec();
        blocking("systems".to_owned(), move || {
            let look = |system: String| {
                let marker = Utf8PathBuf::from(&system).join("system.json");
                let present = marker
                    .try_exists()
                    .map_err(HostError::io("look at", marker.as_str()))?;
                Ok((system, present))
            };
            systems.into_iter().map(look).collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_overlay_names_the_field() {
        let error = parse_overlay(br#"{ "mcpServers": { "wiki": { "comand": "x" } } }"#).unwrap_err();
        assert!(error.is_terminal());
        assert!(error.chain().contains("mcpServers.wiki"), "{}", error.chain());
        assert!(parse_overlay(b"{").is_err());
        assert!(parse_overlay(b"{} trailing").is_err());
        assert!(
            parse_overlay(br#"{ "budget": {} }"#).is_err(),
            "the budget is the operator's"
        );
        assert!(parse_overlay(br#"{ "mcpServers": { "wiki": {} } }"#).is_err());
    }

    /// Whatever an agent commits in place of a config: a refusal in words, never a crash.
    #[test]
    fn a_hostile_overlay_is_refused() {
        let deep = format!("{}{}", "{\"prompt\":".repeat(50_000), "}".repeat(50_000));
        let nested = format!("{{\"tools\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            deep.as_str(),
            &nested,
            "",
            "null",
            "[]",
            "\u{feff}{}",
            r#"{ "prompt": NaN }"#,
            r#"{ "prompt": "a", "prompt": "b" }"#,
            r#"{ "mcpServers": { "x": { "command": "/a" }, "x": { "command": "/b" } } }"#,
            r#"{ "mcpServers": { "../x": { "command": "/a" } } }"#,
            r#"{ "mcpServers": { "x": { "command": "sh" } } }"#,
            r#"{ "driver": { "kind": "claude", "model": "--dangerously-skip-permissions" } }"#,
            r#"{ "recipients": ["../operator"] }"#,
            r#"{ "binds": [{ "source": "/", "target": "/host" }] }"#,
            r#"{ "role": "manager" }"#,
            r#"{ "locked": [] }"#,
            r#"{ "prompt": "\u0000" }"#,
        ] {
            let shown = &text[..text.len().min(60)];
            let error = parse_overlay(text.as_bytes()).expect_err(shown);
            assert!(error.is_terminal(), "{shown}: {error:?}");
            assert!(
                error.chain().len() < 2000,
                "{shown}: {} bytes",
                error.chain().len()
            );
        }
        assert!(parse_overlay(&[0xff; 1000]).is_err());
    }

    #[test]
    fn an_overlay_may_remove_a_server() {
        let overlay = parse_overlay(br#"{ "mcpServers": { "wiki": null } }"#).unwrap();
        assert_eq!(overlay.mcp_servers.len(), 1);
    }
}
