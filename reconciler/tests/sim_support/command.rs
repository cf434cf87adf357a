//! What people, agents and the machine do to a hive.

use reconciler::control::command::{Because, CommandError};
use reconciler::control::drafts::Asking;
use reconciler::control::{Key, Reconciler};
use reconciler::host::fake::World;
use reconciler::host::{Imported, Limits, UnitState};
use reconciler::ledger::{DecideError, Ledger, LedgerError};
use reconciler::model::order::Verb;
use reconciler::model::records::AgentRecord;
use shared::AgentName;
use shared::draft::SpawnRequest;
use shared::gate::{Asker, GateState};
use shared::order::OrderRequest;
use shared::spec::RunState;

use super::moves::Move;

fn because() -> Because {
    Because {
        by: "unix:operator".into(),
        reason: String::new(),
        until: None,
    }
}

fn asking(manager: &str) -> Asking {
    Asking::Agent(name(manager))
}

/// An agent with this overlay, and one file.
fn request(agent: &str, overlay: &str) -> SpawnRequest {
    SpawnRequest {
        name: name(agent),
        config: serde_json::from_str(overlay).unwrap(),
        files: [("notes/first.md".parse().unwrap(), "read this".to_owned())].into(),
        reason: "because".to_owned(),
    }
}

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

