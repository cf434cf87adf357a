//! What managers and the operator ask for about agents to be: drafts, their files, their offers.
//!
//! Each command is decided in one ledger transaction, on what is in the ledger at that moment ([`Register`]). The bytes
//! of a staged file are written before the transaction that refers to them, and what nothing refers to is deleted after
//! it; that is why staging is one at a time.

use serde_json::json;
use shared::draft::{
    DraftInfo, DraftPhase, MAX_FILE_BYTES, MAX_REASON_BYTES, SpawnRequest, StagedFile, StatePath,
};
use shared::event::Level;
use shared::gate::GateState;
use shared::{AgentName, AgentUid, CommitOid};

use super::command::CommandError;
use super::reconciler::{Key, PassError, Reconciler};
use crate::execute::event;
use crate::ledger::{LedgerError, Register, bounded};
use crate::model::change::Change;
use crate::model::draft::{self, Draft, Offer, Owner, Refusal, Rules, Standing};
use crate::model::order;
use crate::model::records::{AgentLife, AgentOrigin, AgentRecord};
use crate::model::step::Action;
use crate::spec::Accepted;

/// Who asks, as the door says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asking {
    /// The operator, by this name.
    Operator(String),
    /// The agent at whose door it was asked; it must be a manager.
    Agent(AgentName),
}

impl Asking {
    /// As whom drafts are prepared.
    fn owner(&self, register: &Register) -> Result<Owner, Refusal> {
        match self {
            Self::Operator(by) => Ok(Owner::Operator { by: by.clone() }),
            Self::Agent(name) => draft::manager(&register.records, name),
        }
    }
}

/// What the spec says about a draft of this name.
pub(super) fn draft_rules(accepted: &Accepted, name: &AgentName) -> Rules {
    let spec = &accepted.spec;
    Rules {
        max_agents: spec.max_agents,
        is_named: spec.agents.contains_key(name) || accepted.agent_faults.contains_key(name),
    }
}

/// Whether an action may change what holds for drafts: how many agents there are, or who is a manager.
pub(super) fn concerns_drafts(action: &Action) -> bool {
    matches!(
        action,
        Action::Deploy { .. }
            | Action::Revert { .. }
            | Action::SpawnDraft { .. }
            | Action::Obey { .. }
            | Action::Archive
            | Action::Restore
            | Action::DropDraft
    )
}

impl Reconciler {
    /// The drafts, to be looked at.
    pub(super) async fn drafts(&self) -> Result<Vec<Key>, LedgerError> {
        Ok(self.ledger.drafts().await?.into_iter().map(Key::Agent).collect())
    }

    /// What the rest of the hive says to an agent, if it is a draft with an offer, or a manager's order about it waits.
    pub(super) async fn standing(&self, record: &AgentRecord, rules: Rules) -> Result<Standing, PassError> {
        let order = record.order.as_deref().filter(|order| order.is_pending());
        if record.life != AgentLife::Draft && order.is_none() {
            return Ok(Standing::Fine);
        }
        let records = self.ledger.agents().await?.items;
        Ok(match order {
            Some(order) => order::standing(order, &records),
            None => draft::standing(record, &records, rules),
        })
    }

    /// Makes a draft, or says where the one that `who` has of this name is.
    ///
    /// # Errors
    /// When `who` may not, the name is taken, or a bound is reached.
    pub async fn make_draft(&self, who: Asking, name: &AgentName) -> Result<DraftInfo, CommandError> {
        let (uid, now) = (self.host.ids.agent_uid(), self.host.clock.now());
        let (rules, agent) = (self.rules(name).await?, name.clone());
        let made = self
            .ledger
            .decide_on_register(move |register| {
                let owner = who.owner(register)?;
                if draft::owned(&register.records, &agent, &owner).is_ok() {
                    return Ok((Vec::new(), ()));
                }
                draft::may_be_made(&register.records, &agent, &owner, rules)?;
                Ok::<_, CommandError>((drafted(&agent, uid, Draft::new(owner, now)), ()))
            })
            .await;
        self.seen_to(name, made)?;
        self.shown(name).await
    }

