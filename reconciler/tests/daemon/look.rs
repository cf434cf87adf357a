//! `hive export`, `hive replay` and `hive doctor`: looked at from outside, with the daemon up and down.

use std::fs;

use serde_json::{Value, json};

use super::config_repo::propose;
use super::world::{Told, World, scripted, silent, spec};

impl World {
    fn folders(&self) -> Vec<String> {
        let spec = self.spec_path();
        let words = [
            "--state",
            self.layout.state().as_str(),
            "--run",
            self.layout.run().as_str(),
            "--spec",
            spec.as_str(),
        ];
        words.map(str::to_owned).to_vec()
    }

    fn offline(&self, verb: &[&str]) -> Told {
        let folders = self.folders();
        let mut args = verb.to_vec();
        args.extend(folders.iter().map(String::as_str));
        self.hive(&args)
    }

    fn write(&self, name: &str, document: &Value) -> String {
        let path = self.root.join(name);
        reconciler::host::folders::write_atomic(&path, document.to_string().as_bytes(), 0o600).unwrap();
        path.into_string()
    }
}

fn finding<'a>(findings: &'a Value, check: &str) -> &'a Value {
    let mut found = findings.as_array().unwrap().iter();
    found
        .find(|finding| finding["check"] == check)
        .expect("a finding")
}

#[test]
fn an_export_replays_to_the_same_plans_elsewhere_and_holds_no_message() {
    let mut world = World::serving(&spec(&json!({
        "alice": scripted(&json!([{ "on": "hello", "do": [{ "reply": "done" }] }])),
        "bob": silent(),
    })));
    world.until_healthy("alice");
    world.until_stopped("bob");
    world.does(&["send", "alice", "hello plugh"]);
    world.until("the answer", || (!world.said().is_empty()).then_some(()));
    propose(&world, "alice", r#"{ "prompt": "You look after the pond." }"#);
    world.until_gate("deployWidens");
    let file = world.root.join("export.json").into_string();
    world.does(&["export", &file]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("plugh"), "{text}");
    let said = "(what was said is not exported)";
    assert!(
        text.contains("messageToOperator") && text.contains(said),
        "{text}"
    );
    let told = world.hive(&["replay", &file]);
    assert_eq!(told.code, 0, "{} {}", told.err, told.out);
    let verdicts = told.out["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 3, "the hive and two agents");
    let deploys = told.out["plans"].to_string();
    assert!(deploys.contains("deploy proposal 1"), "{deploys}");

    // The same with the daemon down: nobody reports then, and the plan says so.
    world.kill();
    let told = world.offline(&["export"]);
    assert_eq!(told.code, 0, "{}", told.err);
    let told = world.hive(&["replay", &world.write("offline.json", &told.out)]);
    assert_eq!(told.code, 0, "{} {}", told.err, told.out);

    // Another plan is told apart, whatever digest the document states, and the first step that differs is named.
    let mut other: Value = serde_json::from_str(&text).unwrap();
    let alice = &mut other["agents"][0]["plan"]["steps"];
    alice[0]["action"] = json!("spawn");
    let told = world.hive(&["replay", &world.write("other.json", &other)]);
    assert_eq!(told.code, 1);
    let verdict = told.out["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["same"] == json!(false))
        .unwrap();
    assert_eq!(verdict["difference"]["step"], json!(1), "{verdict}");
    assert!(
        verdict["difference"]["exported"]
            .to_string()
            .contains("make its repo"),
        "{verdict}"
    );
}

#[test]
fn what_a_stranger_sends_is_read_strictly() {
    let world = World::new();
    let refused = |document: &Value, words: &str| {
        let told = world.hive(&["replay", &world.write("x.json", document)]);
        assert_eq!((told.code, told.err.contains(words)), (1, true), "{}", told.err);
    };
    refused(&json!([]), "not an export");
    refused(&json!({ "version": 2 }), "version 2");
    refused(
        &json!({ "version": 1, "madeBy": "x", "surprise": {} }),
        "surprise",
    );
    refused(&json!({ "version": 1, "madeBy": "x", "now": "soon" }), "now");
    let mut deep = json!(1);
    for _ in 0..1000 {
        deep = json!([deep]);
    }
    refused(&json!({ "version": 1, "madeBy": deep }), "");
    let told = world.hive(&["replay", world.root.as_str()]);
    assert_eq!(
        (told.code, told.err.contains("no plain file")),
        (1, true),
        "{}",
        told.err
    );
}

#[test]
fn the_doctor_looks_at_everything_and_changes_nothing_whether_the_daemon_is_up_or_down() {
    let mut world = World::serving(&spec(&json!({ "bob": silent() })));
    world.until_stopped("bob");
    let told = world.offline(&["doctor"]);
    for check in [
        "git",
        "harness",
        "pidfd",
        "inotify",
        "state folder",
        "ledger",
        "spec",
        "repos",
        "leftovers",
        "lock",
        "daemon",
    ] {
        assert_eq!(finding(&told.out, check)["verdict"], json!("ok"), "{}", told.out);
    }
    let pid = world.pid().to_string();
    assert!(
        finding(&told.out, "lock")["found"].to_string().contains(&pid),
        "{}",
        told.out
    );
    world.end();
    let before = listing(&world);
    let told = world.offline(&["doctor"]);
    assert_eq!(finding(&told.out, "daemon")["verdict"], json!("warn"));
    assert_eq!(
        finding(&told.out, "ledger")["verdict"],
        json!("ok"),
        "{}",
        told.out
    );
    let after = listing(&world);
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    for (now, then) in after.iter().zip(&before) {
        // How far each reader has read; it is no part of the ledger.
        if !now.0.ends_with("-shm") {
            assert!(now == then, "{} was changed", now.0);
        }
    }

    fs::create_dir(world.layout.agents().join("mallory")).unwrap();
    let objects = world.layout.repo(&super::world::name("bob")).join("objects");
    fs::remove_dir_all(&objects).unwrap();
    fs::create_dir(&objects).unwrap();
    let told = world.offline(&["doctor"]);
    assert_eq!(told.code, 1);
    assert!(
        finding(&told.out, "leftovers")["found"]
            .to_string()
            .contains("mallory")
    );
    assert_eq!(finding(&told.out, "repos")["verdict"], json!("fail"));
    let nowhere = world.hive(&["doctor", "--state", world.root.join("nowhere").as_str()]);
    assert_eq!(nowhere.code, 1);
    assert_eq!(finding(&nowhere.out, "state folder")["verdict"], json!("fail"));
}

/// Every file below the state folder, with its bytes.
fn listing(world: &World) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![world.layout.state().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in folder.read_dir_utf8().unwrap() {
            let path = entry.unwrap().into_path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push((path.to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}
