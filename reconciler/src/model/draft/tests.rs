use shared::canonical::digest_file;
use shared::spec::AgentSpec;

use super::*;
use crate::host::fake::oid;
use crate::model::build::{BuildRequest, GrantMode, assemble};
use crate::model::records::{AgentOrigin, Deployed};

fn uid(number: u128) -> AgentUid {
    AgentUid(uuid::Uuid::from_u128(number))
}

fn record(name: &str, number: u128, life: AgentLife) -> AgentRecord {
    AgentRecord {
        uid: uid(number),
        name: name.parse().unwrap(),
        life,
        origin: AgentOrigin::Spec,
        declared_at: Timestamp::UNIX_EPOCH,
        seed: None,
        deployed: None,
        last_good: None,
        restart_before: None,
        order: None,
        rebuild: false,
        purge: None,
        recovered: None,
        out_of_memory: None,
        draft: None,
    }
}

/// An agent that runs with this role.
fn running(name: &str, number: u128, role: Role) -> AgentRecord {
    let request = BuildRequest {
        agent: name.parse().unwrap(),
        uid: uid(number),
        hive: "home".to_owned(),
        operator: Default::default(),
        commit: oid("seed"),
        spec: AgentSpec {
            role,
            ..AgentSpec::default()
        },
        harness: "/bin/hive-harness".into(),
        programs: Default::default(),
        model_url: None,
        user_range: None,
        nix: None,
        provides_key: Some(false),
        grants: GrantMode::Asked,
    };
    let output = assemble(&request, &Overlay::default(), |digest| {
        format!("/systems/{digest}")
    })
    .unwrap();
    AgentRecord {
        deployed: Some(Deployed {
            output,
            proposal: shared::ProposalNumber(0),
            gate: GateId(1),
            at: Timestamp::UNIX_EPOCH,
        }),
        ..record(name, number, AgentLife::Active)
    }
}

fn queen() -> Owner {
    Owner::Manager {
        name: "queen".parse().unwrap(),
        uid: uid(1),
    }
}

fn operator() -> Owner {
    Owner::Operator {
        by: "unix:root".to_owned(),
    }
}

fn draft_of(name: &str, number: u128, owner: Owner, is_offered: bool) -> AgentRecord {
    let mut draft = Draft::new(owner, Timestamp::UNIX_EPOCH);
    draft.offer = is_offered.then(|| Offer {
        reason: String::new(),
        at: Timestamp::UNIX_EPOCH,
    });
    AgentRecord {
        draft: Some(Box::new(draft)),
        ..record(name, number, AgentLife::Draft)
    }
}

fn rules(max_agents: u32) -> Rules {
    Rules {
        max_agents,
        is_named: false,
    }
}

fn helper() -> AgentName {
    "helper".parse().unwrap()
}

fn file(bytes: &[u8]) -> StagedFile {
    StagedFile {
        digest: digest_file(bytes),
        size: bytes.len() as u64,
    }
}

#[test]
fn only_an_active_agent_deployed_as_a_manager_is_one() {
    let queen_of = |record: AgentRecord| manager(&[record], &"queen".parse().unwrap());
    assert_eq!(queen_of(running("queen", 1, Role::Manager)), Ok(queen()));
    assert!(queen_of(running("queen", 1, Role::Worker)).is_err());
    assert!(queen_of(record("queen", 1, AgentLife::Declared)).is_err());
    let since = Timestamp::UNIX_EPOCH;
    let removed = AgentRecord {
        life: AgentLife::Removed { since },
        ..running("queen", 1, Role::Manager)
    };
    assert!(queen_of(removed).is_err());
}

#[test]
fn a_name_is_free_when_nobody_has_it_and_the_spec_does_not_claim_it() {
    let since = Timestamp::UNIX_EPOCH;
    let may = |records: &[AgentRecord], rules| may_be_made(records, &helper(), &queen(), rules);
    assert_eq!(may(&[], rules(9)), Ok(()));
    let named = Rules {
        is_named: true,
        ..rules(9)
    };
    assert!(matches!(may(&[], named), Err(Refusal::Taken { .. })));
    for life in [
        AgentLife::Draft,
        AgentLife::GivenUp { since },
        AgentLife::Declared,
        AgentLife::Active,
        AgentLife::Removed { since },
        AgentLife::Restoring { since },
    ] {
        let taken = may(&[record("helper", 5, life.clone())], rules(9));
        assert!(matches!(taken, Err(Refusal::Taken { .. })), "{life:?}");
    }
}

#[test]
fn agents_and_offered_drafts_fill_a_hive_and_other_drafts_do_not() {
    let since = Timestamp::UNIX_EPOCH;
    let mut records = vec![
        running("queen", 1, Role::Manager),
        record("alice", 2, AgentLife::Declared),
        record("bob", 3, AgentLife::Removed { since }),
        draft_of("carol", 4, queen(), false),
    ];
    assert_eq!(room(&records, None, rules(3)), Ok(()));
    records.push(draft_of("dave", 5, queen(), true));
    let (agents, offered, max) = (2, 1, 3);
    let full = Refusal::Full { agents, offered, max };
    assert_eq!(room(&records, None, rules(3)), Err(full.clone()));
    assert_eq!(
        room(&records, Some(uid(5)), rules(3)),
        Ok(()),
        "its own offer is not counted twice"
    );
    assert!(full.to_string().contains("maxAgents is 3"), "{full}");
    assert_eq!(may_be_made(&records, &helper(), &operator(), rules(3)), Err(full));
}

