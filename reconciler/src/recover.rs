//! Rebuilding a ledger that is lost: from config repos and their tags, from the files agents are started from, from the
//! archive, and from what can still be read of the old file.
//!
//! Nothing that needs an approval rests on a rebuilt ledger. What was decided and done is history; what was decided and
//! not done is asked about again; what is deployed beyond the spec's ceiling lapses unless its gate can still be read.

mod agent;
pub mod lost;
mod mail;
pub mod report;
mod tags;

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use shared::gate::{Gate, GateState};
use shared::{AgentName, AgentUid, GateId, HiveId};

use self::report::{AgentReport, Report};
use crate::control::lock::{self, LockError};
use crate::host::layout::Layout;
use crate::host::remains::{self, Remains, Remnant};
use crate::host::{HostError, Ids};
use crate::ledger::{self, Condition, OpenError, Rebuilt, RebuiltAgent, Salvage};
use crate::model::records::{AgentRecord, GateRecord};

/// What a recovery is asked to do.
#[derive(Debug, Clone)]
pub struct Order {
    /// The folders.
    pub layout: Layout,
    /// The agents that the spec declares, when it could be read.
    pub declared: Option<BTreeSet<AgentName>>,
    /// Change nothing.
    pub dry_run: bool,
    /// When.
    pub now: Timestamp,
}

/// Why nothing is recovered. Then nothing was changed, unless the error says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is no such folder.
    #[error("there is no folder {0}: name the state folder of the hive with --state")]
    NoFolder(Utf8PathBuf),
    /// It holds no hive.
    #[error(
        "{0} holds no ledger, no agent, no config repo and no archive: name the state folder of the hive with --state"
    )]
    Empty(Utf8PathBuf),
    /// The ledger is as it should be.
    #[error("the ledger {0} is whole: there is nothing to recover")]
    Whole(Utf8PathBuf),
    /// A repo is there and cannot be read. Unknown is not absent.
    #[error(
        "the config repo of {agent} at {path} cannot be read ({why}): put it back from a backup or mend it, or move it \
         away if it is lost, and run this again"
    )]
    Repo {
        /// Whose.
        agent: AgentName,
        /// Where.
        path: Utf8PathBuf,
        /// Why.
        why: String,
    },
    /// A daemon runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The ledger's files cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] Box<OpenError>),
    /// Something on disk cannot be read.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Rebuilds the ledger of these folders.
///
/// # Errors
/// When there is nothing to recover, or it cannot be done.
pub async fn recover(order: Order, ids: &dyn Ids) -> Result<Report, RecoverError> {
    let layout = &order.layout;
    if !layout.state().is_dir() {
        return Err(RecoverError::NoFolder(layout.state().to_owned()));
    }
    let path = layout.ledger();
    let waiting = ledger::interrupted(&path).map_err(Box::new)?;
    if waiting.is_none() && !path.exists() && !remains::any(layout)? {
        return Err(RecoverError::Empty(layout.state().to_owned()));
    }
    let _lock = if order.dry_run {
        lock::check(layout)?;
        None
    } else {
        let lock = lock::take(layout).await?;
        ledger::give_to_owner(&layout.lock()).map_err(Box::new)?;
        Some(lock)
    };
    if let Some(waiting) = waiting {
        let kept = if order.dry_run {
            None
        } else {
            ledger::swap_in(&path, &waiting).map_err(Box::new)?
        };
        return Ok(finished(&order, kept, ids.hive_id()));
    }
    let (salvage, wrong) = match ledger::condition(&path).map_err(Box::new)? {
        Condition::Whole => return Err(RecoverError::Whole(path)),
        Condition::Missing => (None, "there is none".to_owned()),
        Condition::Damaged { detail } => {
            // What cannot even be opened holds nothing.
            (
                Some(ledger::salvage(&path).unwrap_or_default()),
                format!("it is damaged ({detail})"),
            )
        }
    };
    let remains = remains::look(layout)?;
    if salvage.is_none() && remains.agents.is_empty() && remains.archives.is_empty() {
        return Err(RecoverError::Empty(layout.state().to_owned()));
    }
    let (rebuilt, mut report) = rebuild(&order, &remains, salvage, &wrong, ids)?;
    if !order.dry_run {
        let waiting = ledger::rebuild(&path, &rebuilt).map_err(Box::new)?;
        report.kept = ledger::swap_in(&path, &waiting).map_err(Box::new)?;
    }
    Ok(report)
}

