//! `hive egress allow`: a refusal becomes a change of the spec. Needs no daemon.

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde_json::{Value, json};
use shared::AgentName;
use shared::spec::Network;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::page::Page;
use crate::cli::ui::Ui;
use crate::egress::rule::HostRule;
use crate::host::folders::write_atomic;
use crate::spec;

/// Arguments of `hive egress allow`.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct AllowArgs {
    /// The agent
    #[arg(value_name = "AGENT")]
    agent: AgentName,
    /// The host: example.org, *.example.org for all names below, or either with a port as in example.org:8443
    #[arg(value_name = "HOST", value_parser = parse_host)]
    host: String,
    /// Change this spec, a JSON file that is yours to edit; its fields are put in order
    #[arg(long, value_name = "FILE")]
    file: Option<Utf8PathBuf>,
}

fn parse_host(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    text.parse::<HostRule>()
        .map(|_| text.clone())
        .map_err(|error| error.to_string())
}

/// What is to be changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// For a NixOS configuration.
    nix: String,
    /// For a JSON spec: what `agents` is to have besides.
    json: Value,
    /// Whether a file was changed.
    changed: bool,
}

pub(super) async fn run(ui: &mut Ui, args: AllowArgs) -> Result<Exit, CliError> {
    let AllowArgs { agent, host, file } = args;
    let changed = match file {
        None => false,
        Some(file) => {
            let (agent, host) = (agent.clone(), host.clone());
            let edited = tokio::task::spawn_blocking(move || edit(&file, &agent, &host)).await;
            edited.map_err(|ended| CliError::Daemon(ended.to_string()))??
        }
    };
    let name = &agent;
    let change = Change {
        nix: format!(
            "services.hyperhive.agents.{name} = {{ network = \"hosts\"; egress = [ \"{host}\" ]; }};"
        ),
        json: json!({ name.as_str(): { "network": "hosts", "egress": [host] } }),
        changed,
    };
    ui.show(&change, || {
        let mut page = Page::default();
        if changed {
            page.line([format!("{agent} may reach {host} once the daemon has read the spec").into()]);
        } else {
            page.line(["In a NixOS configuration, besides the hosts that are there already:".into()]);
            page.line([format!("  {}", change.nix).into()]);
            page.line(["In a JSON spec, below \"agents\":".into()]);
            page.line([format!("  {}", change.json).into()]);
        }
        page
    })?;
    Ok(Exit::Done)
}

/// Changes the file, if the outcome is a spec without a fault. Returns whether there was anything to change. Blocks.
fn edit(file: &Utf8Path, agent: &AgentName, host: &str) -> Result<bool, CliError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed =
        |error: &dyn std::error::Error| CliError::Daemon(format!("{file}: {}", crate::error_chain(error)));
    let text = spec::read(file)?;
    let mut document: Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    if !allow(&mut document, agent, host).map_err(CliError::Daemon)? {
        return Ok(false);
    }
    let mut text = serde_json::to_vec_pretty(&document).map_err(|error| failed(&error))?;
    text.push(b'\n');
    let faults = spec::parse(&text).all_faults().count();
    if faults > 0 {
        return Err(CliError::BadSpec {
            path: file.to_string(),
            faults: crate::cli::text::count(faults, "fault"),
        });
    }
    // The file itself, not the link to it.
    let file = file.canonicalize_utf8().map_err(|error| failed(&error))?;
    let mode = file
        .metadata()
        .map_err(|error| failed(&error))?
        .permissions()
        .mode();
    write_atomic(&file, &text, mode & 0o777).map_err(|error| failed(&error))?;
    Ok(true)
}

/// Puts the host into the agent's list. Returns whether it was not there.
fn allow(document: &mut Value, agent: &AgentName, host: &str) -> Result<bool, String> {
    let declared = document
        .get_mut("agents")
        .and_then(|agents| agents.get_mut(agent.as_str()));
    let Some(declared) = declared.and_then(Value::as_object_mut) else {
        return Err(format!(
            "the spec declares no agent {agent}; one that was spawned has the settings of spawnDefaults"
        ));
    };
    let network = declared.get("network").cloned().unwrap_or_default();
    if serde_json::from_value::<Network>(network).is_ok_and(|network| network == Network::Host) {
        return Err(format!(
            "{agent} has the host's own network, and reaches every host already"
        ));
    }
    let hosts = declared.entry("egress").or_insert_with(|| json!([]));
    let hosts = hosts.as_array_mut().ok_or("egress is no list of hosts")?;
    let missing = !hosts.iter().any(|there| there == host);
    if missing {
        hosts.push(json!(host));
    }
    let before = declared.insert("network".to_owned(), json!("hosts"));
    Ok(missing || before != Some(json!("hosts")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Utf8PathBuf::from_path_buf(folder.path().join("hive.json")).expect("UTF-8");
        (folder, file)
    }

    fn alice() -> AgentName {
        "alice".parse().expect("a name")
    }

    fn put(file: &Utf8Path, agent: &Value) -> Vec<u8> {
        let spec = json!({ "version": 1, "hive": { "name": "home" }, "agents": { "alice": agent } });
        let text = spec.to_string().into_bytes();
        write_atomic(file, &text, 0o640).expect("written");
        text
    }

    #[test]
    fn a_host_is_put_into_the_list_once_and_the_file_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, file) = folder();
        put(&file, &json!({ "prompt": "p" }));
        assert!(edit(&file, &alice(), "example.org").expect("edited"));
        assert!(edit(&file, &alice(), "*.example.org:8443").expect("edited"));
        assert!(!edit(&file, &alice(), "example.org").expect("nothing to do"));
        let text = std::fs::read(&file).expect("a file");
        let spec = spec::parse(&text).spec.expect("a spec");
        let agent = &spec.agents[&alice()];
        assert_eq!((agent.network, agent.prompt.as_str()), (Network::Hosts, "p"));
        let hosts: Vec<_> = agent.egress.iter().map(String::as_str).collect();
        assert_eq!(hosts, ["*.example.org:8443", "example.org"]);
        assert_eq!(
            file.metadata().expect("a file").permissions().mode() & 0o777,
            0o640
        );
    }

    #[test]
    fn a_file_whose_outcome_would_be_at_fault_is_left_as_it_was() {
        let (_folder, file) = folder();
        for (agent, what) in [
            (json!({ "promt": "p" }), "fault"),
            (json!({ "network": "host" }), "reaches every host already"),
            (json!({ "egress": "x" }), "no list"),
            (json!(null), "no agent alice"),
        ] {
            let before = put(&file, &agent);
            let error = edit(&file, &alice(), "example.org").expect_err("refused");
            assert!(error.to_string().contains(what), "{agent}: {error}");
            assert_eq!(std::fs::read(&file).expect("a file"), before);
        }
    }
}
