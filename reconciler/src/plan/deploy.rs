//! A deployment: what it interrupts, which class of permission it needs, and what the operator is shown.

use std::collections::BTreeSet;

use shared::canonical::NotCanonical;
use shared::gate::{Asker, CapabilityChange, GateClass, GateView};
use shared::{AgentName, Digest};

use super::agent::Planner;
use crate::model::build::BuildOutput;
use crate::model::records::Proposal;
use crate::model::step::{Action, Authority, Interruption};

impl<'a> Planner<'a> {
    pub(super) fn deployed_output(&self) -> Option<&'a BuildOutput> {
        self.inputs.ledger.record.deployed.as_ref().map(|d| &d.output)
    }

    fn interruption(&self, output: &BuildOutput) -> Interruption {
        match self.deployed_output() {
            None => Interruption::None,
            Some(now) if now.toplevel != output.toplevel => Interruption::Restart,
            Some(now) if now.config_digest != output.config_digest => Interruption::Reload,
            Some(_) => Interruption::None,
        }
    }

    /// `baseUpdate` when nothing was declared anew about the agent; `reload*` when nothing but MCP servers changes and
    /// no restart is needed; else `deploy*`. Another commit can bring other files along, so only a change of the spec is
    /// a mere reload.
    pub(super) fn deploy_class(&self, output: &BuildOutput) -> GateClass {
        if self.is_base_update(output) {
            return GateClass::BaseUpdate;
        }
        let changes = output.capability_diff(self.deployed_output());
        let widens = changes.iter().any(|change| change.widens);
        let same_commit = self
            .deployed_output()
            .is_some_and(|now| now.commit == output.commit);
        let only_servers = same_commit
            && !changes.is_empty()
            && changes
                .iter()
                .all(|change| change.field.starts_with("mcpServers."))
            && self.interruption(output) == Interruption::Reload;
        match (only_servers, widens) {
            (true, false) => GateClass::ReloadWithin,
            (true, true) => GateClass::ReloadWidens,
            (false, false) => GateClass::DeployWithin,
            (false, true) => GateClass::DeployWidens,
        }
    }

    pub(super) fn deploy(
        &mut self,
        build: Digest,
        output: &BuildOutput,
        proposal: Option<&Proposal>,
        asked_by: Asker,
    ) -> Result<(), NotCanonical> {
        let ledger = self.inputs.ledger;
        let Some(main) = ledger.record.main() else {
            return Ok(());
        };
        let before = self.deployed_output();
        let interrupts = self.interruption(output);
        let class = self.deploy_class(output);
        let action = Action::Deploy {
            build,
            system: output.system.clone(),
            from: before.map(|b| b.system.clone()),
            commit: output.commit.clone(),
            main: main.clone(),
            proposal: proposal.map(|p| p.number),
            grants: output.grants.clone(),
            interrupts,
            watched: altered_servers(before, output),
        };
        let view = self.deploy_view(output, before, proposal, interrupts, class);
        self.step(action, Authority::Class { class, asked_by }, view)
    }

    fn deploy_view(
        &self,
        output: &BuildOutput,
        before: Option<&BuildOutput>,
        proposal: Option<&Proposal>,
        interrupts: Interruption,
        class: GateClass,
    ) -> GateView {
        let name = self.name();
        let changes: Vec<CapabilityChange> = output.capability_diff(before);
        let widening = changes.iter().filter(|change| change.widens).count();
        let source = match proposal {
            Some(proposal) => format!("proposal {} of {name}", proposal.number),
            None if class == GateClass::BaseUpdate => {
                format!("an update of what all agents are built upon, for {name}")
            }
            None => format!("what the spec says for {name}"),
        };
        let power = match widening {
            0 => "within its capabilities".to_owned(),
            1 => "widening 1 capability".to_owned(),
            n => format!("widening {n} capabilities"),
        };
        let closure_diff = match before {
            None => vec![format!("new: {}", output.system)],
            Some(before) => vec![format!("{} -> {}", before.system, output.system)],
        };
        GateView {
            summary: format!("deploy {source}, {power}"),
            title: proposal.map(|p| p.title.clone()),
            reason: proposal
                .map(|p| p.reason.clone())
                .filter(|reason| !reason.is_empty()),
            commit_diff: String::new(),
            closure_diff,
            capabilities: changes,
            steps: deploy_steps(name, interrupts, proposal.is_some()),
            ..GateView::default()
        }
    }
}

/// MCP servers that `output` adds or alters: a deployment is good once they are healthy.
pub(super) fn altered_servers(
    before: Option<&BuildOutput>,
    output: &BuildOutput,
) -> BTreeSet<shared::ServerName> {
    let old = before.map(|b| &b.config.mcp_servers);
    let unchanged = |name, server| old.and_then(|old| old.get(name)) == Some(server);
    let servers = output.config.mcp_servers.iter();
    servers
        .filter(|(name, server)| !unchanged(*name, *server))
        .map(|(name, _)| name.clone())
        .collect()
}

fn deploy_steps(name: &AgentName, interrupts: Interruption, proposal: bool) -> Vec<String> {
    let mut steps = Vec::new();
    if proposal {
        steps.push(format!("main of {name}'s config repo moves to the commit"));
    }
    steps.push("launch file, tree and config are written".to_owned());
    steps.push(match interrupts {
        Interruption::Restart => {
            format!("{name} restarts at its next turn boundary: what it is started from changes")
        }
        Interruption::Reload => {
            format!("{name} reloads its config at its next turn boundary, without a restart")
        }
        Interruption::None => format!("{name} starts from it when it should run"),
    });
    steps.push(format!(
        "{name} is on probation; when it does not become healthy, the last good system comes back"
    ));
    steps
}