/// The report of a recovery that an earlier call made and this one put in place.
fn finished(order: &Order, kept: Option<Utf8PathBuf>, hive: HiveId) -> Report {
    Report {
        state: order.layout.state().to_owned(),
        dry_run: order.dry_run,
        ledger: "an earlier recovery was interrupted when its ledger was whole; now that is in place"
            .to_owned(),
        kept,
        hive,
        same_hive: false,
        agents: Vec::new(),
        salvaged: BTreeMap::new(),
        gone: Vec::new(),
        next: vec!["start the daemon, then look at `hive status` and `hive gate list`".to_owned()],
    }
}

/// The new ledger, and what there is to say about it. Pure but for new ids.
fn rebuild(
    order: &Order,
    remains: &Remains,
    salvage: Option<Salvage>,
    wrong: &str,
    ids: &dyn Ids,
) -> Result<(Rebuilt, Report), RecoverError> {
    let had_salvage = salvage.is_some();
    let mut salvage = salvage.unwrap_or_default();
    let (mut agents, mut reports) = (Vec::new(), Vec::new());
    let mut taken = BTreeSet::new();
    for name in names(remains, &salvage) {
        let found = remains.agents.get(&name);
        let Some((agent, mut report)) = live(order, &name, found, &salvage, ids)? else {
            continue;
        };
        if !taken.insert(agent.record.uid) {
            continue;
        }
        report.process = found.and_then(|found| found.process);
        report.tell(&agent);
        agents.push(agent);
        reports.push(report);
    }
    for row in salvage.agents.iter().filter(|row| row.life.is_over()) {
        if taken.insert(row.uid) {
            let mut report = AgentReport::new(&row.name, row.uid, "ledger");
            let agent = agent::from_row(row, None, &salvage, order.now, &mut report);
            report.tell(&agent);
            agents.push(agent);
            reports.push(report);
        }
    }
    for found in &remains.archives {
        if taken.insert(found.uid) {
            let mut report = AgentReport::new(&found.name, found.uid, "archive");
            let agent = agent::from_archive(found, order.now, &mut report);
            report.tell(&agent);
            agents.push(agent);
            reports.push(report);
        }
    }
    let mentioned = agents.iter().flat_map(|agent| {
        let marks = agent
            .proposals
            .iter()
            .flat_map(|proposal| proposal.marks.values());
        marks.filter_map(|mark| mark.gate)
    });
    let last_gate: Option<GateId> = mentioned.chain(salvage.last_gate).max();
    let gates = std::mem::take(&mut salvage.gates);
    let gates = gates.into_iter().filter_map(|record| {
        let gate = ended(record.gate, |uid| taken.contains(&uid), order.now)?;
        Some(GateRecord { gate, ..record })
    });
    let gates: Vec<GateRecord> = gates.collect();
    mail::close(&mut salvage, &agents, order.now);
    let same_hive = salvage.hive_id.is_some();
    let hive = salvage.hive_id.unwrap_or_else(|| ids.hive_id());
    let report = Report {
        state: order.layout.state().to_owned(),
        dry_run: order.dry_run,
        ledger: wrong.to_owned(),
        kept: None,
        hive,
        same_hive,
        salvaged: salvage
            .tallies
            .iter()
            .map(|(table, tally)| (*table, tally.into()))
            .collect(),
        gone: gone(had_salvage, &salvage),
        next: next(order, &reports),
        agents: reports,
    };
    let rebuilt = Rebuilt {
        hive_id: hive,
        at: order.now,
        spec: salvage.spec,
        agents,
        gates,
        last_gate,
        raw: salvage.raw,
    };
    Ok((rebuilt, report))
}

/// The names of agents that are not archived.
fn names(remains: &Remains, salvage: &Salvage) -> BTreeSet<AgentName> {
    let rows = salvage.agents.iter().filter(|row| !row.life.is_over());
    rows.map(|row| row.name.clone())
        .chain(remains.agents.keys().cloned())
        .collect()
}

