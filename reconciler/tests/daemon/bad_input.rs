//! What is wrong in the spec, in the folders, or in who else is there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use serde_json::json;
use shared::status::HiveStatus;

use super::world::{World, program, scripted, silent, spec, with, within};

/// Waits until the daemon complains about the spec in these words.
fn until_fault(world: &World, words: &str) -> HiveStatus {
    world.until(&format!("a fault that says {words:?}"), || {
        let status = world.status();
        let found = status.spec.faults.iter().any(|fault| fault.contains(words));
        found.then_some(status)
    })
}

fn one_agent() -> serde_json::Value {
    spec(&json!({ "alice": silent() }))
}

#[test]
fn a_refused_document_leaves_the_last_good_one_in_force_and_is_explained() {
    let hive = spec(&json!({ "alice": scripted(&json!([])) }));
    let world = World::serving(&hive);
    world.until_healthy("alice");
    let good = world.status().spec;
    assert_eq!((good.generation, good.stale), (1, false));
    let refused = [
        ("{ \"version\": 1, \"hive\": ", "line 1"),
        (
            r#"{ "version": 1, "hive": { "name": "home" }, "agnets": {} }"#,
            "agnets",
        ),
        (
            r#"{ "version": 1, "hive": { "name": 7 }, "agents": {} }"#,
            "hive.name",
        ),
        (r#"{ "version": 2, "hive": { "name": "home" } }"#, "version"),
    ];
    for (text, words) in refused {
        world.spec_text(text);
        let status = until_fault(&world, words);
        assert!(status.spec.stale, "{text}: {status:?}");
        assert_eq!(status.spec.digest, good.digest, "{text}");
        assert_eq!(status.agents.len(), 1, "{text}");
        // What is explained is what the pass over the hive came to, which ends a moment later.
        world.until(&format!("{words:?} is explained"), || {
            let explained = world.does(&["explain", "hive"]);
            explained["chain"].to_string().contains(words).then_some(())
        });
        assert_eq!(
            world.hive(&["status"]).code,
            4,
            "a spec that is not in force is a stall: {text}"
        );
    }
    world.spec(&hive);
    world.until("the faults are gone", || {
        world.status().spec.faults.is_empty().then_some(())
    });
    let mended = world.status().spec;
    assert_eq!((mended.generation, mended.stale), (1, false));
    assert_eq!(world.hive(&["status"]).code, 0);
}

#[test]
fn one_bad_agent_does_not_stop_another() {
    let world = World::serving(&spec(&json!({ "alice": silent(), "bob": silent() })));
    world.until_stopped("alice");
    let before = world.until_stopped("bob");
    world.spec(&spec(&json!({
        "alice": with(silent(), &json!({ "mcpServers": { "wiki": { "command": 7 } } })),
        "bob": with(silent(), &json!({ "prompt": "new" })),
        "Bad Name": {},
    })));
    let status = until_fault(&world, "agents.alice.mcpServers.wiki.command");
    assert!(!status.spec.stale, "the document as a whole is in force");
    assert!(
        status.spec.faults.iter().any(|fault| fault.contains("Bad Name")),
        "{:?}",
        status.spec.faults
    );
    world.until_agent("bob", "deployed anew", |bob| {
        bob.generations.deployed != before.generations.deployed
    });
    assert_eq!(world.until_stopped("bob").faults, [""; 0]);
    let alice = world.until_agent("alice", "shows its fault", |alice| !alice.faults.is_empty());
    assert!(
        alice.faults[0].contains("agents.alice.mcpServers.wiki.command"),
        "{:?}",
        alice.faults
    );
    assert_eq!(
        world.hive(&["status", "alice"]).code,
        4,
        "its declaration will not mend itself"
    );
}

#[test]
fn an_agent_that_is_declared_twice_keeps_what_it_had_and_a_faulty_new_one_is_explained() {
    let world = World::serving(&one_agent());
    let before = world.until_stopped("alice");
    world.spec_text(
        r#"{ "version": 1, "hive": { "name": "home" }, "agents": {
            "alice": { "prompt": "one" }, "alice": { "prompt": "two" }, "bob": { "run": "walking" } } }"#,
    );
    for words in ["agents.alice: is given more than once", "agents.bob.run"] {
        until_fault(&world, words);
        let explained = world.does(&["explain", "hive"]);
        assert!(explained.to_string().contains(words), "{explained}");
    }
    let after = world.until_agent("alice", "shows its fault", |alice| !alice.faults.is_empty());
    assert_eq!(after.generations, before.generations);
    assert_eq!(world.agent("bob"), None);
    assert!(world.status().gates.is_empty(), "nobody is removed");
}

