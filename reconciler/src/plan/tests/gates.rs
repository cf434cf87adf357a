//! Laws of gates beside any plan: what is asked, what is ended, what is permitted.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shared::gate::GateState;
use shared::{Digest, GateId};

use super::laws::cases;
use super::world::*;
use crate::gate::{Permission, permission, revalidate};
use crate::model::gates::GateAction;
use crate::model::records::GateRecord;
use crate::model::step::{Authority, PlannedStep};
use crate::plan::Plan;

/// What became of an earlier question about an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    NeverAsked,
    Is(GateState),
    /// Its effect was carried out, or given up.
    Completed,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let states = [
        GateState::Open,
        GateState::Approved,
        GateState::Denied,
        GateState::Superseded,
        GateState::Expired,
        GateState::Consumed,
    ];
    let fate = prop_oneof![
        1 => Just(Fate::NeverAsked),
        6 => prop::sample::select(states.to_vec()).prop_map(Fate::Is),
        1 => Just(Fate::Completed),
    ];
    prop::collection::vec(fate, 24)
}

fn gated(plan: &Plan) -> impl Iterator<Item = &PlannedStep> {
    let asks = |step: &&PlannedStep| matches!(step.step.authority, Authority::Class { .. });
    plan.steps.iter().filter(asks)
}

/// Gates about the steps of these plans, as fate has it.
fn gates_of(plans: &[&Plan], fates: &[Fate]) -> Vec<GateRecord> {
    let mut gates: Vec<GateRecord> = Vec::new();
    let steps = plans.iter().flat_map(|plan| gated(plan));
    for (step, fate) in steps.zip(fates.iter().cycle()) {
        let id = GateId(gates.len() as u64 + 1);
        match fate {
            Fate::NeverAsked => {}
            Fate::Is(state) => gates.push(gate_record(id, step, *state)),
            Fate::Completed => {
                let mut record = gate_record(id, step, GateState::Consumed);
                record.gate.completed_at = Some(at(460));
                gates.push(record);
            }
        }
    }
    gates
}

/// The gates after these actions.
fn carried_out(mut gates: Vec<GateRecord>, plan: &Plan, actions: &[GateAction]) -> Vec<GateRecord> {
    for action in actions {
        match action {
            GateAction::Open(new) => {
                let step = gated(plan).find(|step| step.effect_digest == new.digest).unwrap();
                gates.push(gate_record(
                    GateId(1_000 + gates.len() as u64),
                    step,
                    GateState::Open,
                ));
            }
            GateAction::End { gate, .. } => {
                let ended = gates.iter_mut().find(|record| record.gate.id == *gate).unwrap();
                ended.gate.state = GateState::Superseded;
            }
        }
    }
    gates
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// One plan is today's; gates are about it and about one of another day.
    #[test]
    fn gates_are_kept_asked_and_ended_by_the_rules(
        (twists, case) in cases(),
        (_, earlier) in cases(),
        fates in fates(),
    ) {
        let (plan, earlier) = (case.plan_unchecked(), earlier.plan_unchecked());
        let policy = &case.facts.policy;
        let gates = gates_of(&[&plan, &earlier], &fates);
        let actions = revalidate(policy, &plan, &gates);
        let planned: BTreeSet<&Digest> = gated(&plan).map(|step| &step.effect_digest).collect();
        let wanted: BTreeSet<&Digest> = planned.iter().copied().chain(&plan.later).collect();
        let mut asked = BTreeSet::new();
        for action in &actions {
            match action {
                GateAction::Open(new) => {
                    let matters = |record: &&GateRecord| match record.gate.state {
                        GateState::Open | GateState::Approved | GateState::Denied => true,
                        GateState::Consumed => record.gate.completed_at.is_none(),
                        GateState::Superseded | GateState::Expired => false,
                    };
                    let same = gates.iter().filter(|record| record.gate.digest == new.digest);
                    prop_assert!(same.filter(matters).count() == 0, "{twists:?}: an unchanged effect is asked about again");
                    prop_assert!(asked.insert(new.digest.clone()), "{twists:?}: asked twice at once");
                    prop_assert!(planned.contains(&new.digest));
                    prop_assert!(new.auto.is_none() || !new.class.always_asks());
                }
                GateAction::End { gate, .. } => {
                    let ended = gates.iter().find(|record| record.gate.id == *gate).unwrap();
                    prop_assert!(!plan.partial, "{twists:?}: a partial plan ends a gate");
                    prop_assert!(!wanted.contains(&ended.gate.digest), "{twists:?}: what is wanted is ended");
                    prop_assert!(matches!(ended.gate.state, GateState::Open | GateState::Approved));
                }
            }
        }
        let after = carried_out(gates, &plan, &actions);
        prop_assert_eq!(revalidate(policy, &plan, &after).len(), 0, "{:?}: gates do not settle", twists);
        if !plan.partial {
            let left = after.iter().filter(|record| matches!(record.gate.state, GateState::Open | GateState::Approved));
            for record in left {
                prop_assert!(wanted.contains(&record.gate.digest), "{twists:?}: an approval outlives its effect");
            }
        }
    }

    #[test]
    fn what_is_permitted_has_an_approval_of_that_very_effect((twists, case) in cases(), fates in fates()) {
        let plan = case.plan_unchecked();
        let gates = gates_of(&[&plan], &fates);
        for step in &plan.steps {
            let of = |id: GateId| &gates.iter().find(|record| record.gate.id == id).unwrap().gate;
            match permission(&case.facts.policy, step, &gates) {
                Permission::Granted(None) => {
                    let free = matches!(step.step.authority, Authority::Free | Authority::Under(_));
                    prop_assert!(free, "{twists:?}: {step:?}");
                }
                Permission::Granted(Some(id)) => {
                    let gate = of(id);
                    prop_assert_eq!(&gate.digest, &step.effect_digest);
                    prop_assert!(matches!(gate.state, GateState::Approved | GateState::Consumed));
                    prop_assert!(gate.completed_at.is_none(), "{twists:?}: an approval is used twice");
                    prop_assert!(gate.decision.as_ref().is_some_and(|decision| decision.approve));
                }
                Permission::Waits(id) => prop_assert_eq!(of(id).state, GateState::Open),
                Permission::Denied(id) => prop_assert_eq!(of(id).state, GateState::Denied),
                Permission::Never(_) | Permission::NoGate => {
                    let live = |record: &GateRecord| {
                        record.gate.digest == step.effect_digest && record.gate.state == GateState::Approved
                    };
                    prop_assert!(!gates.iter().any(live), "{twists:?}: an approval is forgotten");
                }
            }
        }
    }
}
