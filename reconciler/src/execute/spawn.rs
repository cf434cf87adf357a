//! Drafts: their repo, and the one step that makes one an agent.

use serde_json::json;
use shared::config::OVERLAY_FILE;
use shared::event::Level;
use shared::topic::Topic;
use shared::{CommitOid, ProposalNumber};

use super::deploy::PROBATION_SECS;
use super::{Effect, event, seed_files};
use crate::host::{Host, HostError};
use crate::ledger::Ledger;
use crate::model::build::BuildOutput;
use crate::model::change::{Change, Notice};
use crate::model::draft::{Rules, Standing, standing};
use crate::model::records::{AgentLedger, AgentLife, AgentRecord, BuildState, Deployed, Probation};
use crate::model::step::Action;
use crate::plan::schedule::Ready;

/// Makes the draft's repo, and its overlay the first commit.
pub(super) async fn make(host: &Host, agent: &AgentLedger, action: &Action) -> Result<Effect, HostError> {
    let Action::MakeDraft { overlay, at } = action else {
        return Ok(Effect::Gone("it makes no draft".to_owned()));
    };
    let (name, uid) = (&agent.record.name, agent.record.uid);
    let mut files = seed_files(name);
    let seed = host.repos.ensure(name, &files).await?;
    let mut changes = vec![Change::Seeded {
        uid,
        commit: seed.clone(),
    }];
    if let Some(overlay) = overlay {
        let text = serde_json::to_string_pretty(overlay)
            .map_err(|error| HostError::refused(OVERLAY_FILE, error.to_string()))?;
        files.insert(OVERLAY_FILE.to_owned(), format!("{text}\n"));
        let commit = host
            .repos
            .commit(name, &seed, &files, "Config asked for", *at)
            .await?;
        changes.push(Change::DraftCommit { uid, commit });
    }
    let message = format!("the draft of {name} has its config repo");
    changes.push(event(name, Level::Info, "draftMade", message, host.clock.now()));
    Ok(Effect::Done(changes))
}

/// Makes an approved draft an agent.
///
/// Everything that was approved is checked here, on what the ledger says after the approval was used up: from then on
/// nobody can change the draft. The files are laid down before the one transaction that makes it an agent, so it cannot
/// run without them.
pub(super) async fn spawn(
    host: &Host,
    ledger: &Ledger,
    agent: &AgentLedger,
    ready: &Ready,
    action: &Action,
    rules: Rules,
) -> Result<Effect, HostError> {
    let Action::SpawnDraft {
        name,
        build,
        system,
        seed,
        commit,
        grants,
        files,
        watched,
    } = action
    else {
        return Ok(Effect::Gone("it spawns nothing".to_owned()));
    };
    let Some(gate) = ready.gate else {
        return Ok(Effect::Gone("no gate allows it".to_owned()));
    };
    let uid = agent.record.uid;
    let records = ledger.agents().await;
    let records = records
        .map_err(|error| HostError::failed("the ledger", crate::error_chain(&error)))?
        .items;
    let Some(record) = records.iter().find(|record| record.uid == uid) else {
        return Ok(Effect::Gone("the draft is gone".to_owned()));
    };
    if let Some(why) = moved(record, action) {
        return Ok(Effect::Gone(why.to_owned()));
    }
    match standing(record, &records, rules) {
        Standing::Fine => {}
        Standing::Named => return Ok(Effect::Gone("the spec names the agent meanwhile".to_owned())),
        Standing::Void(why) => return Ok(Effect::Gone(why)),
    }
    if !host.repos.is_ancestor(name, seed, commit).await? {
        return Ok(Effect::Gone(
            "the commit does not descend from the draft's seed".to_owned(),
        ));
    }
    let output = match agent.builds.get(build) {
        Some(BuildState::Built(output)) if output.system == *system && output.grants == *grants => output,
        _ => {
            return Ok(Effect::Gone(
                "the approved system is not the one that was built".to_owned(),
            ));
        }
    };
    let present = host.builder.present(std::slice::from_ref(system)).await?;
    if present.get(system) != Some(&true) {
        return Err(HostError::failed(
            system.clone(),
            "the approved system is gone; it will be built again",
        ));
    }
    host.folders.prepare(name).await?;
    if !files.is_empty() {
        host.staging.lay_down(name, uid, files).await?;
    }
    let now = host.clock.now();
    let deployed = Deployed {
        output: (**output).clone(),
        proposal: ProposalNumber(0),
        gate,
        at: now,
    };
    let probation = Probation {
        system: system.clone(),
        since: now,
        window_secs: PROBATION_SECS,
        active_secs: 0,
        active_since: None,
        failed_starts: 0,
        watched: watched.clone(),
        gate,
        proposal: None,
        updates_base: false,
    };
    Ok(Effect::Done(spawned(record, output, deployed, probation)))
}

/// Why the draft is not what was approved any more.
fn moved(record: &AgentRecord, action: &Action) -> Option<&'static str> {
    let Action::SpawnDraft {
        name,
        seed,
        commit,
        files,
        ..
    } = action
    else {
        return Some("it spawns nothing");
    };
    let is_commit = |prepared: Option<&CommitOid>| prepared.unwrap_or(seed) == commit;
    match &record.draft {
        _ if record.life != AgentLife::Draft || record.deployed.is_some() => Some("it is no draft any more"),
        _ if record.name != *name || record.seed.as_ref() != Some(seed) => Some("it is another draft"),
        None => Some("the draft is gone"),
        Some(draft) if draft.offer.is_none() => Some("the draft is not offered any more"),
        Some(draft) if draft.files != *files || !is_commit(draft.commit.as_ref()) => {
            Some("the draft was changed meanwhile")
        }
        Some(_) => None,
    }
}

fn spawned(
    record: &AgentRecord,
    output: &BuildOutput,
    deployed: Deployed,
    probation: Probation,
) -> Vec<Change> {
    let (uid, name) = (record.uid, &record.name);
    let (gate, at) = (deployed.gate, deployed.at);
    let owner = record.draft.as_ref().map(|draft| draft.owner.to_string());
    let short = crate::plan::view::short_system(&output.system);
    let data = json!({ "system": output.system, "commit": output.commit, "gate": gate, "owner": owner });
    vec![
        Change::Life {
            uid,
            life: AgentLife::Active,
        },
        Change::Deployed {
            uid,
            deployed: Some(Box::new(deployed)),
        },
        Change::Probation {
            uid,
            probation: Some(probation),
        },
        Change::Event {
            agent: Some(name.clone()),
            level: Level::Info,
            kind: "spawned",
            message: format!("{name} is spawned (system {short}, gate {gate})"),
            data,
            at,
        },
        Change::NotifyManagers {
            about: name.clone(),
            notice: Notice {
                topic: Topic::Spawned,
                body: format!("{name} was spawned"),
                dedupe: format!("{uid}:spawned"),
                at,
            },
        },
    ]
}
