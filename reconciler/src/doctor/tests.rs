//! Each check on facts that are as they should be, and on facts that are not.

mod containers;
mod egress;
mod nix;

use std::collections::BTreeSet;

use jiff::Timestamp;
use shared::AgentUid;
use shared::status::HiveStatus;

use super::*;

fn folder(path: &str, mode: u32) -> Folder {
    Folder {
        path: path.into(),
        owner: Some(5),
        mode,
        file_system: "ext4".to_owned(),
        read_only: false,
        free_bytes: 100 << 30,
        free_files: Some(1_000_000),
    }
}

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

/// A machine on which all is well.
fn well() -> Facts {
    let status = serde_json::json!({
        "hive": "home", "version": "0.1.0", "epoch": "e", "seq": 1, "now": now(), "startedAt": now(),
        "lastPassAt": now(), "queueDepth": 0, "waiting": [], "gates": [], "notices": [], "agents": [],
        "spec": { "path": "hive.json", "generation": 1, "faults": [], "stale": false },
    });
    Facts {
        now: now(),
        user: 5,
        git: Ok("git version 2.50".to_owned()),
        harness: Ok("hive-harness 0.1.0".to_owned()),
        sandbox: Ok("/usr/bin/bwrap works".to_owned()),
        pidfd: Ok(()),
        inotify: Ok(()),
        state: Ok(folder("/s", 0o40700)),
        run: Ok(folder("/r", 0o40750)),
        socket_path: 40,
        holder: Ok(Some("process 7".to_owned())),
        ledger: Ok(LedgerFacts {
            size: 4096,
            damage: None,
            missing: false,
            interrupted: false,
            newest: Some(now()),
            live: BTreeSet::from([name("alice")]),
            known: BTreeSet::from([AgentUid(uuid::Uuid::nil())]),
        }),
        spec: Ok((1, Vec::new())),
        secrets: vec![("/k (the secret key of alice)".to_owned(), Ok(0o100_440))],
        repos: Ok(vec![(name("alice"), Ok(()))]),
        entries: Ok(Entries {
            agents: vec!["alice".to_owned()],
            repos: vec!["alice.git".to_owned()],
            archive: vec![format!("bob-{}", uuid::Uuid::nil())],
            incoming: Vec::new(),
            systems: 3,
            running: vec![(name("alice"), 9)],
        }),
        containers: None,
        egress: None,
        nix: None,
        daemon: Ok(serde_json::from_value(status).expect("a status")),
        version: "0.1.0",
    }
}

/// The one finding that is not as it should be.
fn ill(change: impl FnOnce(&mut Facts)) -> (&'static str, Level, String) {
    ill_of(well(), change)
}

fn ill_of(mut facts: Facts, change: impl FnOnce(&mut Facts)) -> (&'static str, Level, String) {
    change(&mut facts);
    let mut found: Vec<Finding> = examine(&facts)
        .into_iter()
        .filter(|f| f.verdict != Level::Ok)
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let Finding {
        check,
        verdict,
        found,
        todo,
    } = found.remove(0);
    (
        check,
        verdict,
        format!("{found}: {}", todo.expect("something to do")),
    )
}

fn ledger(facts: &mut Facts) -> &mut LedgerFacts {
    facts.ledger.as_mut().expect("known")
}

fn daemon(facts: &mut Facts) -> &mut HiveStatus {
    facts.daemon.as_mut().expect("it answers")
}

fn state(facts: &mut Facts) -> &mut Folder {
    facts.state.as_mut().expect("known")
}

/// All is well, and every check has a name of its own.
fn all_is_well(facts: &Facts) {
    let findings = examine(facts);
    assert!(
        findings
            .iter()
            .all(|f| f.verdict == Level::Ok && f.todo.is_none()),
        "{findings:?}"
    );
    let names: BTreeSet<_> = findings.iter().map(|f| f.check).collect();
    assert_eq!(names.len(), findings.len());
}

#[test]
fn where_all_is_well_every_check_says_so_and_has_a_name_of_its_own() {
    all_is_well(&well());
}

#[test]
fn who_may_not_look_into_the_state_folder_is_told_so_once() {
    let (check, verdict, text) = ill(|f| {
        f.user = 6;
        f.ledger = Err("permission denied".to_owned());
        f.entries = Err("permission denied".to_owned());
        f.holder = Err("permission denied".to_owned());
        f.secrets[0].1 = Err("it cannot be read".to_owned());
    });
    assert_eq!((check, verdict), ("state folder", Level::Warn));
    assert!(text.contains("sudo hive doctor"), "{text}");
}

#[test]
fn programs_and_kernel_are_judged_one_by_one() {
    let missing = || Err("there is none".to_owned());
    assert_eq!(ill(|f| f.git = missing()).0, "git");
    assert_eq!(ill(|f| f.sandbox = missing()).0, "sandbox");
    assert_eq!(ill(|f| f.pidfd = Err("ENOSYS".to_owned())).0, "pidfd");
    let (check, verdict, text) = ill(|f| f.inotify = Err("no watch is left".to_owned()));
    assert_eq!((check, verdict), ("inotify", Level::Fail));
    assert!(text.contains("max_user_watches"), "{text}");
    assert_eq!(ill(|f| f.harness = missing()).1, Level::Fail);
    assert_eq!(
        ill(|f| f.harness = Ok("hive-harness 0.0.9".to_owned())).1,
        Level::Warn
    );
}

