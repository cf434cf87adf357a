//! Checks of the way out of agents.

use shared::status::TurnState;

use super::super::egress::Egress;
use super::*;

pub(super) fn egress_well() -> Egress {
    Egress {
        agents: vec![name("alice")],
        keyless: vec![name("alice")],
        key: Ok(Some("/etc/credstore/hyperhive-api-key".to_owned())),
        folder: Some(Ok(folder("/run/hyperhive-egress", 0o40700))),
        doors: Ok(vec![(name("alice"), Ok(()))]),
    }
}

fn host() -> Facts {
    Facts {
        egress: Some(egress_well()),
        ..containers::host()
    }
}

fn ill(change: impl FnOnce(&mut Egress)) -> (&'static str, Level, String) {
    ill_of(host(), |facts| change(facts.egress.as_mut().expect("a way out")))
}

#[test]
fn where_all_is_well_every_check_says_so() {
    all_is_well(&host());
    // The daemon runs it itself.
    let mut facts = well();
    facts.egress = Some(Egress {
        folder: None,
        ..egress_well()
    });
    all_is_well(&facts);
}

#[test]
fn a_service_that_does_not_run_or_cannot_read_is_named_with_who_waits_on_it() {
    fn unit(facts: &mut Facts) -> &mut super::super::containers::Unit {
        let containers = facts.containers.as_mut().expect("containers");
        &mut containers.systemd.as_mut().expect("known").egress
    }
    let (check, verdict, text) = ill_of(host(), |f| unit(f).active = "failed".to_owned());
    assert_eq!((check, verdict), ("egress service", Level::Fail));
    assert!(text.contains("alice has no way out"), "{text}");
    let (check, _, text) = ill_of(host(), |f| unit(f).load = "not-found".to_owned());
    assert_eq!(check, "egress service");
    assert!(text.contains("hive units --install"), "{text}");
    let (check, _, text) = ill_of(host(), |f| f.run.as_mut().expect("known").mode = 0o40750);
    assert_eq!(check, "egress service");
    assert!(text.contains("egress.json"), "{text}");
    let open = Some(Ok(folder("/run/hyperhive-egress", 0o40755)));
    let (check, verdict, _) = ill(|e| e.folder = open);
    assert_eq!((check, verdict), ("egress service", Level::Fail));
}

#[test]
fn a_socket_that_does_not_answer_is_named() {
    let (check, verdict, text) =
        ill(|e| e.doors = Ok(vec![(name("alice"), Err("connection refused".to_owned()))]));
    assert_eq!((check, verdict), ("egress doors", Level::Fail));
    assert!(text.contains("alice: connection refused"), "{text}");
    let mut facts = host();
    facts.egress.as_mut().expect("a way out").doors = Err("root alone can look".to_owned());
    all_is_well(&facts);
}

#[test]
fn agents_without_key_and_login_are_named() {
    let without = |e: &mut Egress| e.key = Ok(None);
    // As long as no agent says that it needs a login, all is well.
    let mut facts = host();
    without(facts.egress.as_mut().expect("a way out"));
    all_is_well(&facts);
    let status = serde_json::json!({
        "name": "alice", "role": "worker", "turn": "needsLogin",
        "sync": { "value": "inSync", "reason": "r", "message": "m", "since": now() },
        "health": { "value": "healthy", "reason": "r", "message": "m", "since": now() },
        "activity": { "value": "idle", "reason": "r", "message": "m", "since": now() },
    });
    daemon(&mut facts).agents = vec![serde_json::from_value(status).expect("a status")];
    assert_eq!(daemon(&mut facts).agents[0].turn, Some(TurnState::NeedsLogin));
    let (check, verdict, text) = ill_of(facts.clone(), |_| {});
    assert_eq!((check, verdict), ("provider's key", Level::Fail));
    assert!(text.contains("alice cannot reach the model"), "{text}");
    facts.egress.as_mut().expect("a way out").keyless.clear();
    all_is_well(&facts);
    let (check, _, text) = ill(|e| e.key = Err("/k is empty".to_owned()));
    assert_eq!(
        (check, text.contains("/k is empty")),
        ("provider's key", true),
        "{text}"
    );
}
