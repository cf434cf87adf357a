//! What goes into a build and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use shared::canonical::{Encoding, NotCanonical, digest};
use shared::config::{AgentConfig, ConfigFile, EgressConfig, Overlay};
use shared::gate::CapabilityChange;
use shared::spec::{
    AgentSpec, BuilderKind, BuilderSpec, ConfigField, DriverKind, Network, OperatorSpec, ProgramsSpec,
};
use shared::status::Origin;
use shared::{AgentName, AgentUid, CommitOid, Digest};

use crate::host::{Launch, LaunchFile};
use crate::model::base::MadeFrom;
use crate::model::capability;
use crate::model::effective::{Fields, compose};
use crate::model::user_range::UserRange;

/// A field of the overlay may go beyond the spec's ceiling as long as the spec's own value has this digest.
pub type Grants = BTreeMap<ConfigField, Digest>;

/// Everything a system is made from. Its digest is the key under which the outcome is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildRequest {
    /// The agent.
    pub agent: AgentName,
    /// Its uid.
    pub uid: AgentUid,
    /// The hive's name.
    pub hive: String,
    /// The human.
    pub operator: OperatorSpec,
    /// The commit of the config repo.
    pub commit: CommitOid,
    /// The agent as declared.
    pub spec: AgentSpec,
    /// The harness program.
    pub harness: Utf8PathBuf,
    /// The programs that drivers run.
    #[serde(default, skip_serializing_if = "ProgramsSpec::is_empty")]
    pub programs: ProgramsSpec,
    /// The model provider's address, if the operator declared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_url: Option<String>,
    /// What the Nix builder takes besides; absent with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nix: Option<NixInputs>,
    /// The user ids of its container, where agents run in containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_range: Option<UserRange>,
    /// Whether the model gateway has the provider's key; absent in requests of versions without a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provides_key: Option<bool>,
    /// What the overlay may do beyond the ceiling.
    pub grants: GrantMode,
}

/// What the operator declared for all builds with Nix: absolute paths, and hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NixInputs {
    /// The source of nixpkgs.
    pub nixpkgs: String,
    /// The module of all guests.
    pub guest_module: String,
    /// Further inputs, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Hosts that builds may fetch from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
}

impl NixInputs {
    /// What a spec declares; `None`: it builds without Nix.
    pub fn of(builder: &BuilderSpec) -> Option<Self> {
        let BuilderSpec {
            kind: BuilderKind::Nix,
            nixpkgs: Some(nixpkgs),
            guest_module: Some(guest_module),
            max_builds: _,
            inputs,
            hosts,
        } = builder.clone()
        else {
            return None;
        };
        Some(Self {
            nixpkgs,
            guest_module,
            inputs,
            hosts,
        })
    }
}

/// What the overlay may do beyond the ceiling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GrantMode {
    /// What earlier gates granted; everything else lapses.
    Granted(Grants),
    /// Everything: the outcome is what a gate asks for.
    Asked,
}

/// A built system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildOutput {
    /// The realised system: an absolute path.
    pub system: String,
    /// The commit it was built from.
    pub commit: CommitOid,
    /// The digest of `launch`.
    pub toplevel: Digest,
    /// What the agent is started from.
    pub launch: Launch,
    /// The digest of `config`.
    pub config_digest: Digest,
    /// What the harness loads.
    pub config: AgentConfig,
    /// Where each value comes from.
    pub origins: BTreeMap<ConfigField, Origin>,
    /// The overlay fields in force that go beyond the ceiling, with the digest of the spec's value.
    pub grants: Grants,
    /// Host-side permissions that are not part of `config` or `launch`, for the capability diff.
    pub host_side: HostSide,
    /// What it was made from; absent in what earlier versions built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<MadeFrom>,
}

/// What an agent is given besides its config and launch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSide {
    /// Hosts it may reach.
    pub egress: BTreeSet<String>,
}

/// The part of a declared agent that a build depends on. Whether it should run, when it may be interrupted and what it
/// may spend are no inputs: a change of these builds nothing and asks nobody.
pub fn build_inputs(spec: &AgentSpec) -> AgentSpec {
    let defaults = AgentSpec::default();
    AgentSpec {
        run: defaults.run,
        drain: defaults.drain,
        budget: defaults.budget,
        ..spec.clone()
    }
}

impl BuildRequest {
    /// The key under which the outcome is kept: the same inputs are built once.
    ///
    /// # Errors
    /// Only when a value has no canonical form, which means a fault in the program.
    pub fn key(&self) -> Result<Digest, NotCanonical> {
        let spec = build_inputs(&self.spec);
        digest(Encoding::Build, &Self { spec, ..self.clone() })
    }
}

