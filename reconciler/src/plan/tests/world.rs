//! One agent and all that is known of it, as plain values.

use std::collections::BTreeMap;

use shared::agent_api::{ProposalPhase, Report};
use shared::config::Overlay;
use shared::gate::{Asker, Decision, Gate, GateClass, GateState};
use shared::spec::AgentSpec;
use shared::status::TurnState;
use shared::{AgentUid, CommitOid, GateId, ProposalNumber};

use super::super::agent::{Inputs, plan};
use super::super::schedule::{Schedule, schedule};
use super::super::*;
use crate::host::fake::oid;
use crate::host::{FolderState, HarnessState, RepoState, TagState, UnitState};
use crate::invariants;
use crate::model::base::Rollout;
use crate::model::build::{BuildOutput, BuildRequest, GrantMode, assemble};
use crate::model::draft::Standing;
use crate::model::inventory::AgentInventory;
use crate::model::records::{
    AgentLedger, AgentLife, AgentOrigin, AgentRecord, BuildState, Deployed, Failures, GateRecord, Mark,
    Override, Overrides, Probation, Proposal,
};

/// Seconds after the story began.
pub(super) fn at(secs: i64) -> Timestamp {
    after(Timestamp::from_second(1_800_000_000).unwrap(), secs)
}

/// When every test looks.
pub(super) const NOW: i64 = 10_000;

pub(super) fn facts() -> HiveFacts {
    HiveFacts {
        id: HiveId(uuid::Uuid::from_u128(1)),
        name: "home".to_owned(),
        operator: OperatorSpec::default(),
        policy: PolicySpec::default(),
        harness: "/bin/hive-harness".into(),
        programs: Default::default(),
        model_url: None,
        runtime: RuntimeKind::Process,
        nix: None,
        provides_key: false,
        unsupported: None,
        watched_since: at(0),
    }
}

/// The announcement of a written config.
pub(super) fn announcement(config: Digest, paused: bool) -> Announcement {
    Announcement {
        config: Some(config),
        paused,
        model: None,
    }
}

pub(super) fn agent_spec(json: &str) -> AgentSpec {
    serde_json::from_str(json).unwrap()
}

/// All that the plan of one agent is made from.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) facts: HiveFacts,
    pub(super) spec: Option<AgentSpec>,
    pub(super) inventory: AgentInventory,
    pub(super) ledger: AgentLedger,
    pub(super) standing: Standing,
    pub(super) rollout: Rollout,
    pub(super) now: Timestamp,
}

impl Case {
    /// An agent that is declared, and of which nothing exists.
    pub(super) fn declared() -> Self {
        let record = AgentRecord {
            uid: AgentUid(uuid::Uuid::from_u128(2)),
            name: "alice".parse().unwrap(),
            life: AgentLife::Declared,
            origin: AgentOrigin::Spec,
            declared_at: at(0),
            seed: None,
            deployed: None,
            last_good: None,
            restart_before: None,
            order: None,
            rebuild: false,
            purge: None,
            draft: None,
            recovered: None,
            out_of_memory: None,
        };
        let ledger = AgentLedger {
            record,
            proposals: Vec::new(),
            gates: Vec::new(),
            builds: BTreeMap::new(),
            attempts: BTreeMap::new(),
            probation: None,
            quarantine: BTreeMap::new(),
            overrides: Overrides::default(),
            failures: Failures::default(),
            user_range: None,
            inbox: 0,
        };
        let inventory = AgentInventory {
            collected_at: at(NOW),
            unit: Ok(UnitState::Absent),
            repo: Ok(None),
            descends: Ok(BTreeMap::new()),
            folders: Ok(FolderState::default()),
            systems: Ok(BTreeMap::new()),
            harness: None,
        };
        Self {
            facts: facts(),
            spec: Some(AgentSpec::default()),
            inventory,
            ledger,
            standing: Standing::Fine,
            rollout: Rollout::default(),
            now: at(NOW),
        }
    }

    /// It has its repo and folders, and nothing was built yet.
    pub(super) fn spawned() -> Self {
        let mut case = Self::declared();
        let seed = oid("seed");
        case.ledger.record.life = AgentLife::Active;
        case.ledger.record.seed = Some(seed.clone());
        case.inventory.repo = Ok(Some(RepoState {
            main: Some(seed),
            tags: BTreeMap::new(),
        }));
        case.inventory.folders = Ok(FolderState {
            prepared: true,
            ..FolderState::default()
        });
        case
    }

    /// It runs what is declared, and nothing is left to do.
    pub(super) fn at_rest() -> Self {
        Self::at_rest_with("{}")
    }

    /// The same, declared like this.
    pub(super) fn at_rest_with(spec: &str) -> Self {
        let mut case = Self::spawned();
        case.spec = Some(agent_spec(spec));
        let output = case.build_candidate();
        case.deployed(output);
        case.ledger.record.last_good = case.ledger.record.deployed.clone();
        case.running();
        case
    }

