//! Drafts: who prepares what, and the rules about it. Pure.
//!
//! A draft has a config repo and staged files; it never runs, has no folders of its own, and gets no mail. Its owner
//! offers it; the offer is built and asked about; only the approval makes it an agent. Every change of a draft takes its
//! offer back, so that what an operator is shown is what its owner meant.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::canonical::{Encoding, NotCanonical, digest};
use shared::config::Overlay;
use shared::draft::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, StagedFile, StatePath};
use shared::gate::Asker;
use shared::spec::Role;
use shared::{AgentName, AgentUid, CommitOid, Digest, GateId};

use crate::model::records::{AgentLife, AgentRecord};

/// The most drafts one manager may have.
pub const MAX_DRAFTS_OF_ONE: usize = 4;
/// The most drafts a hive may have.
pub const MAX_DRAFTS: usize = 16;
/// The most bundles that are taken in for one draft.
const MAX_BUNDLES: u32 = 16;

/// Who prepares a draft. Nobody else may touch it but the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// The operator.
    Operator {
        /// Who, as the transport says.
        by: String,
    },
    /// A manager. The uid, because another agent may come to have its name.
    Manager {
        /// Its name.
        name: AgentName,
        /// Its uid.
        uid: AgentUid,
    },
}

impl Owner {
    /// On whose side its steps are asked for.
    pub fn asker(&self) -> Asker {
        match self {
            Self::Operator { .. } => Asker::Spec,
            Self::Manager { .. } => Asker::Manager,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator { by } => f.pad(by),
            Self::Manager { name, .. } => f.pad(name.as_str()),
        }
    }
}

/// A draft offered to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// Why the agent is wanted. Untrusted.
    pub reason: String,
    /// When it was made.
    pub at: Timestamp,
}

/// An offer that was denied. The same content is not asked about again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Denial {
    /// The gate.
    pub gate: GateId,
    /// Why.
    pub reason: String,
    /// The digest of what was offered.
    pub content: Digest,
}

/// What is prepared of an agent to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// Who prepares it.
    pub owner: Owner,
    /// Since when.
    pub since: Timestamp,
    /// An overlay that becomes the draft's commit as soon as there is a repo.
    #[serde(default)]
    pub overlay: Option<Overlay>,
    /// The commit to be deployed; absent: the seed.
    #[serde(default)]
    pub commit: Option<CommitOid>,
    /// How many bundles were taken in: each leaves its objects in the repo.
    #[serde(default)]
    pub bundles: u32,
    /// The staged files; their bytes lie in the daemon's own folder.
    #[serde(default)]
    pub files: BTreeMap<StatePath, StagedFile>,
    /// The offer, while there is one.
    #[serde(default)]
    pub offer: Option<Offer>,
    /// The last denial.
    #[serde(default)]
    pub denied: Option<Denial>,
    /// Why the last offer came to nothing otherwise.
    #[serde(default)]
    pub failed: Option<String>,
}

impl Draft {
    /// An empty one.
    pub fn new(owner: Owner, since: Timestamp) -> Self {
        Self {
            owner,
            since,
            overlay: None,
            commit: None,
            bundles: 0,
            files: BTreeMap::new(),
            offer: None,
            denied: None,
            failed: None,
        }
    }

    /// Identity of what it holds.
    ///
    /// # Errors
    /// Only when a value has no canonical form, which means a fault in the program.
    pub fn content(&self) -> Result<Digest, NotCanonical> {
        digest(Encoding::Content, &(&self.commit, &self.overlay, &self.files))
    }

    /// The sum of its files' sizes.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// The same with another content, which is not offered yet.
    fn changed(&self) -> Self {
        Self {
            offer: None,
            failed: None,
            ..self.clone()
        }
    }

    /// With one more file, or another in its place.
    ///
    /// # Errors
    /// When a bound is exceeded.
    pub fn with_file(&self, path: &StatePath, file: &StagedFile) -> Result<Self, Refusal> {
        let mut next = self.changed();
        next.files.insert(path.clone(), file.clone());
        check_files(&next.files)?;
        Ok(next)
    }

    /// Without a file.
    ///
    /// # Errors
    /// When it is not staged.
    pub fn without_file(&self, path: &StatePath) -> Result<Self, Refusal> {
        let mut next = self.changed();
        match next.files.remove(path) {
            Some(_) => Ok(next),
            None => Err(Refusal::NoFile(path.clone())),
        }
    }