/// Puts a system together from its inputs. Pure: a builder only writes down what this returns.
///
/// `locate` turns the system's digest into its absolute path.
///
/// # Errors
/// Only when a value has no canonical form, which means a fault in the program.
pub fn assemble(
    request: &BuildRequest,
    overlay: &Overlay,
    locate: impl FnOnce(&Digest) -> String,
) -> Result<BuildOutput, NotCanonical> {
    let spec = &request.spec;
    let effective = compose(spec, overlay, &request.grants)?;
    let Fields {
        prompt,
        driver,
        mcp_servers,
        tools,
        recipients,
        network,
    } = effective.fields;
    let claude = (driver.kind == DriverKind::Claude)
        .then(|| request.programs.claude.clone())
        .flatten();
    // On any other network it cannot be reached from inside.
    let model_url = (driver.kind == DriverKind::Claude && network == Network::Host)
        .then(|| request.model_url.clone())
        .flatten();
    let launch = Launch {
        agent: request.agent.clone(),
        uid: request.uid,
        harness: request.harness.clone(),
        claude: claude.map(Utf8PathBuf::from),
        driver: driver.kind,
        network,
        binds: spec.binds.clone(),
        limits: spec.limits.clone(),
        secrets: spec.secrets.clone(),
        user_range: request.user_range,
        system: (request.user_range.is_some() || request.nix.is_some())
            .then(|| spec.system.clone().map(Utf8PathBuf::from))
            .flatten(),
    };
    let provides_key = request.provides_key.filter(|_| launch.goes_out_by_sockets());
    let config = AgentConfig {
        agent: request.agent.clone(),
        uid: request.uid,
        hive: request.hive.clone(),
        operator: request.operator.clone(),
        role: spec.role,
        prompt,
        driver,
        mcp_servers,
        tools,
        recipients,
        max_turn_minutes: spec.max_turn_minutes,
        model_url,
        egress: provides_key.map(|provides_key| EgressConfig { provides_key }),
        secret_env: spec.secret_env.clone(),
        commit: request.commit.clone(),
    };
    let host_side = HostSide {
        egress: spec.egress.clone(),
    };
    let toplevel = digest(Encoding::Toplevel, &launch)?;
    let config_digest = digest(Encoding::Config, &config)?;
    let system = digest(Encoding::System, &(&toplevel, &config_digest, &host_side))?;
    Ok(BuildOutput {
        system: locate(&system),
        commit: request.commit.clone(),
        toplevel,
        launch,
        config_digest,
        config,
        origins: effective.origins,
        grants: effective.grants,
        host_side,
        made_from: Some(request.made_from()?),
    })
}

impl BuildOutput {
    /// Whether it is what its digests say, all but `grants`, `origins` and `made_from`, which no digest covers.
    pub fn is_intact(&self) -> bool {
        let parts = (
            digest(Encoding::Toplevel, &self.launch),
            digest(Encoding::Config, &self.config),
            digest(
                Encoding::System,
                &(&self.toplevel, &self.config_digest, &self.host_side),
            ),
        );
        let (Ok(toplevel), Ok(config), Ok(system)) = parts else {
            return false;
        };
        let named = self.system.rsplit('/').next() == Some(system.as_str());
        toplevel == self.toplevel
            && config == self.config_digest
            && named
            && self.config.commit == self.commit
    }

    /// The launch file of this system.
    pub fn launch_file(&self) -> LaunchFile {
        LaunchFile {
            digest: self.toplevel.clone(),
            launch: self.launch.clone(),
        }
    }

    /// The config file of this system.
    pub fn config_file(&self) -> ConfigFile {
        ConfigFile {
            digest: self.config_digest.clone(),
            config: self.config.clone(),
        }
    }

    fn fields(&self) -> Fields {
        let AgentConfig {
            prompt,
            driver,
            mcp_servers,
            tools,
            recipients,
            ..
        } = self.config.clone();
        Fields {
            prompt,
            driver,
            mcp_servers,
            tools,
            recipients,
            network: self.launch.network,
        }
    }

    /// What an agent can do with this system that it could not do with `before`, and the reverse.
    pub fn capability_diff(&self, before: Option<&Self>) -> Vec<CapabilityChange> {
        let empty = Fields::of_spec(&AgentSpec::default());
        let fields_before = before.map_or(empty, Self::fields);
        let fields_after = self.fields();
        let mut changes: Vec<_> = ConfigField::ALL
            .into_iter()
            .flat_map(|field| fields_before.changes(&fields_after, field))
            .collect();
        let none = HostSide::default();
        let host_before = before.map_or(&none, |b| &b.host_side);
        changes.extend(capability::set(
            "egress",
            &host_before.egress,
            &self.host_side.egress,
        ));
        let (none, no_env) = (BTreeMap::new(), BTreeMap::new());
        changes.extend(capability::secrets(
            before.map_or(&none, |b| &b.launch.secrets),
            &self.launch.secrets,
        ));
        changes.extend(capability::secret_env(
            before.map_or(&no_env, |b| &b.config.secret_env),
            &self.config.secret_env,
        ));
        changes.extend(capability::binds(
            before.map_or(&[], |b| &b.launch.binds),
            &self.launch.binds,
        ));
        let default_limits = shared::spec::LimitsSpec::default();
        changes.extend(capability::limits(
            before.map_or(&default_limits, |b| &b.launch.limits),
            &self.launch.limits,
        ));
        let role_before = before.map_or(shared::spec::Role::Worker, |b| b.config.role);
        changes.extend(capability::role(role_before, self.config.role));
        if let Some(before) = before {
            let program = |path: &Option<Utf8PathBuf>| path.clone().unwrap_or_default().into_string();
            let url = |url: &Option<String>| url.clone().unwrap_or_default();
            let (old, new) = (&before.launch, &self.launch);
            for (what, old, new) in [
                ("harness", old.harness.to_string(), new.harness.to_string()),
                ("programs.claude", program(&old.claude), program(&new.claude)),
                ("system", program(&old.system), program(&new.system)),
                (
                    "egress.modelUrl",
                    url(&before.config.model_url),
                    url(&self.config.model_url),
                ),
            ] {
                changes.extend(capability::text(what, &old, &new));
            }
        }
        changes
    }
}
