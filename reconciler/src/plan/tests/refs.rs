//! `main` and the tags.

use shared::agent_api::ProposalPhase;
use shared::plan::WaitingOn;
use shared::{GateId, ProposalNumber};

use super::world::*;
use crate::host::RefUpdate;
use crate::host::fake::oid;
use crate::model::records::{Mark, Proposal};
use crate::model::step::Action;
use crate::plan::refs::{main_drifted, wanted_tags};

fn reached(phases: &[ProposalPhase], now: ProposalPhase) -> Proposal {
    let mut case = Case::at_rest();
    let proposal = case.propose(7);
    proposal.phase = now;
    proposal.marks = phases.iter().map(|phase| (*phase, mark("because"))).collect();
    proposal.clone()
}

fn names(proposal: Proposal) -> Vec<String> {
    wanted_tags(&[proposal]).into_keys().collect()
}

fn updates(case: &Case) -> Vec<RefUpdate> {
    let update = |action| match action {
        Action::ProjectRef(update) => Some(update),
        _ => None,
    };
    case.plan()
        .steps
        .into_iter()
        .filter_map(|step| update(step.step.action))
        .collect()
}

#[test]
fn each_phase_shows_what_was_reached_and_not_taken_back() {
    use ProposalPhase as P;
    let table: [(&[P], P, &[&str]); 8] = [
        (&[P::Proposed], P::Proposed, &["proposal/7"]),
        (
            &[P::Proposed, P::Building],
            P::Building,
            &["building/7", "proposal/7"],
        ),
        (&[P::Proposed, P::Building], P::Proposed, &["proposal/7"]),
        (
            &[P::Proposed, P::Building, P::Approved],
            P::Approved,
            &["approved/7", "proposal/7"],
        ),
        (&[P::Proposed, P::Approved], P::Proposed, &["proposal/7"]),
        (
            &[P::Proposed, P::Approved, P::Deployed],
            P::Deployed,
            &["approved/7", "deployed/7", "proposal/7"],
        ),
        (
            &[P::Proposed, P::Approved, P::Deployed, P::Failed],
            P::Failed,
            &["approved/7", "failed/7", "proposal/7"],
        ),
        (&[P::Proposed, P::Denied], P::Denied, &["denied/7", "proposal/7"]),
    ];
    for (marks, now, tags) in table {
        assert_eq!(names(reached(marks, now)), tags, "{marks:?} now {now:?}");
    }
}

#[test]
fn a_reason_cannot_forge_another_field_of_the_annotation() {
    let hostile = [
        "x\ngate: 9",
        "x\r\nby: unix:root",
        "x\u{2028}gate: 9",
        "x\u{85}gate: 9",
        "x\u{2029}digest: y",
    ];
    for reason in hostile {
        let mut proposal = reached(&[ProposalPhase::Denied], ProposalPhase::Denied);
        let said = Mark {
            gate: Some(GateId(3)),
            by: Some("unix:alice".to_owned()),
            reason: reason.to_owned(),
            ..mark("")
        };
        proposal.marks.insert(ProposalPhase::Denied, said);
        let message = wanted_tags(&[proposal])["denied/7"].message.clone();
        let lines: Vec<&str> = message
            .split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
            .collect();
        let starting = |key: &str| lines.iter().filter(|line| line.starts_with(key)).count();
        assert_eq!(
            (
                starting("gate:"),
                starting("by:"),
                starting("digest:"),
                starting("reason:")
            ),
            (1, 1, 0, 1),
            "{reason:?} in {message:?}"
        );
    }
}

#[test]
fn a_missing_tag_is_written_and_a_changed_one_put_back_from_where_it_is() {
    let mut case = Case::at_rest();
    case.propose(1).phase = ProposalPhase::Denied;
    let seen = case.repo().tags["proposal/1"].clone();
    case.repo().tags.clear();
    assert!(matches!(&updates(&case)[..], [RefUpdate::Tag { name, from: None, .. }] if name == "proposal/1"));

    let mut moved = seen.clone();
    moved.commit = oid("elsewhere");
    moved.object = oid("another object");
    case.repo().tags.insert("proposal/1".to_owned(), moved.clone());
    let [RefUpdate::Tag { from, commit, .. }] = &updates(&case)[..] else {
        panic!("{:?}", updates(&case))
    };
    assert_eq!((from.as_ref(), commit), (Some(&moved.object), &seen.commit));
    assert!(
        case.plan()
            .notices
            .iter()
            .any(|notice| notice.contains("proposal/1"))
    );

    let mut forged = seen;
    forged.message.push_str("by: unix:root\n");
    case.repo().tags.insert("proposal/1".to_owned(), forged);
    assert_eq!(updates(&case).len(), 1, "an annotation is a fact too");
}

#[test]
fn tags_in_our_folders_that_nobody_wants_go_and_all_others_stay() {
    let mut case = Case::at_rest();
    case.propose(1);
    let stray = case.repo().tags["proposal/1"].clone();
    case.ledger.proposals.clear();
    case.repo().tags = ["approved/1", "proposal/99", "v1.0", "mine/approved/1", "approved"]
        .map(|name| (name.to_owned(), stray.clone()))
        .into();
    let deleted: Vec<String> = updates(&case)
        .into_iter()
        .map(|update| match update {
            RefUpdate::DeleteTag { name, .. } => name,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(deleted, ["approved/1", "proposal/99"]);
}

#[test]
fn a_main_that_somebody_moved_is_put_back_and_reported() {
    let mut case = Case::at_rest();
    let elsewhere = oid("elsewhere");
    case.repo().main = Some(elsewhere.clone());
    let wanted = RefUpdate::Main {
        from: Some(elsewhere),
        to: oid("seed"),
    };
    assert_eq!(updates(&case), [wanted]);
    assert!(case.plan().notices[0].contains("main"));
    case.repo().main = None;
    assert!(matches!(
        &updates(&case)[..],
        [RefUpdate::Main { from: None, .. }]
    ));
    assert_eq!(
        case.plan().notices,
        Vec::<String>::new(),
        "a main that is missing was not moved"
    );
}

#[test]
fn a_main_that_lags_behind_a_deployment_is_no_drift() {
    let mut case = Case::at_rest();
    let deployed = case.propose(1);
    deployed.marks.insert(ProposalPhase::Deployed, mark(""));
    let (record, proposals) = (&case.ledger.record, &case.ledger.proposals);
    assert!(!main_drifted(record, proposals, &oid("seed")));
    assert!(!main_drifted(record, proposals, &proposals[0].commit));
    assert!(main_drifted(record, proposals, &oid("elsewhere")));
    assert_eq!(proposals[0].number, ProposalNumber(1));
}

#[test]
fn a_repo_that_is_gone_is_not_made_anew_behind_the_operators_back() {
    let mut case = Case::at_rest();
    case.inventory.repo = Ok(None);
    assert!(updates(&case).is_empty());
    assert!(
        case.waits()
            .iter()
            .any(|on| matches!(on, WaitingOn::Terminal { error } if error.contains("gone")))
    );
}