    /// Makes a draft with config and files, and offers it at once.
    ///
    /// # Errors
    /// When `who` may not, the name is taken, or a bound is reached; then nothing of it stays.
    pub async fn spawn(&self, who: Asking, request: SpawnRequest) -> Result<DraftInfo, CommandError> {
        let SpawnRequest {
            name,
            config,
            files,
            reason,
        } = request;
        if files.values().any(|text| text.len() > MAX_FILE_BYTES) {
            return Err(Refusal::FileTooLarge.into());
        }
        let staged = files
            .iter()
            .map(|(path, text)| (path.clone(), staged(text.as_bytes())));
        let staged = staged.collect();
        draft::check_files(&staged)?;
        let (uid, now) = (self.host.ids.agent_uid(), self.host.clock.now());
        let rules = self.rules(&name).await?;
        let (agent, reason) = (name.clone(), bounded(&reason, MAX_REASON_BYTES));
        let _one = self.staging.lock().await;
        let may = {
            let (who, agent) = (who.clone(), agent.clone());
            move |register: &Register| {
                let owner = who.owner(register)?;
                draft::may_be_made(&register.records, &agent, &owner, rules).map(|()| owner)
            }
        };
        let first = may.clone();
        let asked = move |register: &Register| first(register).map(|_| (Vec::new(), ()));
        self.ledger
            .decide_on_register(move |register| asked(register).map_err(CommandError::from))
            .await?;
        for text in files.into_values() {
            self.host.staging.stage(uid, text.into_bytes()).await?;
        }
        let made = self
            .ledger
            .decide_on_register(move |register| {
                let draft = Draft {
                    overlay: Some(config),
                    files: staged,
                    offer: Some(Offer { reason, at: now }),
                    ..Draft::new(may(register)?, now)
                };
                Ok::<_, CommandError>((drafted(&agent, uid, draft), ()))
            })
            .await;
        if made.is_err() {
            // The draft may be there all the same, and needs its files then.
            self.sweep(&name, uid).await?;
        }
        self.seen_to(&name, made)?;
        self.shown(&name).await
    }

