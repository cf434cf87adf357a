//! The effective config: the spec gives defaults and the ceiling, a deployed commit overlays it.
//!
//! What an overlay sets within the ceiling always holds. What goes beyond needs a grant, and a grant is bound to the
//! digest of the spec's own value: once the operator changes that field, the overlay of it lapses, so that narrowing
//! in the spec always works.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::canonical::{Encoding, NotCanonical, digest};
use shared::config::Overlay;
use shared::gate::CapabilityChange;
use shared::spec::{AgentSpec, ConfigField, DriverSpec, McpServerSpec, Network, ToolsSpec};
use shared::status::Origin;
use shared::{Address, Digest, ServerName};

use crate::model::build::{GrantMode, Grants};
use crate::model::capability;

/// The fields a commit may set, as they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The standing instructions.
    pub prompt: String,
    /// What runs the turns.
    pub driver: DriverSpec,
    /// MCP servers.
    pub mcp_servers: BTreeMap<ServerName, McpServerSpec>,
    /// Built-in tools.
    pub tools: ToolsSpec,
    /// Whom the agent may write to; `None`: everybody.
    pub recipients: Option<BTreeSet<Address>>,
    /// The network.
    pub network: Network,
}

impl Fields {
    /// The fields as the spec alone has them.
    pub fn of_spec(spec: &AgentSpec) -> Self {
        Self {
            prompt: spec.prompt.clone(),
            driver: spec.driver.clone(),
            mcp_servers: spec.mcp_servers.clone(),
            tools: spec.tools.clone(),
            recipients: spec.recipients.clone(),
            network: spec.network,
        }
    }

    /// Takes one field over from `other`.
    fn take(&mut self, field: ConfigField, other: &Self) {
        match field {
            ConfigField::Prompt => self.prompt.clone_from(&other.prompt),
            ConfigField::Driver => self.driver.clone_from(&other.driver),
            ConfigField::McpServers => self.mcp_servers.clone_from(&other.mcp_servers),
            ConfigField::Tools => self.tools.clone_from(&other.tools),
            ConfigField::Recipients => self.recipients.clone_from(&other.recipients),
            ConfigField::Network => self.network = other.network,
        }
    }

    /// The digest of one field, to which a grant is bound.
    fn digest(&self, field: ConfigField) -> Result<Digest, NotCanonical> {
        fn of<T: Serialize + ?Sized>(value: &T) -> Result<Digest, NotCanonical> {
            digest(Encoding::Field, value)
        }
        match field {
            ConfigField::Prompt => of(&self.prompt),
            ConfigField::Driver => of(&self.driver),
            ConfigField::McpServers => of(&self.mcp_servers),
            ConfigField::Tools => of(&self.tools),
            ConfigField::Recipients => of(&self.recipients),
            ConfigField::Network => of(&self.network),
        }
    }

    /// How one field differs, as capabilities.
    pub fn changes(&self, after: &Self, field: ConfigField) -> Vec<CapabilityChange> {
        match field {
            ConfigField::Prompt => capability::text("prompt", &self.prompt, &after.prompt),
            ConfigField::Driver => capability::driver(&self.driver, &after.driver),
            ConfigField::McpServers => capability::mcp_servers(&self.mcp_servers, &after.mcp_servers),
            ConfigField::Tools => capability::tools(&self.tools, &after.tools),
            ConfigField::Recipients => {
                capability::recipients(self.recipients.as_ref(), after.recipients.as_ref())
            }
            ConfigField::Network => capability::network(self.network, after.network),
        }
    }
}

/// The outcome of [`compose`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The fields as they hold.
    pub fields: Fields,
    /// Where each comes from.
    pub origins: BTreeMap<ConfigField, Origin>,
    /// The fields that hold beyond the ceiling, with the digest of the spec's value.
    pub grants: Grants,
}

/// Lays a commit's overlay over the spec.
///
/// # Errors
/// Only when a value has no canonical form, which for these types means a fault in the program.
pub fn compose(spec: &AgentSpec, overlay: &Overlay, mode: &GrantMode) -> Result<Effective, NotCanonical> {
    let base = Fields::of_spec(spec);
    let defaults = Fields::of_spec(&AgentSpec::default());
    let wanted = overlaid(&base, overlay);
    let mut effective = Effective {
        fields: base.clone(),
        origins: BTreeMap::new(),
        grants: BTreeMap::new(),
    };
    for field in ConfigField::ALL {
        let by_default = if base.changes(&defaults, field).is_empty() {
            Origin::Default
        } else {
            Origin::Spec
        };
        let origin = if !is_set(overlay, field) {
            by_default
        } else if spec.locked.contains(&field) {
            Origin::Locked
        } else if !base.changes(&wanted, field).iter().any(|change| change.widens) {
            Origin::Commit
        } else {
            let ceiling = base.digest(field)?;
            let granted = match mode {
                GrantMode::Asked => true,
                GrantMode::Granted(grants) => grants.get(&field) == Some(&ceiling),
            };
            if granted {
                effective.grants.insert(field, ceiling);
                Origin::Granted
            } else {
                Origin::Lapsed
            }
        };
        if matches!(origin, Origin::Commit | Origin::Granted) {
            effective.fields.take(field, &wanted);
        }
        effective.origins.insert(field, origin);
    }
    Ok(effective)
}

