//! Building: the outcome is kept, good or bad, under the digest of what was asked for.

use shared::event::Level;
use shared::spec::BuilderKind;

use super::{Effect, event};
use crate::host::{Host, HostError};
use crate::model::change::Change;
use crate::model::records::{AgentLedger, BuildState};
use crate::model::step::Action;

pub(super) async fn carry_out(
    host: &Host,
    agent: &AgentLedger,
    action: &Action,
) -> Result<Effect, HostError> {
    let Action::Build {
        key,
        request,
        proposal,
    } = action
    else {
        return Ok(Effect::Gone("it builds nothing".to_owned()));
    };
    let record = &agent.record;
    let (name, uid) = (&record.name, record.uid);

    let built = host.builder.build(request).await;
    let now = host.clock.now();
    let (state, event) = match built {
        Ok(output) => {
            let message = format!("{name}: {} is built", request.commit.short());
            let event = event(name, Level::Info, "built", message, now);
            (BuildState::Built(Box::new(output)), event)
        }
        Err(error) if error.is_terminal() => {
            let error = error.chain();
            let whole = match host.builder.kind() {
                BuilderKind::Nix => format!(" (the whole log: hive logs {name} --build)"),
                BuilderKind::Plain => String::new(),
            };
            let source = proposal.map_or_else(
                || "what the spec asks for".to_owned(),
                |number| format!("proposal {number}"),
            );
            let message = format!("{name}: the build of {source} failed: {error}{whole}");
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