    /// With another commit, which was taken in for it.
    ///
    /// # Errors
    /// When too many were.
    pub fn with_commit(&self, commit: Option<CommitOid>) -> Result<Self, Refusal> {
        if self.bundles >= MAX_BUNDLES {
            return Err(Refusal::TooManyBundles);
        }
        Ok(Self {
            bundles: self.bundles + 1,
            overlay: None,
            commit,
            ..self.changed()
        })
    }
}

/// Checks a set of staged files against the bounds.
///
/// # Errors
/// When there are too many, they are too large together, or one would have to be a folder and a file.
pub fn check_files(files: &BTreeMap<StatePath, StagedFile>) -> Result<(), Refusal> {
    if files.len() > MAX_FILES {
        return Err(Refusal::TooManyFiles);
    }
    if files.values().map(|file| file.size).sum::<u64>() > MAX_TOTAL_BYTES {
        return Err(Refusal::TooLarge);
    }
    // Everything below a file sorts after it, but '-', '+' and '.' sort before '/': so each is compared with all.
    for (index, path) in files.keys().enumerate() {
        if let Some(other) = files.keys().skip(index + 1).find(|other| path.collides(other)) {
            return Err(Refusal::Collision {
                path: path.clone(),
                other: other.clone(),
            });
        }
    }
    Ok(())
}

/// Why something cannot be done to a draft.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant is")]
pub enum Refusal {
    #[error("{0} is no manager: only a manager, or the operator, prepares other agents")]
    NotManager(AgentName),
    #[error("there is no draft of {0}")]
    NoDraft(AgentName),
    #[error("the draft of {agent} is {owner}'s: only {owner} or the operator may touch it")]
    NotYours { agent: AgentName, owner: String },
    #[error("the name {agent} is taken: {by}")]
    Taken { agent: AgentName, by: &'static str },
    #[error(
        "the hive is full: {agents} agents and {offered} offered drafts, and maxAgents is {max}: remove one, or ask the \
         operator to raise it"
    )]
    Full { agents: usize, offered: usize, max: u32 },
    #[error("{who} has {count} drafts already: offer or give up one of them first")]
    TooManyDrafts { who: String, count: usize },
    #[error("{MAX_BUNDLES} commits were sent for this draft: give it up and begin again")]
    TooManyBundles,
    #[error("a staged file has at most {MAX_FILE_BYTES} bytes")]
    FileTooLarge,
    #[error("a draft holds at most {MAX_FILES} files")]
    TooManyFiles,
    #[error("the files of a draft have at most {MAX_TOTAL_BYTES} bytes together")]
    TooLarge,
    #[error("{path} and {other} cannot both be there: one would have to be a file and a folder")]
    Collision { path: StatePath, other: StatePath },
    #[error("{0} is not staged")]
    NoFile(StatePath),
    #[error("the draft of {0} was approved and is being made an agent: it cannot be changed any more")]
    BeingSpawned(AgentName),
    #[error("this very draft was denied (gate {gate}: {reason}): change it before you offer it again")]
    DeniedBefore { gate: GateId, reason: String },
    #[error("the config repo of {0} is being made: try again in a moment")]
    NoRepo(AgentName),
}

/// What the spec says about drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most agents a hive may have before spawning is refused.
    pub max_agents: u32,
    /// Whether the spec names this agent, be it with faults.
    pub is_named: bool,
}

impl Rules {
    fn has_room_for(self, others: usize) -> bool {
        usize::try_from(self.max_agents).is_ok_and(|max| others < max)
    }
}

/// Agents that are part of the hive, running or not.
pub fn population(records: &[AgentRecord]) -> usize {
    let exists = |record: &&AgentRecord| {
        matches!(
            record.life,
            AgentLife::Declared | AgentLife::Active | AgentLife::Restoring { .. }
        )
    };
    records.iter().filter(exists).count()
}

/// Drafts with an offer, but for that of one agent.
fn offered(records: &[AgentRecord], but: Option<AgentUid>) -> usize {
    let is_offered = |record: &&AgentRecord| {
        Some(record.uid) != but
            && record.life == AgentLife::Draft
            && record.draft.as_ref().is_some_and(|draft| draft.offer.is_some())
    };
    records.iter().filter(is_offered).count()
}

/// The manager of this name.
///
/// # Errors
/// When there is none.
pub fn manager(records: &[AgentRecord], name: &AgentName) -> Result<Owner, Refusal> {
    let record = records.iter().find(|record| record.name == *name);
    match record.filter(|record| is_manager(record)) {
        Some(record) => Ok(Owner::Manager {
            name: name.clone(),
            uid: record.uid,
        }),
        None => Err(Refusal::NotManager(name.clone())),
    }
}