#[test]
fn the_drafts_of_one_manager_and_of_all_are_bounded() {
    let own = |count: u128| -> Vec<AgentRecord> {
        (0..count)
            .map(|n| draft_of(&format!("own-{n}"), 10 + n, queen(), false))
            .collect()
    };
    let may = |records: &[AgentRecord], owner| may_be_made(records, &helper(), &owner, rules(100));
    assert_eq!(may(&own(3), queen()), Ok(()));
    assert!(matches!(
        may(&own(4), queen()),
        Err(Refusal::TooManyDrafts { .. })
    ));
    assert_eq!(
        may(&own(4), operator()),
        Ok(()),
        "they are the manager's, not the operator's"
    );
    assert!(matches!(
        may(&own(16), operator()),
        Err(Refusal::TooManyDrafts { .. })
    ));
    // One that is being deleted still takes up room.
    let since = Timestamp::UNIX_EPOCH;
    let going: Vec<AgentRecord> = own(4)
        .into_iter()
        .map(|record| AgentRecord {
            life: AgentLife::GivenUp { since },
            ..record
        })
        .collect();
    assert!(matches!(may(&going, queen()), Err(Refusal::TooManyDrafts { .. })));
}

#[test]
fn a_draft_is_its_owners_and_the_operators_and_a_name_alone_is_not_enough() {
    let records = [draft_of("helper", 5, queen(), false)];
    assert!(owned(&records, &helper(), &queen()).is_ok());
    assert!(owned(&records, &helper(), &operator()).is_ok());
    let of_the_same_name = Owner::Manager {
        name: "queen".parse().unwrap(),
        uid: uid(2),
    };
    let other = owned(&records, &helper(), &of_the_same_name).map(drop);
    assert!(matches!(other, Err(Refusal::NotYours { .. })));
    let operators = [draft_of("helper", 5, operator(), false)];
    assert!(owned(&operators, &helper(), &queen()).is_err());
    assert!(owned(&[record("helper", 5, AgentLife::Active)], &helper(), &operator()).is_err());
}

#[test]
fn an_offer_is_void_without_its_manager_or_without_room_and_waits_for_a_spec_that_names_it() {
    let draft = draft_of("helper", 5, queen(), true);
    let with = |manager: AgentRecord, rules| standing(&draft, &[manager, draft.clone()], rules);
    assert_eq!(with(running("queen", 1, Role::Manager), rules(2)), Standing::Fine);
    for other in [
        running("queen", 1, Role::Worker),
        running("queen", 7, Role::Manager),
    ] {
        assert!(matches!(with(other, rules(2)), Standing::Void(why) if why.contains("queen")));
    }
    assert!(
        matches!(with(running("queen", 1, Role::Manager), rules(1)), Standing::Void(why) if why.contains("full"))
    );
    let named = Rules {
        is_named: true,
        ..rules(2)
    };
    assert_eq!(with(running("queen", 1, Role::Manager), named), Standing::Named);
    let ours = draft_of("helper", 5, operator(), true);
    assert_eq!(
        standing(&ours, std::slice::from_ref(&ours), rules(1)),
        Standing::Fine,
        "an operator is always there"
    );
}

#[test]
fn every_change_takes_the_offer_back_and_is_another_content() {
    let record = draft_of("helper", 5, queen(), true);
    let draft = record.draft.unwrap();
    let path: StatePath = "notes.md".parse().unwrap();
    let staged = draft.with_file(&path, &file(b"one")).unwrap();
    let committed = draft.with_commit(Some(oid("commit"))).unwrap();
    for changed in [&staged, &committed] {
        assert_eq!(changed.offer, None);
        assert_ne!(changed.content().unwrap(), draft.content().unwrap());
    }
    let replaced = staged.with_file(&path, &file(b"two")).unwrap();
    assert_ne!(replaced.content().unwrap(), staged.content().unwrap());
    let emptied = replaced.without_file(&path).unwrap();
    assert_eq!(emptied.content().unwrap(), draft.content().unwrap());
    assert_eq!(emptied.without_file(&path), Err(Refusal::NoFile(path)));
}

#[test]
fn the_files_of_a_draft_are_bounded_together() {
    let draft = Draft::new(queen(), Timestamp::UNIX_EPOCH);
    let path = |text: &str| -> StatePath { text.parse().unwrap() };
    let mut full = draft.clone();
    for number in 0..8 {
        let size = MAX_FILE_BYTES as u64;
        let digest = digest_file(b"");
        full = full
            .with_file(&path(&format!("f{number}")), &StagedFile { digest, size })
            .unwrap();
    }
    assert_eq!(full.with_file(&path("more"), &file(b"x")), Err(Refusal::TooLarge));
    let mut many = draft.clone();
    for number in 0..MAX_FILES {
        many = many.with_file(&path(&format!("f{number}")), &file(b"")).unwrap();
    }
    assert_eq!(
        many.with_file(&path("more"), &file(b"")),
        Err(Refusal::TooManyFiles)
    );
    let noted = draft.with_file(&path("notes"), &file(b"")).unwrap();
    // '-' sorts between a file and what lies below it.
    let noted = noted.with_file(&path("notes-more"), &file(b"")).unwrap();
    assert!(matches!(
        noted.with_file(&path("notes/a"), &file(b"")),
        Err(Refusal::Collision { .. })
    ));
}

#[test]
fn the_bundles_of_a_draft_are_bounded() {
    let mut draft = Draft::new(queen(), Timestamp::UNIX_EPOCH);
    for number in 0..MAX_BUNDLES {
        draft = draft.with_commit(Some(oid(&number.to_string()))).unwrap();
    }
    assert_eq!(draft.with_commit(None), Err(Refusal::TooManyBundles));
}