fn is_set(overlay: &Overlay, field: ConfigField) -> bool {
    match field {
        ConfigField::Prompt => overlay.prompt.is_some(),
        ConfigField::Driver => overlay.driver.is_some(),
        ConfigField::McpServers => !overlay.mcp_servers.is_empty(),
        ConfigField::Tools => overlay.tools.is_some(),
        ConfigField::Recipients => overlay.recipients.is_some(),
        ConfigField::Network => overlay.network.is_some(),
    }
}

/// Maps merge by key, everything else replaces.
fn overlaid(base: &Fields, overlay: &Overlay) -> Fields {
    let mut fields = base.clone();
    if let Some(prompt) = &overlay.prompt {
        fields.prompt.clone_from(prompt);
    }
    if let Some(driver) = &overlay.driver {
        fields.driver.clone_from(driver);
    }
    for (name, server) in &overlay.mcp_servers {
        match server {
            Some(server) => fields.mcp_servers.insert(name.clone(), server.clone()),
            None => fields.mcp_servers.remove(name),
        };
    }
    if let Some(tools) = &overlay.tools {
        fields.tools.clone_from(tools);
    }
    if let Some(recipients) = &overlay.recipients {
        fields.recipients = Some(recipients.clone());
    }
    if let Some(network) = overlay.network {
        fields.network = network;
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt_overlay(text: &str) -> Overlay {
        Overlay {
            prompt: Some(text.to_owned()),
            ..Overlay::default()
        }
    }

    fn spec_with_prompt(text: &str) -> AgentSpec {
        AgentSpec {
            prompt: text.to_owned(),
            ..AgentSpec::default()
        }
    }

    #[test]
    fn without_a_grant_an_overlay_beyond_the_ceiling_does_not_hold() {
        let spec = spec_with_prompt("tend the wiki");
        let none = GrantMode::Granted(Grants::new());
        let effective = compose(&spec, &prompt_overlay("rule the world"), &none).unwrap();
        assert_eq!(effective.fields.prompt, "tend the wiki");
        assert_eq!(effective.origins[&ConfigField::Prompt], Origin::Lapsed);
    }

    #[test]
    fn a_grant_holds_until_the_operator_changes_the_field() {
        let overlay = prompt_overlay("tend the garden");
        let spec = spec_with_prompt("tend the wiki");
        let asked = compose(&spec, &overlay, &GrantMode::Asked).unwrap();
        assert_eq!(asked.origins[&ConfigField::Prompt], Origin::Granted);

        let granted = GrantMode::Granted(asked.grants);
        assert_eq!(
            compose(&spec, &overlay, &granted).unwrap().fields.prompt,
            "tend the garden"
        );

        let changed = spec_with_prompt("tend nothing");
        let after = compose(&changed, &overlay, &granted).unwrap();
        assert_eq!(after.fields.prompt, "tend nothing");
        assert_eq!(after.origins[&ConfigField::Prompt], Origin::Lapsed);
        assert!(
            after.grants.is_empty(),
            "a lapsed grant must not come back by itself"
        );
    }

    #[test]
    fn narrowing_needs_no_grant() {
        let spec = AgentSpec {
            network: Network::Host,
            ..AgentSpec::default()
        };
        let overlay = Overlay {
            network: Some(Network::None),
            ..Overlay::default()
        };
        let effective = compose(&spec, &overlay, &GrantMode::Granted(Grants::new())).unwrap();
        assert_eq!(effective.fields.network, Network::None);
        assert_eq!(effective.origins[&ConfigField::Network], Origin::Commit);
        assert!(effective.grants.is_empty());
    }

    #[test]
    fn a_locked_field_cannot_be_overlaid_even_when_asked_for() {
        let mut spec = spec_with_prompt("fixed");
        spec.locked.insert(ConfigField::Prompt);
        let effective = compose(&spec, &prompt_overlay("other"), &GrantMode::Asked).unwrap();
        assert_eq!(effective.fields.prompt, "fixed");
        assert_eq!(effective.origins[&ConfigField::Prompt], Origin::Locked);
    }

    #[test]
    fn servers_merge_by_name_and_null_removes_one() {
        let server = |command: &str| McpServerSpec {
            command: Some(command.to_owned()),
            ..McpServerSpec::default()
        };
        let mut spec = AgentSpec::default();
        spec.mcp_servers
            .insert("wiki".parse().unwrap(), server("/bin/wiki"));
        spec.mcp_servers
            .insert("old".parse().unwrap(), server("/bin/old"));
        let mut overlay = Overlay::default();
        overlay
            .mcp_servers
            .insert("new".parse().unwrap(), Some(server("/bin/new")));
        overlay.mcp_servers.insert("old".parse().unwrap(), None);
        let effective = compose(&spec, &overlay, &GrantMode::Asked).unwrap();
        let names: Vec<_> = effective
            .fields
            .mcp_servers
            .keys()
            .map(ServerName::as_str)
            .collect();
        assert_eq!(names, ["new", "wiki"]);
    }
}