/// Whether an agent is a manager by what is deployed of it.
pub fn is_manager(record: &AgentRecord) -> bool {
    let deployed = record.deployed.as_ref();
    record.life == AgentLife::Active && deployed.is_some_and(|d| d.output.config.role == Role::Manager)
}

/// Whether a draft of this name may be made by `owner`.
///
/// # Errors
/// Why not.
pub fn may_be_made(
    records: &[AgentRecord],
    name: &AgentName,
    owner: &Owner,
    rules: Rules,
) -> Result<(), Refusal> {
    let taken = |by| Refusal::Taken {
        agent: name.clone(),
        by,
    };
    if rules.is_named {
        return Err(taken("the spec declares it"));
    }
    if let Some(record) = records.iter().find(|record| record.name == *name) {
        return Err(taken(match record.life {
            AgentLife::Draft => "there is a draft of it",
            AgentLife::GivenUp { .. } => "a draft of it is being deleted; try again in a moment",
            AgentLife::Removed { .. } => "the agent that had it is not archived yet",
            _ => "there is an agent of that name",
        }));
    }
    room(records, None, rules)?;
    let drafts: Vec<&AgentRecord> = records
        .iter()
        .filter(|record| matches!(record.life, AgentLife::Draft | AgentLife::GivenUp { .. }))
        .collect();
    let own = drafts
        .iter()
        .filter(|record| {
            record
                .draft
                .as_ref()
                .is_some_and(|draft| is_same(&draft.owner, owner))
        })
        .count();
    if matches!(owner, Owner::Manager { .. }) && own >= MAX_DRAFTS_OF_ONE {
        return Err(Refusal::TooManyDrafts {
            who: owner.to_string(),
            count: own,
        });
    }
    if drafts.len() >= MAX_DRAFTS {
        return Err(Refusal::TooManyDrafts {
            who: "the hive".to_owned(),
            count: drafts.len(),
        });
    }
    Ok(())
}

/// Whether one more agent fits beside all that are there or offered.
///
/// # Errors
/// With the numbers.
pub fn room(records: &[AgentRecord], but: Option<AgentUid>, rules: Rules) -> Result<(), Refusal> {
    let (agents, offered) = (population(records), offered(records, but));
    if rules.has_room_for(agents + offered) {
        Ok(())
    } else {
        Err(Refusal::Full {
            agents,
            offered,
            max: rules.max_agents,
        })
    }
}

/// Whether two owners are the same: all operators are.
fn is_same(one: &Owner, other: &Owner) -> bool {
    match (one, other) {
        (Owner::Operator { .. }, Owner::Operator { .. }) => true,
        (Owner::Manager { uid, .. }, Owner::Manager { uid: other, .. }) => uid == other,
        _ => false,
    }
}

/// The draft of this name, if `who` may touch it. The operator may touch all.
///
/// # Errors
/// When there is none, or it is somebody else's.
pub fn owned<'a>(
    records: &'a [AgentRecord],
    name: &AgentName,
    who: &Owner,
) -> Result<(&'a AgentRecord, &'a Draft), Refusal> {
    let record = records
        .iter()
        .find(|record| record.name == *name && record.life == AgentLife::Draft);
    let found = record.and_then(|record| Some((record, record.draft.as_deref()?)));
    let (record, draft) = found.ok_or_else(|| Refusal::NoDraft(name.clone()))?;
    if matches!(who, Owner::Operator { .. }) || is_same(&draft.owner, who) {
        Ok((record, draft))
    } else {
        Err(Refusal::NotYours {
            agent: name.clone(),
            owner: draft.owner.to_string(),
        })
    }
}

/// What the rest of the hive says to a draft that is offered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// Nothing against it.
    #[default]
    Fine,
    /// The spec names the agent; it is not the drafter's to make any more.
    Named,
    /// The offer is void.
    Void(String),
}

/// Judges an offered draft by the rest of the hive. Offers of others do not count: whoever is approved first is first.
pub fn standing(record: &AgentRecord, records: &[AgentRecord], rules: Rules) -> Standing {
    if rules.is_named {
        return Standing::Named;
    }
    if let Some(Owner::Manager { name, uid }) = record.draft.as_ref().map(|draft| &draft.owner) {
        let stands = records.iter().any(|other| other.uid == *uid && is_manager(other));
        if !stands {
            return Standing::Void(format!(
                "{name}, who offered it, is no manager of this hive any more"
            ));
        }
    }
    let agents = population(records);
    if rules.has_room_for(agents) {
        Standing::Fine
    } else {
        let max = rules.max_agents;
        Standing::Void(format!(
            "the hive is full: {agents} agents, and maxAgents is {max}"
        ))
    }
}

#[cfg(test)]
mod tests;