/// One agent that is not archived.
fn live(
    order: &Order,
    name: &AgentName,
    found: Option<&Remnant>,
    salvage: &Salvage,
    ids: &dyn Ids,
) -> Result<Option<(RebuiltAgent, AgentReport)>, RecoverError> {
    let launched = found
        .and_then(|found| found.launch.as_ref())
        .map(|file| file.launch.uid);
    let loaded = found
        .and_then(|found| found.config.as_ref())
        .map(|file| file.config.uid);
    let on_disk = launched.or(loaded);
    let fits = |row: &&AgentRecord| {
        row.name == *name && !row.life.is_over() && on_disk.is_none_or(|uid| uid == row.uid)
    };
    if let Some(row) = salvage.agents.iter().find(fits) {
        let mut report = AgentReport::new(name, row.uid, "ledger");
        let agent = agent::from_row(row, found, salvage, order.now, &mut report);
        return Ok(Some((agent, report)));
    }
    // What no row speaks of has been named by what lies on disk.
    let Some(found) = found else { return Ok(None) };
    let unreadable = |why: String| RecoverError::Repo {
        agent: name.clone(),
        path: order.layout.repo(name),
        why,
    };
    if let Err(why) = &found.repo {
        return Err(unreadable(why.clone()));
    }
    let uid = on_disk.unwrap_or_else(|| ids.agent_uid());
    let mut report = AgentReport::new(name, uid, "disk");
    if on_disk.is_none() {
        report
            .notes
            .push("no file says which uid it had: it has a new one".to_owned());
    }
    let agent = agent::from_remains(name, uid, found, order.now, &mut report);
    if agent.record.seed.is_none() && matches!(found.repo, Ok(Some(_))) {
        return Err(unreadable(
            "it has neither a main nor a tag of a deployment".to_owned(),
        ));
    }
    if order
        .declared
        .as_ref()
        .is_some_and(|declared| !declared.contains(name))
    {
        report
            .notes
            .push("the spec does not declare it: it will be stopped; declare it to keep it".to_owned());
    }
    Ok(Some((agent, report)))
}

/// Ends a gate of a ledger that was lost. What had happened stays history; what had not must be asked about anew.
fn ended(mut gate: Gate, known: impl Fn(AgentUid) -> bool, now: Timestamp) -> Option<Gate> {
    if gate.uid.is_some_and(|uid| !known(uid)) {
        return None;
    }
    let because = "the ledger was lost and made anew: what is still wanted asks again";
    match gate.state {
        GateState::Open | GateState::Approved => {
            gate.state = GateState::Superseded;
            gate.ended_because = Some(because.to_owned());
        }
        GateState::Consumed if gate.completed_at.is_none() => {
            gate.completed_at = Some(now);
            gate.ended_because = Some(because.to_owned());
        }
        GateState::Consumed | GateState::Denied | GateState::Superseded | GateState::Expired => {}
    }
    Some(gate)
}

fn gone(had_salvage: bool, salvage: &Salvage) -> Vec<String> {
    if !had_salvage {
        return [
            "the hive's id: gates and events are counted in a new hive",
            "decisions, but for those that tags tell of",
            "messages, delivered or not",
            "what was ordered with hive stop, start and suspend",
            "events, plans and history",
            "the last good spec: the file decides alone",
        ]
        .map(str::to_owned)
        .to_vec();
    }
    let mut gone = Vec::new();
    if salvage.hive_id.is_none() {
        gone.push("the hive's id".to_owned());
    }
    for (table, tally) in &salvage.tallies {
        if tally.unreadable > 0 {
            gone.push(format!(
                "{} rows of {table} that cannot be read",
                tally.unreadable
            ));
        }
        if tally.cut_short {
            gone.push(format!("part of {table}: nobody knows how many rows"));
        }
    }
    gone
}

fn next(order: &Order, agents: &[AgentReport]) -> Vec<String> {
    let mut next = Vec::new();
    if order.dry_run {
        next.push(format!(
            "run it without --dry-run: hive recover --state {}",
            order.layout.state()
        ));
    }
    next.push("start the daemon, then look at `hive status`; agents that run are adopted".to_owned());
    if agents.iter().any(|agent| agent.proposals.contains_key("open")) {
        next.push("open proposals are built and asked about again: `hive gate list`".to_owned());
    }
    for agent in agents.iter().filter(|agent| !agent.lapsed.is_empty()) {
        next.push(format!(
            "{} loses what went beyond its spec ({}): allow it in the spec, or `hive rollback {} --to N` with the \
             proposal that brought it",
            agent.name,
            agent.lapsed.join(", "),
            agent.name
        ));
    }
    next
}

/// The agents that a spec file declares, faulty ones included; `None` when it cannot be read.
pub fn declared(spec: &Utf8Path) -> Option<BTreeSet<AgentName>> {
    let parsed = crate::spec::parse(&crate::spec::read(spec).ok()?);
    let faulty: Vec<AgentName> = parsed.bad_agents.keys().cloned().collect();
    let names = parsed.spec?.agents.into_keys();
    Some(names.chain(faulty).collect())
}