#[test]
fn the_state_folder_is_private_local_writable_and_has_room() {
    assert_eq!(ill(|f| state(f).owner = None).0, "state folder");
    assert_eq!(ill(|f| state(f).owner = Some(6)).1, Level::Warn);
    assert!(ill(|f| state(f).mode = 0o40755).2.contains("chmod 700 /s"));
    assert_eq!(ill(|f| state(f).file_system = "tmpfs".to_owned()).1, Level::Warn);
    assert_eq!(ill(|f| state(f).file_system = "nfs".to_owned()).0, "file system");
    assert_eq!(ill(|f| state(f).read_only = true).1, Level::Fail);
    assert_eq!(ill(|f| state(f).free_bytes = 500 << 20).1, Level::Warn);
    assert_eq!(ill(|f| state(f).free_bytes = 50 << 20).1, Level::Fail);
    assert_eq!(ill(|f| state(f).free_files = Some(10)).0, "space");
    assert_eq!(
        ill(|f| f.run.as_mut().expect("known").mode = 0o40755).0,
        "run folder"
    );
    assert_eq!(ill(|f| f.socket_path = 108).0, "socket path");
}

#[test]
fn a_ledger_that_is_damaged_lost_or_half_recovered_leads_to_hive_recover() {
    for change in [
        (|f: &mut Facts| ledger(f).damage = Some("page 3".to_owned())) as fn(&mut Facts),
        |f| ledger(f).interrupted = true,
        |f| ledger(f).missing = true,
    ] {
        let (check, verdict, text) = ill(change);
        assert_eq!((check, verdict), ("ledger", Level::Fail));
        assert!(text.contains("hive recover"), "{text}");
    }
    assert_eq!(ill(|f| ledger(f).size = 5 << 30).1, Level::Warn);
    let ahead = "2027-01-01T00:00:00Z".parse().ok();
    assert_eq!(ill(|f| ledger(f).newest = ahead).0, "clock");
}

#[test]
fn what_no_row_knows_is_named_and_what_runs_unknown_is_worse() {
    let (check, verdict, text) = ill(|f| {
        let entries = f.entries.as_mut().expect("known");
        entries.agents.push("mallory".to_owned());
        entries.repos.push("x".to_owned());
        entries.archive.push("notes".to_owned());
    });
    assert_eq!((check, verdict), ("leftovers", Level::Warn));
    assert!(text.contains("agents/mallory, repos/x, archive/notes"), "{text}");
    let stray = (name("mallory"), 13);
    let (check, verdict, text) = ill(|f| f.entries.as_mut().expect("known").running.push(stray));
    assert_eq!((check, verdict), ("processes", Level::Fail));
    assert!(text.contains("process 13"), "{text}");
    assert_eq!(
        ill(|f| f.repos = Ok(vec![(name("alice"), Err("missing blob".to_owned()))])).0,
        "repos"
    );
    assert_eq!(
        ill(|f| f.spec = Ok((1, vec!["agents.x: bad".to_owned()]))).0,
        "spec"
    );
}

#[test]
fn a_daemon_that_is_down_old_asleep_or_unhappy_is_told_apart() {
    let (check, verdict, _) = ill(|f| {
        f.daemon = Err("it is not running".to_owned());
        f.holder = Ok(None);
    });
    assert_eq!((check, verdict), ("daemon", Level::Warn));
    let (check, _, text) = ill(|f| daemon(f).version = "0.0.9".to_owned());
    assert_eq!((check, text.contains("0.0.9")), ("daemon", true), "{text}");
    let long_ago = "2026-03-01T11:00:00Z".parse().ok();
    assert_eq!(ill(|f| daemon(f).last_pass_at = long_ago).1, Level::Fail);
    assert_eq!(
        ill(|f| daemon(f).notices.push("the pass over alice failed".to_owned())).1,
        Level::Warn
    );
    let (check, _, text) = ill(|f| f.holder = Ok(None));
    assert_eq!((check, text.contains("--state")), ("lock", true), "{text}");
}

#[test]
fn a_secret_that_cannot_be_read_or_that_everybody_can_read_is_named() {
    let (check, verdict, found) = ill(|facts| facts.secrets[0].1 = Err("it is not there".to_owned()));
    assert_eq!((check, verdict), ("secrets", Level::Fail));
    assert!(
        found.starts_with("/k (the secret key of alice): it is not there"),
        "{found}"
    );
    let (check, verdict, found) = ill(|facts| facts.secrets[0].1 = Ok(0o100_444));
    assert_eq!((check, verdict), ("secrets", Level::Warn));
    assert!(found.contains("open to everybody (mode 444)"), "{found}");
}
