//! What the ledger promises, tested on real files.

mod agents;
mod attempts;
mod damage;
mod egress;
mod gates;
mod groups;
mod opening;
mod orders;
mod recovery;
mod retention;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::json;
use shared::agent_api::ProposalPhase;
use shared::canonical::{self, Encoding};
use shared::gate::{Asker, GateClass, GateView};
use shared::{AgentName, AgentUid, CommitOid, Digest, GateId, HiveId, ProposalNumber};
use tempfile::TempDir;
use uuid::Uuid;

use super::Ledger;
use crate::model::build::{BuildOutput, HostSide};
use crate::model::change::Change;
use crate::model::gates::{GateAction, NewGate};
use crate::model::records::{AgentOrigin, Deployed, Mark, Proposal};
use crate::model::step::{Action, Authority, Step};

/// A ledger in a folder that goes with it.
struct Desk {
    ledger: Ledger,
    path: Utf8PathBuf,
    _folder: TempDir,
}

impl Desk {
    async fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = db_in(&folder);
        Self {
            ledger: Ledger::open(&path, now(), hive_id()).await.expect("a new ledger"),
            path,
            _folder: folder,
        }
    }

    /// With `alice`, whose uid is `uid(1)`.
    async fn with_alice() -> Self {
        let desk = Self::new().await;
        desk.apply(vec![register("alice", 1)]).await;
        desk
    }

    async fn apply(&self, changes: Vec<Change>) {
        self.ledger.apply(changes).await.expect("changes apply");
    }

    async fn open_gate(&self, gate: NewGate) -> GateId {
        let actions = vec![GateAction::Open(Box::new(gate))];
        self.ledger
            .sync_gates(actions, now())
            .await
            .expect("a gate opens")[0]
    }

    async fn approve(&self, id: GateId, digest: &Digest) {
        self.ledger
            .decide(id, true, "unix:root".into(), String::new(), digest.clone(), now())
            .await
            .expect("a decision");
    }

    /// A connection beside the ledger's own.
    fn raw(&self) -> Connection {
        Connection::open(&self.path).expect("a second connection")
    }
}

fn db_in(folder: &TempDir) -> Utf8PathBuf {
    Utf8Path::from_path(folder.path())
        .expect("a UTF-8 path")
        .join("hive.db")
}

/// A copy of the file and its log as a crash at this moment would leave them.
fn crash_copy(path: &Utf8Path) -> (TempDir, Utf8PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let to = db_in(&folder);
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{path}{suffix}"), format!("{to}{suffix}")).expect("a copy");
    }
    (folder, to)
}

fn now() -> Timestamp {
    "2026-03-01T12:00:00.123456789Z".parse().expect("a time")
}

fn days_later(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

fn hive_id() -> HiveId {
    HiveId(Uuid::from_u128(7))
}

fn uid(number: u128) -> AgentUid {
    AgentUid(Uuid::from_u128(number))
}

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn digest(text: &str) -> Digest {
    canonical::digest(Encoding::Effect, text).expect("a digest")
}

fn commit(digit: char) -> CommitOid {
    digit.to_string().repeat(40).parse().expect("a commit")
}

fn register(agent: &str, number: u128) -> Change {
    Change::Register {
        name: name(agent),
        uid: uid(number),
        origin: AgentOrigin::Spec,
        at: now(),
    }
}

fn mark() -> Mark {
    Mark {
        at: now(),
        gate: None,
        digest: None,
        by: None,
        reason: String::new(),
    }
}

fn proposal(number: u64) -> Proposal {
    Proposal {
        number: ProposalNumber(number),
        commit: commit('a'),
        title: "Adds a server".into(),
        reason: String::new(),
        asked_by: Asker::Agent,
        phase: ProposalPhase::Proposed,
        marks: BTreeMap::from([(ProposalPhase::Proposed, mark())]),
    }
}

fn propose(number: u128, proposal: Proposal) -> Change {
    Change::Propose {
        uid: uid(number),
        proposal: Box::new(proposal),
    }
}

/// A gate of `alice` about the effect named `effect`.
fn gate(effect: &str) -> NewGate {
    NewGate {
        agent: Some(name("alice")),
        uid: Some(uid(1)),
        class: GateClass::DeployWidens,
        asked_by: Asker::Agent,
        digest: digest(effect),
        proposal: None,
        commit: None,
        system: None,
        view: GateView {
            summary: format!("do {effect}"),
            ..GateView::default()
        },
        step: Step {
            agent: Some(name("alice")),
            uid: Some(uid(1)),
            action: Action::Spawn,
            authority: Authority::Free,
        },
        auto: None,
    }
}

fn auto(effect: &str) -> NewGate {
    NewGate {
        auto: Some("spec.deployWidens=auto".into()),
        ..gate(effect)
    }
}

/// A deployment whose agent may write to everybody.
pub(crate) fn deployed(gate: GateId) -> Box<Deployed> {
    let ids = json!({ "agent": "alice", "uid": uid(1) });
    let launch = json!({
        "harness": "/bin/hive-harness", "driver": "scripted", "network": "none", "binds": [], "limits": {},
    });
    let config = json!({ "hive": "home", "driver": {}, "maxTurnMinutes": 60, "commit": commit('a') });
    let merged = |mut value: serde_json::Value| {
        let fields = ids.as_object().expect("an object").clone();
        value.as_object_mut().expect("an object").extend(fields);
        value
    };
    Box::new(Deployed {
        output: BuildOutput {
            system: "/systems/a".into(),
            commit: commit('a'),
            toplevel: digest("toplevel"),
            launch: serde_json::from_value(merged(launch)).expect("a launch"),
            config_digest: digest("config"),
            config: serde_json::from_value(merged(config)).expect("a config"),
            origins: BTreeMap::new(),
            grants: BTreeMap::new(),
            host_side: HostSide {
                egress: BTreeSet::new(),
            },
            made_from: None,
        },
        proposal: ProposalNumber(0),
        gate,
        at: now(),
    })
}
