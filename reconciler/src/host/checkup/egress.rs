//! Facts about the way out of agents.

use std::io::ErrorKind;

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::spec::{AgentSpec, DriverKind, Spec};

use super::folder;
use super::nix::answers;
use crate::doctor::egress::Egress;
use crate::host::goes_out_by_sockets;
use crate::host::layout::Layout;
use crate::model::inventory::Known;

/// Variables with which an agent's program needs no key from outside.
const OWN_KEYS: [&str; 3] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
];
/// Where systemd looks for the credential that the unit names.
const CREDENTIALS: [&str; 4] = [
    "/etc/credstore/hyperhive-api-key",
    "/run/credstore/hyperhive-api-key",
    "/usr/local/lib/credstore/hyperhive-api-key",
    "/usr/lib/credstore/hyperhive-api-key",
];
/// The sockets of an agent's way out.
const SOCKETS: [&str; 2] = ["model.sock", "proxy.sock"];

/// Gathers what the checks of the way out look at; `None`: no agent has one. `service` is the folder of a service of its
/// own, where systemd runs one.
pub(super) async fn gather(
    spec: Option<&Spec>,
    layout: &Layout,
    service: Option<Utf8PathBuf>,
) -> Option<Egress> {
    let spec = spec?;
    let goes_out = |agent: &AgentSpec| goes_out_by_sockets(agent.network, agent.driver.kind);
    let agents: Vec<(&AgentName, &AgentSpec)> =
        spec.agents.iter().filter(|(_, agent)| goes_out(agent)).collect();
    if agents.is_empty() {
        return None;
    }
    let names: Vec<AgentName> = agents.iter().map(|(name, _)| (*name).clone()).collect();
    let keyless = agents.iter().filter(|(_, agent)| counts_on_the_key(agent));
    let keyless = keyless.map(|(name, _)| (*name).clone()).collect();
    let file = spec.egress.api_key_file.clone();
    let (layout, with_service) = (layout.clone(), service.is_some());
    let (asked, base) = (names.clone(), service.clone());
    let looked = super::blocking(move || {
        let key = key(with_service, file);
        let base = base.unwrap_or_else(|| layout.egress());
        (key, doors(&base, &asked))
    });
    let (key, doors) = match looked.await {
        Ok(found) => found,
        Err(why) => (Err(why.clone()), Err(why)),
    };
    Some(Egress {
        agents: names,
        keyless,
        key,
        folder: service.as_deref().map(folder),
        doors,
    })
}

fn counts_on_the_key(agent: &AgentSpec) -> bool {
    let own = agent
        .secret_env
        .keys()
        .any(|name| OWN_KEYS.contains(&name.as_str()));
    agent.driver.kind == DriverKind::Claude && !own
}

fn key(with_service: bool, file: Option<String>) -> Known<Option<String>> {
    let credentials = CREDENTIALS.into_iter().filter(|_| with_service);
    for path in credentials {
        match std::fs::metadata(path) {
            Ok(found) if found.len() == 0 => return Err(format!("{path} is empty")),
            Ok(_) => return Ok(Some(path.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Ok(Some(format!("{path}, or not at all: root alone can look there")));
            }
            Err(error) => return Err(format!("{path} cannot be looked at: {error}")),
        }
    }
    match file {
        None => Ok(None),
        Some(file) => match std::fs::metadata(&file) {
            Ok(found) if found.len() == 0 => Err(format!("{file}, egress.apiKeyFile of the spec, is empty")),
            Ok(_) => Ok(Some(file)),
            Err(error) => Err(format!("{file}, egress.apiKeyFile of the spec: {error}")),
        },
    }
}

fn doors(base: &Utf8Path, agents: &[AgentName]) -> Known<Vec<(AgentName, Known<()>)>> {
    match base.read_dir_utf8() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(format!("root alone can look into {base}"));
        }
        _ => {}
    }
    let sockets = agents.iter().flat_map(|agent| {
        let folder = base.join(agent.as_str());
        SOCKETS.map(|socket| (agent.clone(), folder.join(socket)))
    });
    let there = sockets.filter(|(_, socket)| socket.exists());
    Ok(there.map(|(agent, socket)| (agent, answers(&socket))).collect())
}
