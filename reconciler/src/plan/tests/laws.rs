//! What holds of every plan, whatever is declared, observed and remembered.

use proptest::prelude::*;
use shared::agent_api::ProposalPhase;
use shared::gate::{GateClass, GateState, Verdict};
use shared::plan::WaitingOn;
use shared::spec::RunState;
use shared::status::TurnState;

use super::world::*;
use crate::gate::revalidate;
use crate::host::fake::oid;
use crate::host::{ExitCause, UnitState};
use crate::invariants;
use crate::model::gates::GateAction;
use crate::model::records::{AgentLife, Quarantine};
use crate::model::step::Authority;
use crate::plan::schedule::Schedule;
use crate::plan::{Plan, deadline};

/// One thing that may be different from an agent at rest.
type Twist = (&'static str, fn(&mut Case));

const TWISTS: &[Twist] = &[
    ("another prompt", |case| {
        with_spec(case, |spec| spec.prompt = "new".to_owned());
    }),
    ("another network", |case| {
        with_spec(case, |spec| spec.network = shared::spec::Network::None);
    }),
    ("stopped", |case| {
        with_spec(case, |spec| spec.run = RunState::Stopped);
    }),
    ("paused", |case| {
        with_spec(case, |spec| spec.run = RunState::Paused);
    }),
    ("immediate", |case| {
        with_spec(case, |spec| spec.drain = shared::spec::Drain::Immediate);
    }),
    ("no spec", |case| case.spec = None),
    ("candidate built", |case| {
        if case.spec.is_some() && case.ledger.record.main().is_some() {
            case.build_candidate();
        }
    }),
    ("candidate fails to build", |case| {
        if case.spec.is_some() && case.ledger.record.main().is_some() {
            let request = case.candidate();
            case.build_fails(&request);
        }
    }),
    ("nothing deployed", |case| case.ledger.record.deployed = None),
    ("no last good", |case| case.ledger.record.last_good = None),
    ("no seed", |case| case.ledger.record.seed = None),
    ("declared", |case| case.ledger.record.life = AgentLife::Declared),
    ("removed", |case| {
        case.ledger.record.life = AgentLife::Removed { since: at(0) }
    }),
    ("archived", |case| {
        case.ledger.record.life = AgentLife::Archived { since: at(0) }
    }),
    ("on trial", |case| {
        if case.ledger.record.deployed.is_some() {
            case.on_trial();
        }
    }),
    ("out of time", |case| {
        if let Some(trial) = &mut case.ledger.probation {
            trial.active_secs = 60;
        }
    }),
    ("failed starts", |case| {
        if let Some(trial) = &mut case.ledger.probation {
            trial.failed_starts = 3;
        }
    }),
    ("everything quarantined", |case| {
        let quarantine = |system: &String| {
            let why = Quarantine {
                reason: "it crashed".to_owned(),
                since: at(0),
            };
            (system.clone(), why)
        };
        case.ledger.quarantine = case
            .inventory
            .systems
            .iter()
            .flatten()
            .map(|(s, _)| quarantine(s))
            .collect();
    }),
    ("overridden to run", |case| {
        case.ledger.overrides.run = Some(over(RunState::Running, None));
    }),
    ("overridden to stop", |case| {
        case.ledger.overrides.run = Some(over(RunState::Stopped, Some(at(NOW + 9))));
    }),
    ("suspended", |case| {
        case.ledger.overrides.suspended = Some(over((), None));
    }),
    ("restart requested", |case| {
        case.ledger.record.restart_before = Some(at(NOW));
    }),
    ("failures", |case| {
        case.ledger.failures.count = 4;
        case.ledger.failures.last_at = Some(at(NOW - 1));
    }),
    ("absent", Case::absent),
    ("crashed", |case| {
        case.absent();
        case.inventory.unit = Ok(UnitState::Exited {
            toplevel: None,
            at: at(NOW - 2),
            cause: ExitCause::Signal(9),
        });
    }),
    ("foreign", |case| {
        case.inventory.unit = Ok(UnitState::Foreign {
            what: "pid 7".to_owned(),
        });
    }),
    ("another toplevel", |case| {
        if let Ok(UnitState::Running { toplevel, .. }) = &mut case.inventory.unit {
            *toplevel = shared::canonical::digest(shared::canonical::Encoding::Toplevel, "x").unwrap();
        }
    }),
    ("runtime unknown", |case| {
        case.inventory.unit = Err("no answer".to_owned());
    }),
    ("repo unknown", |case| {
        case.inventory.repo = Err("no answer".to_owned());
    }),
    ("repo gone", |case| case.inventory.repo = Ok(None)),
    ("main moved", |case| {
        if let Ok(Some(repo)) = &mut case.inventory.repo {
            repo.main = Some(oid("elsewhere"));
        }
    }),
    ("tags gone", |case| {
        if let Ok(Some(repo)) = &mut case.inventory.repo {
            repo.tags.clear();
        }
    }),
    ("descent unknown", |case| {
        case.inventory.descends = Err("no answer".to_owned());
    }),
    ("nothing descends", |case| {
        for below in case
            .inventory
            .descends
            .iter_mut()
            .flat_map(|all| all.values_mut())
        {
            *below = false;
        }
    }),
    ("folders unknown", |case| {
        case.inventory.folders = Err("no answer".to_owned());
    }),
    ("folders empty", |case| {
        case.inventory.folders = Ok(Default::default());
    }),
    ("systems unknown", |case| {
        case.inventory.systems = Err("no answer".to_owned());
    }),
    ("systems gone", |case| {
        for there in case.inventory.systems.iter_mut().flat_map(|all| all.values_mut()) {
            *there = false;
        }
    }),
    ("no report", |case| case.inventory.harness = None),
    ("busy", |case| with_report(case, |case| case.busy())),
    ("needs login", |case| {
        with_report(case, |case| case.report().turn = TurnState::NeedsLogin);
    }),
    ("another config", |case| {
        with_report(case, |case| case.report().config = None);
    }),
    ("config error", |case| {
        with_report(case, |case| case.report().config_error = Some("no".to_owned()));
    }),
    ("proposal", |case| offer(case, r#"{ "network": "none" }"#, false)),
    ("built proposal", |case| {
        offer(case, r#"{ "prompt": "other" }"#, true);
    }),
    ("approved proposal", |case| {
        offer(case, r#"{ "network": "none" }"#, true);
        if let Some(last) = case.ledger.proposals.last_mut() {
            last.phase = ProposalPhase::Approved;
        }
    }),
    ("never", |case| {
        case.facts
            .policy
            .agent
            .insert(GateClass::DeployWidens, Verdict::Never);
        case.facts.policy.spec.insert(GateClass::Start, Verdict::Never);
    }),
    ("unsupported", |case| {
        case.facts.unsupported = Some("not part of this version".to_owned());
    }),
];

fn with_spec(case: &mut Case, change: impl FnOnce(&mut shared::spec::AgentSpec)) {
    if let Some(spec) = &mut case.spec {
        change(spec);
    }
}

fn with_report(case: &mut Case, change: impl FnOnce(&mut Case)) {
    if case.inventory.harness.is_some() {
        change(case);
    }
}

fn offer(case: &mut Case, overlay: &str, built: bool) {
    if matches!(case.inventory.repo, Ok(Some(_))) {
        let number = case.ledger.proposals.len() as u64 + 1;
        case.propose(number);
        if built && case.spec.is_some() {
            case.build_proposal(overlay);
        }
    }
}

pub(super) fn cases() -> impl Strategy<Value = (Vec<&'static str>, Case)> {
    let start = prop_oneof![
        Just(Case::at_rest()),
        Just(Case::spawned()),
        Just(Case::declared())
    ];
    let twists = proptest::collection::vec(proptest::sample::select(TWISTS), 0..7);
    (start, twists).prop_map(|(start, twists)| {
        let mut case = start;
        for (_, twist) in &twists {
            twist(&mut case);
        }
        (twists.iter().map(|(name, _)| *name).collect(), case)
    })
}

/// Opens and decides gates as the policy and an operator who always says yes would.
fn approve_all(case: &mut Case, plan: &Plan) {
    for action in revalidate(&case.facts.policy, plan, &case.ledger.gates) {
        if let GateAction::Open(gate) = action {
            let planned = plan
                .steps
                .iter()
                .find(|step| step.effect_digest == gate.digest)
                .unwrap();
            case.gate(planned, GateState::Approved);
        }
    }
}

/// Everything is known and as wanted, judged apart from the planner.
pub(super) fn is_converged(case: &Case) -> bool {
    let record = &case.ledger.record;
    match record.life {
        AgentLife::Archived { .. } | AgentLife::Purged { .. } => return true,
        AgentLife::Active => {}
        AgentLife::Declared
        | AgentLife::Draft
        | AgentLife::GivenUp { .. }
        | AgentLife::Removed { .. }
        | AgentLife::Restoring { .. } => {
            return false;
        }
    }
    let (Some(spec), Ok(Some(repo)), Ok(folders)) =
        (&case.spec, &case.inventory.repo, &case.inventory.folders)
    else {
        return false;
    };
    let Some(output) = record.deployed.as_ref().map(|deployed| &deployed.output) else {
        return false;
    };
    let overridden = case
        .ledger
        .overrides
        .run
        .as_ref()
        .filter(|o| o.holds(case.now))
        .map(|o| o.value);
    let runs = match &case.inventory.unit {
        Ok(UnitState::Running { toplevel, .. }) => Some(*toplevel == output.toplevel),
        Ok(UnitState::Absent | UnitState::Exited { .. }) => None,
        Ok(UnitState::Foreign { .. }) | Err(_) => return false,
    };
    let wanted_run = overridden.unwrap_or(spec.run);
    let run_is_right = match wanted_run {
        RunState::Stopped => runs.is_none(),
        RunState::Running | RunState::Paused => runs == Some(true),
    };
    let reported = case
        .inventory
        .harness
        .as_ref()
        .map(|h| h.report.config.as_ref() == Some(&output.config_digest));
    run_is_right
        && repo.main.as_ref() == record.main()
        && folders.toplevel.as_ref() == Some(&output.toplevel)
        && folders.config.as_ref() == Some(&output.config_digest)
        && (runs.is_none() || reported == Some(true))
        // The trial of an agent that is not meant to take turns goes on when it is.
        && (case.ledger.probation.is_none() || wanted_run != RunState::Running)
        && case.ledger.proposals.iter().all(|p| p.phase.is_final())
}

fn schedule_of(case: &Case, plan: &Plan) -> Schedule {
    case.scheduled(plan)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_an_invariant((twists, case) in cases()) {
        let plan = case.plan_unchecked();
        let violations = invariants::check(&plan, &case.inventory, &case.ledger);
        prop_assert!(violations.is_empty(), "{twists:?}: {violations:?} {:?}", kinds(&plan));
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes((twists, case) in cases()) {
        let (one, other) = (case.plan_unchecked(), case.clone().plan_unchecked());
        prop_assert_eq!(format!("{one:?}"), format!("{other:?}"), "{:?}", twists);
        let bytes = |plan: &Plan| serde_json::to_vec(&plan.view(plan.waiting.clone()).unwrap()).unwrap();
        prop_assert_eq!(bytes(&one), bytes(&other));
    }

    #[test]
    fn no_progress_names_a_reason_and_silence_means_converged((twists, mut case) in cases(), approve in any::<bool>()) {
        let plan = case.plan_unchecked();
        if approve {
            approve_all(&mut case, &plan);
        }
        let schedule = schedule_of(&case, &plan);
        if schedule.ready.is_empty() && schedule.waiting.is_empty() {
            prop_assert!(plan.steps.is_empty(), "{twists:?}: {:?}", kinds(&plan));
            prop_assert!(is_converged(&case), "{twists:?}: silent, and not converged");
        }
    }

    #[test]
    fn a_wait_that_ends_by_itself_is_woken_for((twists, mut case) in cases()) {
        let plan = case.plan_unchecked();
        approve_all(&mut case, &plan);
        let schedule = schedule_of(&case, &plan);
        for waiting in &schedule.waiting {
            if let Some(at) = deadline(&waiting.on) {
                prop_assert!(schedule.wake_at.is_some_and(|wake| wake <= at), "{twists:?}: {waiting:?}");
            }
        }
    }

    #[test]
    fn gates_settle_at_once((twists, mut case) in cases()) {
        let plan = case.plan_unchecked();
        approve_all(&mut case, &plan);
        let again = case.plan_unchecked();
        let actions = revalidate(&case.facts.policy, &again, &case.ledger.gates);
        // A decision may move the plan by one phase, never by a gate of the same effect.
        for action in actions {
            let GateAction::Open(gate) = action else { continue };
            let asked = case.ledger.gates.iter().any(|record| record.gate.digest == gate.digest);
            prop_assert!(!asked, "{twists:?}: asked twice for {:?}", gate.step.action.kind());
        }
    }

    #[test]
    fn nothing_with_an_effect_outside_is_ready_without_a_decision((twists, case) in cases()) {
        let plan = case.plan_unchecked();
        let schedule = schedule_of(&case, &plan);
        for ready in &schedule.ready {
            let free = matches!(ready.planned.step.authority, Authority::Free | Authority::Under(_));
            prop_assert!(free, "{twists:?}: {:?}", ready.planned.step.action.kind());
            let kind = ready.planned.step.action.kind();
            prop_assert!(!["build", "deploy", "spawn", "archive"].contains(&kind), "{twists:?}: {kind}");
        }
    }

    #[test]
    fn a_source_that_fails_takes_steps_away_and_adds_none_that_destroys((twists, case) in cases()) {
        let away = |plan: &Plan| -> Vec<String> {
            let destroys = |kind: &&str| ["stop", "restart", "archive", "projectRef"].contains(kind);
            kinds(plan).into_iter().filter(destroys).map(str::to_owned).collect()
        };
        let before = away(&case.plan_unchecked());
        let blinds: [fn(&mut Case); 5] = [
            |case| case.inventory.unit = Err("no answer".to_owned()),
            |case| case.inventory.repo = Err("no answer".to_owned()),
            |case| case.inventory.descends = Err("no answer".to_owned()),
            |case| case.inventory.folders = Err("no answer".to_owned()),
            |case| case.inventory.systems = Err("no answer".to_owned()),
        ];
        for (index, blind) in blinds.into_iter().enumerate() {
            let mut blinded = case.clone();
            blind(&mut blinded);
            let after = away(&blinded.plan_unchecked());
            prop_assert!(after.iter().all(|kind| before.contains(kind)), "{twists:?} {index}: {before:?} {after:?}");
        }
    }
}

/// A suspended agent that is otherwise at rest waits for its resumption alone.
#[test]
fn every_wait_of_a_suspended_agent_is_its_suspension() {
    for (name, twist) in TWISTS {
        let mut case = Case::at_rest();
        twist(&mut case);
        if case.ledger.record.life != AgentLife::Active {
            continue;
        }
        case.ledger.overrides.suspended = Some(over((), None));
        let plan = case.plan();
        assert!(plan.steps.is_empty(), "{name}");
        assert!(
            matches!(plan.waiting[..], [_]) && matches!(plan.waiting[0].on, WaitingOn::Suspended { .. }),
            "{name}"
        );
    }
}