    pub(super) fn request(&self, commit: &CommitOid, grants: GrantMode) -> BuildRequest {
        BuildRequest {
            agent: self.ledger.record.name.clone(),
            uid: self.ledger.record.uid,
            hive: self.facts.name.clone(),
            operator: self.facts.operator.clone(),
            commit: commit.clone(),
            spec: self.spec.clone().unwrap(),
            harness: self.facts.harness.clone(),
            programs: self.facts.programs.clone(),
            model_url: self.facts.model_url.clone(),
            user_range: None,
            nix: self.facts.nix.clone(),
            provides_key: Some(self.facts.provides_key),
            grants,
        }
    }

    pub(super) fn build(&mut self, request: &BuildRequest, overlay: &Overlay) -> BuildOutput {
        let output = assemble(request, overlay, |digest| format!("/systems/{digest}")).unwrap();
        let built = BuildState::Built(Box::new(output.clone()));
        self.ledger.builds.insert(request.key().unwrap(), built);
        if let Ok(systems) = &mut self.inventory.systems {
            systems.insert(output.system.clone(), true);
        }
        output
    }

    /// The request for what spec and deployed commit ask for.
    pub(super) fn candidate(&self) -> BuildRequest {
        let record = &self.ledger.record;
        let granted = record.deployed.as_ref().map(|d| d.output.grants.clone());
        self.request(
            record.main().unwrap(),
            GrantMode::Granted(granted.unwrap_or_default()),
        )
    }

    /// Builds what spec and deployed commit ask for.
    pub(super) fn build_candidate(&mut self) -> BuildOutput {
        let request = self.candidate();
        self.build(&request, &Overlay::default())
    }

    /// The ledger has this deployed.
    pub(super) fn deployed(&mut self, output: BuildOutput) {
        self.ledger.record.deployed = Some(Deployed {
            output,
            proposal: ProposalNumber(0),
            gate: GateId(1),
            at: at(100),
        });
    }

    pub(super) fn output(&self) -> BuildOutput {
        self.ledger.record.deployed.clone().unwrap().output
    }

    /// What is deployed is written, runs and is reported.
    pub(super) fn running(&mut self) {
        let output = self.output();
        self.inventory.folders = Ok(FolderState {
            prepared: true,
            toplevel: Some(output.toplevel.clone()),
            config: Some(output.config_digest.clone()),
        });
        self.inventory.unit = Ok(UnitState::Running {
            toplevel: output.toplevel,
            since: at(200),
            run: "run-1".to_owned(),
            resources: crate::host::Resources::default(),
        });
        self.inventory.harness = Some(HarnessState {
            report: Report {
                version: "1".to_owned(),
                run_id: "r".to_owned(),
                seq: 1,
                lease: None,
                config: Some(output.config_digest),
                config_error: None,
                turn_error: None,
                events_error: None,
                instructed: 0,
                model: None,
                turn: TurnState::Idle,
                mcp: BTreeMap::new(),
                login: None,
            },
            at: at(NOW - 10),
        });
    }

    pub(super) fn report(&mut self) -> &mut Report {
        &mut self.inventory.harness.as_mut().unwrap().report
    }

    /// It does not run and never reported.
    pub(super) fn absent(&mut self) {
        self.inventory.unit = Ok(UnitState::Absent);
        self.inventory.harness = None;
    }

    /// It is in the middle of a turn.
    pub(super) fn busy(&mut self) {
        self.report().turn = TurnState::Thinking;
    }

    /// What is deployed is on trial since 10 s, and ran all the time.
    pub(super) fn on_trial(&mut self) -> &mut Probation {
        self.ledger.probation.insert(Probation {
            system: self.ledger.record.deployed.clone().unwrap().output.system,
            since: at(NOW - 10),
            window_secs: 60,
            active_secs: 0,
            active_since: Some(at(NOW - 10)),
            failed_starts: 0,
            watched: Default::default(),
            gate: GateId(1),
            proposal: None,
            updates_base: false,
        })
    }

    /// An agent offers a commit on top of `main`.
    pub(super) fn propose(&mut self, number: u64) -> &mut Proposal {
        let commit = oid(&format!("proposal {number}"));
        if let Ok(descends) = &mut self.inventory.descends {
            descends.insert(commit.clone(), true);
        }
        let proposal = Proposal {
            number: ProposalNumber(number),
            commit,
            title: "a title".to_owned(),
            reason: "a reason".to_owned(),
            asked_by: Asker::Agent,
            phase: ProposalPhase::Proposed,
            marks: BTreeMap::from([(ProposalPhase::Proposed, mark(""))]),
        };
        self.ledger.proposals.push(proposal);
        self.write_tags();
        self.ledger.proposals.last_mut().unwrap()
    }