#[test]
fn a_fault_that_changes_nothing_else_is_shown_with_its_agent_at_once() {
    let world = World::serving(&one_agent());
    world.until_stopped("alice");
    world.spec(&spec(
        &json!({ "alice": with(silent(), &json!({ "promt": "x" })) }),
    ));
    until_fault(&world, "agents.alice");
    world.until_agent("alice", "shows its fault", |alice| !alice.faults.is_empty());
    world.spec(&one_agent());
    world.until_agent("alice", "shows no fault any more", |alice| {
        alice.faults.is_empty()
    });
}

#[test]
fn without_a_spec_the_daemon_waits_for_one_and_says_so() {
    let mut world = World::new();
    world.start();
    let status = until_fault(&world, "hive.json");
    assert!(status.spec.stale);
    assert_eq!(status.spec.generation, 0);
    assert_eq!((status.agents.len(), status.gates.len()), (0, 0));
    let explained = world.does(&["explain", "hive"]);
    assert!(
        explained["chain"].to_string().contains("hive.json"),
        "{explained}"
    );
    world.spec(&one_agent());
    world.until_stopped("alice");
}

#[test]
fn a_spec_that_cannot_be_read_is_named_and_changes_nothing() {
    let world = World::serving(&one_agent());
    world.until_stopped("alice");
    // A folder cannot be read as a file, not even by root.
    fs::remove_file(world.spec_path()).unwrap();
    fs::create_dir(world.spec_path()).unwrap();
    let status = until_fault(&world, "hive.json");
    assert!(status.spec.stale);
    assert_eq!(status.agents.len(), 1);
    fs::remove_dir(world.spec_path()).unwrap();
    world.spec(&one_agent());
    world.until("the spec is read again", || {
        (!world.status().spec.stale).then_some(())
    });
}

#[test]
fn a_spec_that_vanishes_removes_nobody_and_is_taken_up_when_it_returns() {
    let mut world = World::serving(&one_agent());
    world.until_stopped("alice");
    fs::remove_file(world.spec_path()).unwrap();
    assert!(until_fault(&world, "hive.json").spec.stale);
    // Nor does a daemon that starts without it.
    world.end();
    world.start();
    let status = until_fault(&world, "hive.json");
    assert_eq!(status.spec.generation, 1, "the last good one is in force");
    world.until_stopped("alice");
    assert!(world.status().gates.is_empty());
    world.spec(&spec(&json!({ "alice": silent(), "bob": silent() })));
    world.until_stopped("bob");
    assert_eq!(world.status().spec.generation, 2);
}

#[test]
fn a_spec_swapped_through_a_linked_folder_is_followed_within_a_second() {
    let mut world = World::new();
    // As /etc/hyperhive/hive.json -> /etc/static/hyperhive/hive.json, where /etc/static is swapped.
    for (generation, agents) in [
        ("one", json!({ "alice": silent() })),
        ("two", json!({ "alice": silent(), "bob": silent() })),
    ] {
        let folder = world.root.join(generation);
        fs::create_dir(&folder).unwrap();
        let text = spec(&agents).to_string();
        reconciler::host::folders::write_atomic(&folder.join("hive.json"), text.as_bytes(), 0o644).unwrap();
    }
    symlink("one", world.root.join("static")).unwrap();
    symlink("static/hive.json", world.spec_path()).unwrap();
    world.start();
    world.until_stopped("alice");
    symlink("two", world.root.join("static.new")).unwrap();
    fs::rename(world.root.join("static.new"), world.root.join("static")).unwrap();
    let followed = within(Duration::from_secs(1), || {
        (world.status().spec.generation == 2).then_some(())
    });
    assert!(followed.is_some(), "{:?}", world.status().spec);
    world.until_stopped("bob");
}