    /// Stages a file, or another in its place. An offer is taken back.
    ///
    /// # Errors
    /// When the draft is not `who`'s, or a bound is exceeded.
    pub async fn stage(
        &self,
        who: Asking,
        name: &AgentName,
        path: StatePath,
        bytes: Vec<u8>,
    ) -> Result<DraftInfo, CommandError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(Refusal::FileTooLarge.into());
        }
        let file = staged(&bytes);
        let _one = self.staging.lock().await;
        // Asked before anything is written: what is refused must not fill the disk.
        let uid = {
            let (path, file) = (path.clone(), file.clone());
            self.on_draft(who.clone(), name, false, move |draft| {
                draft.with_file(&path, &file).map(|_| draft.clone())
            })
            .await?
        };
        self.host.staging.stage(uid, bytes).await?;
        let changed = self
            .on_draft(who, name, true, move |draft| draft.with_file(&path, &file))
            .await;
        self.sweep(name, uid).await?;
        changed?;
        self.shown(name).await
    }

    /// Takes a staged file back. An offer is taken back with it.
    ///
    /// # Errors
    /// When the draft is not `who`'s, or there is no such file.
    pub async fn unstage(
        &self,
        who: Asking,
        name: &AgentName,
        path: StatePath,
    ) -> Result<DraftInfo, CommandError> {
        let _one = self.staging.lock().await;
        let uid = self
            .on_draft(who, name, true, move |draft| draft.without_file(&path))
            .await?;
        self.sweep(name, uid).await?;
        self.shown(name).await
    }

    /// One draft.
    ///
    /// # Errors
    /// When it is not `who`'s.
    pub async fn draft(&self, who: Asking, name: &AgentName) -> Result<DraftInfo, CommandError> {
        let register = self.ledger.register().await?;
        draft::owned(&register.records, name, &who.owner(&register)?)?;
        self.shown(name).await
    }

    /// The bytes of a staged file.
    ///
    /// # Errors
    /// When the draft is not `who`'s, or there is no such file.
    pub async fn staged(
        &self,
        who: Asking,
        name: &AgentName,
        path: &StatePath,
    ) -> Result<Vec<u8>, CommandError> {
        let info = self.draft(who, name).await?;
        let no_file = || Refusal::NoFile(path.clone());
        let file = info.files.get(path).ok_or_else(no_file)?;
        let bytes = self.host.staging.read(info.uid, &file.digest).await?;
        Ok(bytes.ok_or_else(no_file)?)
    }

    /// The seed of a draft's repo, on which `who` may build a commit.
    ///
    /// # Errors
    /// When the draft is not `who`'s, takes no more commits, or has no repo yet.
    pub async fn draft_seed(&self, who: Asking, name: &AgentName) -> Result<CommitOid, CommandError> {
        self.on_draft(who, name, false, |draft| draft.with_commit(None))
            .await?;
        let record = self.ledger.record(name).await?;
        let seed = record.and_then(|record| record.seed);
        seed.ok_or_else(|| Refusal::NoRepo(name.clone()).into())
    }

    /// Makes a commit that was taken in the draft's. An offer is taken back.
    ///
    /// # Errors
    /// When the draft is not `who`'s.
    pub async fn set_draft_commit(
        &self,
        who: Asking,
        name: &AgentName,
        commit: CommitOid,
    ) -> Result<DraftInfo, CommandError> {
        self.on_draft(who, name, true, move |draft| draft.with_commit(Some(commit)))
            .await?;
        self.shown(name).await
    }

    /// Offers a draft to the operator.
    ///
    /// # Errors
    /// When the draft is not `who`'s, the hive is full, or this very draft was denied.
    pub async fn offer(
        &self,
        who: Asking,
        name: &AgentName,
        reason: &str,
    ) -> Result<DraftInfo, CommandError> {
        let now = self.host.clock.now();
        let (rules, agent, reason) = (
            self.rules(name).await?,
            name.clone(),
            bounded(reason, MAX_REASON_BYTES),
        );
        let offered = self
            .ledger
            .decide_on_register(move |register| {
                let owner = who.owner(register)?;
                let (record, draft) = draft::owned(&register.records, &agent, &owner)?;
                if draft.offer.is_some() {
                    return Ok((Vec::new(), ()));
                }
                if rules.is_named {
                    let by = "the spec declares it";
                    return Err(Refusal::Taken { agent, by }.into());
                }
                draft::room(&register.records, Some(record.uid), rules)?;
                if let Some(denied) = &draft.denied
                    && denied.content == draft.content()?
                {
                    return Err(Refusal::DeniedBefore {
                        gate: denied.gate,
                        reason: denied.reason.clone(),
                    }
                    .into());
                }
                let uid = record.uid;
                let next = Draft {
                    offer: Some(Offer { reason, at: now }),
                    failed: None,
                    ..draft.clone()
                };
                let message = format!("{owner} offers {agent} to be spawned");
                let changes = vec![
                    Change::Draft {
                        uid,
                        draft: Some(Box::new(next)),
                    },
                    event(&agent, Level::Info, "draftOffered", message, now),
                ];
                Ok::<_, CommandError>((changes, ()))
            })
            .await;
        self.seen_to(name, offered)?;
        self.shown(name).await
    }

    /// Gives a draft up: all there is of it is deleted.
    ///
    /// # Errors
    /// When the draft is not `who`'s, or it is being spawned.
    pub async fn give_up(&self, who: Asking, name: &AgentName) -> Result<(), CommandError> {
        let (now, agent) = (self.host.clock.now(), name.clone());
        let given_up = self
            .ledger
            .decide_on_register(move |register| {
                let owner = who.owner(register)?;
                let (record, _) = draft::owned(&register.records, &agent, &owner)?;
                let uid = record.uid;
                if register.begun.contains(&uid) {
                    return Err(Refusal::BeingSpawned(agent).into());
                }
                let life = AgentLife::GivenUp { since: now };
                let message = format!("{owner} gave the draft of {agent} up");
                let changes = vec![
                    Change::Life { uid, life },
                    event(&agent, Level::Info, "draftGivenUp", message, now),
                ];
                Ok::<_, CommandError>((changes, ()))
            })
            .await;
        self.seen_to(name, given_up)
    }

    /// The drafts that `who` may touch, by name.
    ///
    /// # Errors
    /// When `who` is no manager, or the ledger fails.
    pub async fn list_drafts(&self, who: Asking) -> Result<Vec<DraftInfo>, CommandError> {
        let register = self.ledger.register().await?;
        let owner = who.owner(&register)?;
        let names = register.records.iter().map(|record| &record.name);
        let names = names.filter(|name| draft::owned(&register.records, name, &owner).is_ok());
        let mut drafts = Vec::new();
        for name in names {
            drafts.push(self.shown(name).await?);
        }
        Ok(drafts)
    }

    /// Changes one draft, or only asks whether that would do. Returns the draft's uid.
    async fn on_draft(
        &self,
        who: Asking,
        name: &AgentName,
        apply: bool,
        change: impl FnOnce(&Draft) -> Result<Draft, Refusal> + Send + 'static,
    ) -> Result<AgentUid, CommandError> {
        let agent = name.clone();
        let decided = self
            .ledger
            .decide_on_register(move |register| {
                let owner = who.owner(register)?;
                let (record, draft) = draft::owned(&register.records, &agent, &owner)?;
                let uid = record.uid;
                if register.begun.contains(&uid) {
                    return Err(Refusal::BeingSpawned(agent).into());
                }
                let next = change(draft)?;
                let changes = (apply && next != *draft).then(|| Change::Draft {
                    uid,
                    draft: Some(Box::new(next)),
                });
                Ok::<_, CommandError>((changes.into_iter().collect(), uid))
            })
            .await;
        if apply {
            self.seen_to(name, decided)
        } else {
            decided
        }
    }

    /// Has the agent looked at when something about it was written, or may have been although the answer is lost.
    fn seen_to<T>(&self, name: &AgentName, written: Result<T, CommandError>) -> Result<T, CommandError> {
        if matches!(written, Ok(_) | Err(CommandError::Ledger(_))) {
            self.nudge(Key::Agent(name.clone()));
        }
        written
    }

    /// Deletes what is staged for an agent and nothing refers to.
    async fn sweep(&self, name: &AgentName, uid: AgentUid) -> Result<(), CommandError> {
        let record = self.ledger.record(name).await?;
        let draft = record
            .filter(|record| record.uid == uid)
            .and_then(|record| record.draft);
        let files = draft.map(|draft| draft.files).unwrap_or_default();
        let keep = files.into_values().map(|file| file.digest).collect();
        Ok(self.host.staging.keep(uid, keep).await?)
    }

    /// Deletes what was staged for drafts that never came to be.
    ///
    /// # Errors
    /// When ledger or disk fail.
    pub async fn sweep_staged(&self) -> Result<(), CommandError> {
        let records = self.ledger.agents().await?;
        // A record that cannot be read may have files.
        let records = records.complete()?;
        let drafts = records.into_iter().filter(|record| record.draft.is_some());
        let drafts = drafts.map(|record| record.uid).collect();
        Ok(self.host.staging.keep_drafts(drafts).await?)
    }

    async fn rules(&self, name: &AgentName) -> Result<Rules, CommandError> {
        let accepted = self.spec_in_force().await?;
        accepted.in_force().ok_or(CommandError::NoSpec)?;
        Ok(draft_rules(&accepted, name))
    }

    /// A draft as its owner sees it.
    async fn shown(&self, name: &AgentName) -> Result<DraftInfo, CommandError> {
        let ledger = self.ledger.agent(name).await?;
        let no_draft = || Refusal::NoDraft(name.clone());
        let ledger = ledger.ok_or_else(no_draft)?;
        let record = &ledger.record;
        let draft = record.draft.as_deref().ok_or_else(no_draft)?;
        let phase = match (&record.seed, &draft.offer, &draft.denied) {
            (_, Some(_), _) => DraftPhase::Offered,
            (None, None, _) => DraftPhase::Making,
            (Some(_), None, Some(denied)) if denied.content == draft.content()? => DraftPhase::Denied,
            (Some(_), None, _) => DraftPhase::Draft,
        };
        let denied = draft.denied.as_ref().map(|denied| denied.reason.clone());
        let mut gates = ledger.gates.iter().map(|record| &record.gate);
        let gate = gates.find(|gate| gate.state == GateState::Open);
        Ok(DraftInfo {
            name: name.clone(),
            uid: record.uid,
            owner: draft.owner.to_string(),
            since: draft.since,
            phase,
            seed: record.seed.clone(),
            commit: draft.commit.clone(),
            files: draft.files.clone(),
            gate: gate.map(|gate| gate.id),
            reason: draft
                .failed
                .clone()
                .or(denied.filter(|_| phase == DraftPhase::Denied)),
        })
    }
}

fn staged(bytes: &[u8]) -> StagedFile {
    StagedFile {
        digest: shared::canonical::digest_file(bytes),
        size: bytes.len() as u64,
    }
}

/// A new draft.
fn drafted(name: &AgentName, uid: AgentUid, draft: Draft) -> Vec<Change> {
    let at = draft.since;
    let owner = draft.owner.to_string();
    let origin = AgentOrigin::Spawn;
    vec![
        Change::Register {
            name: name.clone(),
            uid,
            origin,
            at,
        },
        Change::Life {
            uid,
            life: AgentLife::Draft,
        },
        Change::Draft {
            uid,
            draft: Some(Box::new(draft)),
        },
        Change::Event {
            agent: Some(name.clone()),
            level: Level::Info,
            kind: "drafted",
            message: format!("{owner} prepares {name}"),
            data: json!({ "uid": uid, "owner": owner }),
            at,
        },
    ]
}