    /// Builds the newest proposal, whose commit holds this overlay.
    pub(super) fn build_proposal(&mut self, overlay: &str) -> BuildOutput {
        let overlay: Overlay = serde_json::from_str(overlay).unwrap();
        let commit = self.ledger.proposals.last().unwrap().commit.clone();
        let request = self.request(&commit, GrantMode::Asked);
        self.build(&request, &overlay)
    }

    /// A build that failed.
    pub(super) fn build_fails(&mut self, request: &BuildRequest) {
        let state = BuildState::Failed {
            error: "no such model".to_owned(),
        };
        self.ledger.builds.insert(request.key().unwrap(), state);
    }

    /// The repo has the tags that the ledger asks for.
    pub(super) fn write_tags(&mut self) {
        let wanted = super::super::refs::wanted_tags(&self.ledger.proposals);
        let tags = wanted.into_iter().map(|(name, tag)| {
            let state = TagState {
                object: oid(&name),
                commit: tag.commit,
                message: tag.message,
            };
            (name, state)
        });
        self.repo().tags = tags.collect();
    }

    pub(super) fn repo(&mut self) -> &mut RepoState {
        self.inventory.repo.as_mut().unwrap().as_mut().unwrap()
    }

    /// A gate about this step.
    pub(super) fn gate(&mut self, planned: &PlannedStep, state: GateState) -> GateId {
        let id = GateId(100 + self.ledger.gates.len() as u64);
        self.ledger.gates.push(gate_record(id, planned, state));
        id
    }

    pub(super) fn plan(&self) -> Plan {
        let plan = self.plan_unchecked();
        let violations = invariants::check(&plan, &self.inventory, &self.ledger);
        assert_eq!(violations, [], "{plan:#?}");
        plan
    }

    pub(super) fn plan_unchecked(&self) -> Plan {
        plan(self.inputs()).unwrap()
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            facts: &self.facts,
            spec: self.spec.as_ref(),
            inventory: &self.inventory,
            ledger: &self.ledger,
            standing: &self.standing,
            rollout: &self.rollout,
            now: self.now,
        }
    }

    pub(super) fn scheduled(&self, plan: &Plan) -> Schedule {
        let AgentLedger { gates, attempts, .. } = &self.ledger;
        schedule(&self.facts.policy, plan, gates, attempts, self.now)
    }

    /// The kinds of the planned steps, in order.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        kinds(&self.plan())
    }

    /// What the plan waits on.
    pub(super) fn waits(&self) -> Vec<WaitingOn> {
        self.plan()
            .waiting
            .into_iter()
            .map(|waiting| waiting.on)
            .collect()
    }
}

pub(super) fn kinds(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(|step| step.step.action.kind()).collect()
}

/// The one planned step of this kind.
pub(super) fn step<'a>(plan: &'a Plan, kind: &str) -> &'a PlannedStep {
    let mut found = plan.steps.iter().filter(|step| step.step.action.kind() == kind);
    let step = found.next();
    assert!(found.next().is_none(), "more than one {kind}");
    step.unwrap_or_else(|| panic!("no {kind}: {:?} {:?}", kinds(plan), plan.waiting))
}

/// The class that a step asks for.
pub(super) fn class(planned: &PlannedStep) -> Option<GateClass> {
    match planned.step.authority {
        Authority::Class { class, .. } => Some(class),
        Authority::Free | Authority::Under(_) => None,
    }
}

pub(super) fn mark(reason: &str) -> Mark {
    Mark {
        at: at(300),
        gate: None,
        digest: None,
        by: None,
        reason: reason.to_owned(),
    }
}

pub(super) fn over<T>(value: T, until: Option<Timestamp>) -> Override<T> {
    Override {
        value,
        by: "unix:root".to_owned(),
        reason: "for a reason".to_owned(),
        since: at(NOW - 60),
        until,
        over: None,
    }
}

pub(super) fn gate_record(id: GateId, planned: &PlannedStep, state: GateState) -> GateRecord {
    let Authority::Class { class, asked_by } = planned.step.authority else {
        panic!("no gate is about a step that needs none");
    };
    let proposal = match &planned.step.action {
        Action::Deploy { proposal, .. } | Action::Build { proposal, .. } => *proposal,
        _ => None,
    };
    let decision = Decision {
        approve: state != GateState::Denied,
        by: "unix:root".to_owned(),
        at: at(400),
        reason: String::new(),
        digest: planned.effect_digest.clone(),
    };
    GateRecord {
        gate: Gate {
            id,
            agent: planned.step.agent.clone(),
            uid: planned.step.uid,
            class,
            asked_by,
            state,
            digest: planned.effect_digest.clone(),
            proposal,
            commit: None,
            system: None,
            opened_at: at(350),
            decision: (state != GateState::Open).then_some(decision),
            consumed_at: (state == GateState::Consumed).then(|| at(450)),
            completed_at: None,
            ended_because: None,
            view: GateView::default(),
        },
        step: planned.step.clone(),
    }
}