#[test]
fn a_second_daemon_on_the_same_state_ends_and_names_the_first() {
    let world = World::serving(&one_agent());
    let (status, said) = world.refuses(world.serve());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("(process {})", world.pid())), "{said}");
    assert!(said.contains(world.layout.state().as_str()), "{said}");
    // The first still answers on its socket.
    world.until_stopped("alice");
}

#[test]
fn a_run_folder_that_is_too_deep_for_a_socket_is_refused_before_anything_is_made() {
    let mut world = World::new();
    world.spec(&one_agent());
    let deep = world.root.join("d".repeat(100));
    world.layout = reconciler::host::layout::Layout::new(world.root.join("s"), deep);
    let (status, said) = world.refuses(world.serve());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("--run") && said.contains("107"), "{said}");
    let left: Vec<_> = world
        .root
        .read_dir_utf8()
        .unwrap()
        .map(|e| e.unwrap().file_name().to_owned())
        .collect();
    assert_eq!(left, ["hive.json"]);
}

#[test]
fn an_agent_whose_socket_path_is_too_long_says_so_and_does_not_stop_another() {
    let mut world = World::new();
    // Room for the admin socket, and for the door of an agent with a short name.
    let run = world.root.join("d".repeat(75 - world.root.as_str().len()));
    world.layout = reconciler::host::layout::Layout::new(world.root.join("s"), run);
    let long = format!("a{}", "b".repeat(30));
    assert!(world.door("al").as_str().len() <= 106, "{}", world.door("al"));
    assert!(world.door(&long).as_str().len() > 107, "{}", world.door(&long));
    world.spec(&spec(
        &json!({ "al": scripted(&json!([])), long.clone(): scripted(&json!([])) }),
    ));
    world.start();
    world.until_healthy("al");
    world.until("the fault is told to the operator", || {
        let status = world.agent(&long)?;
        let told = serde_json::to_string(&status).unwrap();
        (told.contains("--run") || world.events().iter().any(|e| e.message.contains("--run"))).then_some(())
    });
}

#[test]
fn a_damaged_ledger_is_refused_and_left_as_it_is() {
    let mut world = World::serving(&one_agent());
    world.until_stopped("alice");
    world.end();
    let garbage = b"this is not a ledger, and nothing should be written over it".repeat(100);
    let path = world.layout.ledger();
    for suffix in ["-wal", "-shm"] {
        let _gone = fs::remove_file(format!("{path}{suffix}"));
    }
    // In place, so that the file keeps its mode.
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    reconciler::host::folders::write_atomic(&path, &garbage, mode).unwrap();
    let (status, said) = world.refuses(world.serve());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(path.as_str()), "{said}");
    assert_eq!(fs::read(&path).unwrap(), garbage);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named_and_the_daemon_ends() {
    let mut world = World::serving(&one_agent());
    world.until_stopped("alice");
    world.end();
    // Not by its mode, which root would not mind.
    let mut command = program("bwrap");
    command.args(["--dev-bind", "/", "/", "--ro-bind"]);
    command.args([world.layout.state(), world.layout.state()]);
    command
        .arg("--")
        .arg(env!("CARGO_BIN_EXE_hive"))
        .arg("serve")
        .args(world.serve_args());
    let (status, said) = world.refuses(command);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(world.layout.state().as_str()), "{said}");
    assert!(said.to_lowercase().contains("read-only"), "{said}");
}
