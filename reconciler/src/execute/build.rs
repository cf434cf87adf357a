//! Building: the outcome is kept, good or bad, under the digest of what was asked for.

use std::collections::BTreeSet;

use shared::ProposalNumber;
use shared::event::Level;
use shared::spec::BuilderKind;

use super::{Effect, event};
use crate::host::{Host, HostError};
use crate::model::change::Change;
use crate::model::records::{AgentLedger, BuildState};
use crate::model::step::Action;

fn source(proposal: Option<ProposalNumber>) -> String {
    match proposal {
        Some(number) => format!("proposal {number}"),
        None => "what the spec asks for".to_owned(),
    }
}

pub(super) async fn carry_out(
    host: &Host,
    agent: &AgentLedger,
    action: &Action,
) -> Result<Effect, HostError> {
    let Action::Build {
        key,
        request,
        proposal,
        hosts,
    } = action
    else {
        return Ok(Effect::Gone("it builds nothing".to_owned()));
    };
    let record = &agent.record;
    let (name, uid) = (&record.name, record.uid);

    let mut allowed = request.clone();
    if let Some(nix) = &mut allowed.nix {
        nix.hosts.extend(hosts.iter().cloned());
    }
    let built = host.builder.build(&allowed).await;
    let now = host.clock.now();
    let (state, event) = match built {
        Ok(output) => {
            let message = format!("{name}: {} is built", request.commit.short());
            let event = event(name, Level::Info, "built", message, now);
            (BuildState::Built(Box::new(output)), event)
        }
        Err(HostError::WantsHosts { hosts: wanted, .. }) => {
            // What was agreed to is asked about again together with the rest: the gate names all that a build wants.
            let wanted: BTreeSet<String> = wanted.union(hosts).cloned().collect();
            let names = wanted.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!(
                "{name}: the build of {} wants to fetch from {names}, which builder.hosts does not list: a gate asks about \
                 it",
                source(*proposal)
            );
            (
                BuildState::Wants { hosts: wanted },
                event(name, Level::Info, "buildWantsHosts", message, now),
            )
        }
        Err(error) if error.is_terminal() => {
            let error = error.chain();
            let whole = match host.builder.kind() {
                BuilderKind::Nix => format!(" (the whole log: hive logs {name} --build)"),
                BuilderKind::Plain => String::new(),
            };
            let message = format!(
                "{name}: the build of {} failed: {error}{whole}",
                source(*proposal)
            );
            (
                BuildState::Failed { error },
                event(name, Level::Warning, "buildFailed", message, now),
            )
        }
        Err(error) => return Err(error),
    };
    let mut changes = vec![
        Change::Built {
            uid,
            key: key.clone(),
            state,
            at: now,
        },
        event,
    ];
    if record.rebuild && proposal.is_none() {
        changes.push(Change::Rebuild { uid, wanted: false });
    }
    Ok(Effect::Done(changes))
}