/// A command was carried out or refused with a reason. Anything else is a failure of the daemon.
fn answered<T>(result: Result<T, CommandError>) -> Result<(), LedgerError> {
    match result {
        Err(CommandError::Ledger(error)) => Err(error),
        // Whoever asked was told that it failed, and asks again.
        Err(CommandError::Host(_)) => Err(LedgerError::Closed),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the ledger knows of an agent that has a repo.
async fn record(ledger: &Ledger, agent: &AgentName) -> Option<AgentRecord> {
    let known = ledger.agent(agent).await.unwrap()?;
    known.record.seed.is_some().then_some(known.record)
}

/// What happens without asking the daemon, and the key that somebody then asks it to look at.
pub(super) async fn happens(world: &World, ledger: &Ledger, step: &Move) -> Option<Key> {
    let now = world.lock().now;
    match step {
        Move::Spec(text) => {
            world.lock().spec = Ok(text.clone().into_bytes());
            Some(Key::Hive)
        }
        Move::SpecVanishes => {
            world.lock().spec = Err("no such file".to_owned());
            Some(Key::Hive)
        }
        Move::Kill(agent) => {
            world.kill(&name(agent));
            Some(Key::Agent(name(agent)))
        }
        Move::OutOfMemory(agent) => {
            world.kill_for_memory(&name(agent));
            Some(Key::Agent(name(agent)))
        }
        Move::ChangeLimits(agent) => {
            let tiny = Limits {
                memory: 1 << 20,
                cpu: 10_000,
                tasks: 1,
            };
            world.change_limits(&name(agent), tiny);
            Some(Key::Agent(name(agent)))
        }
        Move::TamperMain(agent) => {
            let agent = name(agent);
            let record = record(ledger, &agent).await?;
            world.tamper_main(&agent, record.seed);
            Some(Key::Agent(agent))
        }
        Move::TurnBegins(agent) => {
            let agent = name(agent);
            if matches!(world.unit(&agent), UnitState::Running { .. }) {
                world.lock().busy.insert(agent, now);
            }
            None
        }
        Move::TurnEnds(agent) => {
            let agent = name(agent);
            world.lock().busy.remove(&agent);
            Some(Key::Agent(agent))
        }
        _ => None,
    }
}

/// Asks the daemon for something. An error means that nobody knows whether it was carried out.
pub(super) async fn ask(world: &World, reconciler: &Reconciler, step: &Move) -> Result<(), LedgerError> {
    let ledger = reconciler.ledger();
    match step {
        Move::Propose(agent, overlay) => {
            let agent = name(agent);
            let main = record(ledger, &agent)
                .await
                .and_then(|record| record.main().cloned());
            match main {
                Some(parent) => propose(world, reconciler, &agent, &parent, overlay).await,
                None => Ok(()),
            }
        }
        Move::ProposeOnSeed(agent, overlay) => {
            let agent = name(agent);
            match record(ledger, &agent).await.and_then(|record| record.seed) {
                Some(parent) => propose(world, reconciler, &agent, &parent, overlay).await,
                None => Ok(()),
            }
        }
        Move::Approve => decide(reconciler, true).await,
        Move::Deny => decide(reconciler, false).await,
        Move::Stop(agent) => answered(
            reconciler
                .set_run(&name(agent), RunState::Stopped, because())
                .await,
        ),
        Move::Start(agent) => answered(
            reconciler
                .set_run(&name(agent), RunState::Running, because())
                .await,
        ),
        Move::Destroy(agent) => answered(reconciler.destroy(&name(agent), None, false, because()).await),
        Move::Purge(agent) => answered(reconciler.destroy(&name(agent), None, true, because()).await),
        Move::Restore(agent) => answered(reconciler.restore(&name(agent), None, because()).await),
        Move::Rollback(agent) => answered(reconciler.rollback(&name(agent), None, because()).await),
        Move::Draft(by, agent) => answered(reconciler.make_draft(asking(by), &name(agent)).await),
        Move::Stage(by, agent, path, text) => {
            let (path, bytes) = (path.parse().unwrap(), text.as_bytes().to_vec());
            answered(reconciler.stage(asking(by), &name(agent), path, bytes).await)
        }
        Move::DraftCommit(by, agent, overlay) => {
            let agent = name(agent);
            match record(ledger, &agent).await.and_then(|record| record.seed) {
                Some(seed) => {
                    let commit = world.commit(&agent, &seed, overlay);
                    answered(reconciler.set_draft_commit(asking(by), &agent, commit).await)
                }
                None => Ok(()),
            }
        }
        Move::Offer(by, agent) => answered(reconciler.offer(asking(by), &name(agent), "because").await),
        Move::GiveUp(by, agent) => answered(reconciler.give_up(asking(by), &name(agent)).await),
        Move::SpawnOnce(by, agent, overlay) => {
            answered(reconciler.spawn(asking(by), request(agent, overlay)).await)
        }
        Move::OperatorSpawns(agent, overlay) => {
            let by = Asking::Operator("unix:operator".to_owned());
            answered(reconciler.spawn(by, request(agent, overlay)).await)
        }
        Move::Order(by, agent, what) => {
            let verb = [
                Verb::Start,
                Verb::Stop,
                Verb::Restart,
                Verb::Rebuild,
                Verb::Archive,
            ]
            .into_iter()
            .find(|verb| verb.as_str() == *what);
            let request = OrderRequest {
                reason: "because".to_owned(),
                // Whoever gets no answer gives the same order once more.
                dedupe: Some((*what).to_owned()),
            };
            answered(
                reconciler
                    .order(&name(by), &name(agent), verb.unwrap(), request)
                    .await,
            )
        }
        Move::Suspend(agent) => answered(reconciler.suspend(&name(agent), because()).await),
        Move::Resume(agent) => answered(reconciler.resume(&name(agent), because()).await),
        Move::RestartAgent(agent) => answered(reconciler.restart(&name(agent), because()).await),
        Move::Retry(agent) => answered(reconciler.retry(&name(agent), because()).await),
        _ => Ok(()),
    }
}

async fn propose(
    world: &World,
    reconciler: &Reconciler,
    agent: &AgentName,
    parent: &shared::CommitOid,
    overlay: &str,
) -> Result<(), LedgerError> {
    let commit = world.commit(agent, parent, overlay);
    let imported = Imported {
        commit,
        title: overlay.to_owned(),
        reason: String::new(),
    };
    answered(reconciler.propose(agent, imported, Asker::Agent).await)
}

/// Decides about every open gate.
async fn decide(reconciler: &Reconciler, approve: bool) -> Result<(), LedgerError> {
    for gate in reconciler.ledger().gates(false).await?.complete()? {
        if gate.state != GateState::Open {
            continue;
        }
        let by = "unix:operator".to_owned();
        let decided = reconciler.decide(gate.id, approve, gate.digest, by, "because".into());
        match decided.await {
            Ok(_) | Err(DecideError::NotOpen { .. } | DecideError::Moved { .. }) => {}
            Err(DecideError::Ledger(error)) => return Err(error),
            Err(error) => panic!("{error}"),
        }
    }
    Ok(())
}
