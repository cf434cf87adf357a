//! The Nix builder with real Nix, real git and a real sandbox, on a store of its own.
//!
//! nixpkgs is the stand-in of `checks/testbed/nixpkgs`: it has the names, the priorities and the messages that matter.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod world;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reconciler::host::nix::evaluate::{Evaluate as _, Job, Limits, Log};
use reconciler::host::{Builder as _, HostError};
use serde_json::json;
use world::{LIMITS, World, alice, testbed};

/// A module with a server that is built, a program, a unit and a prompt.
const MODULE: &str = r#"
  { pkgs, ... }:
  let wiki = pkgs.writeShellScriptBin "wiki" "echo wiki"; in
  {
    hyperhive.prompt = builtins.readFile ./prompt.md;
    hyperhive.mcpServers.wiki = { command = "${wiki}/bin/wiki"; args = [ ]; };
    environment.systemPackages = [ (pkgs.writeShellScriptBin "tool" "echo tool") ];
    systemd.services.mine.serviceConfig.ExecStart = "/run/current-system/sw/bin/tool";
  }
"#;

#[tokio::test]
async fn a_module_becomes_a_system_and_a_config() {
    let world = World::new().await;
    let commit = world
        .commit(&[("agent.nix", MODULE), ("prompt.md", "Look after the wiki.")])
        .await;
    let output = world
        .builder
        .build(&world.request(commit, json!({})))
        .await
        .expect("built");
    assert_eq!(output.config.prompt, "Look after the wiki.");
    assert!(output.is_intact());
    let top = output.launch.system.clone().expect("a system");
    assert!(top.starts_with(&world.store.dir), "{top}");
    let unit = top.join("etc/systemd/system/mine.service");
    assert!(
        std::fs::read_to_string(unit)
            .expect("a unit")
            .contains("ExecStart=/run/current-system/sw/bin/tool")
    );
    assert!(top.join("sw/bin/tool").is_file() && top.join("init").is_file());
    let server = serde_json::to_value(&output.config.mcp_servers).expect("JSON");
    let program = server["wiki"]["command"].as_str().expect("a command").to_owned();
    assert!(
        std::fs::metadata(&program)
            .expect("what the config names is built")
            .is_file()
    );
    assert!(world.is_present(&output.system).await);
    assert!(world.root.join("state/builds").is_dir());

    world.collect_garbage();
    assert!(world.is_present(&output.system).await, "a generation is a root");
    assert!(
        std::fs::metadata(&program).is_ok(),
        "and so is what its config names"
    );
}

#[tokio::test]
async fn what_the_operator_names_in_the_store_is_kept_as_long_as_a_system_needs_it() {
    let world = World::new().await;
    let (named, other) = (world.add("wiki"), world.add("other"));
    let commit = world.commit(&[("agent.nix", "{ ... }: { }")]).await;
    let gone = format!("{}/0123456789abcdfghijklmnpqrsvwxyz-gone", world.store.dir);
    let spec = json!({ "mcpServers": { "wiki": { "command": named, "args": [gone] } } });
    let request = world.request(commit, spec);
    world.builder.build(&request).await.expect("built");
    world.collect_garbage();
    assert!(
        std::fs::exists(&named).expect("looked"),
        "the host declares it no more, an agent runs it"
    );
    assert!(!std::fs::exists(&other).expect("looked"));
}

fn generations(world: &World) -> usize {
    let listed = std::fs::read_dir(world.root.join("profiles/alice")).expect("a profile");
    listed.count()
}

#[tokio::test]
async fn the_same_inputs_give_the_same_system() {
    let world = World::new().await;
    let module = "{ ... }: { hyperhive.prompt = \"x\"; }";
    let first = world.build(module).await.expect("built");
    assert_eq!(world.build(module).await.expect("built").system, first.system);
    assert_eq!(generations(&world), 1, "nor a generation of its own");
    let other = world
        .build("{ ... }: { environment.etc.x.text = \"y\"; }")
        .await
        .expect("built");
    assert_ne!(other.toplevel, first.toplevel);
    let worded = world
        .build("{ ... }: { hyperhive.prompt = \"y\"; }")
        .await
        .expect("built");
    assert_eq!(worded.toplevel, first.toplevel, "a prompt restarts nobody");
    assert_ne!(worded.config_digest, first.config_digest);
}

#[tokio::test]
async fn what_an_evaluation_may_not_do_is_refused_in_nixs_own_words() {
    let world = World::new().await;
    let set = |prompt: &str| format!("{{ pkgs, ... }}: {{ hyperhive.prompt = {prompt}; }}");
    for (prompt, told) in [
        (
            r#"builtins.readFile "/etc/passwd""#,
            "access to absolute path '/etc/passwd'",
        ),
        (
            r"builtins.readFile /etc/passwd",
            "access to absolute path '/etc/passwd'",
        ),
        (r#""${/etc/hostname}""#, "access to absolute path '/etc/hostname'"),
        (
            r#"builtins.path { path = /etc/passwd; name = "x"; }"#,
            "access to absolute path '/etc/passwd'",
        ),
        (
            r#"toString (builtins.fetchGit "/tmp")"#,
            "requires a locked input|doesn't fetch unlocked input",
        ),
        (
            r#"builtins.fetchurl "http://127.0.0.1/x""#,
            "requires a 'sha256' argument",
        ),
        (r#"(builtins.getFlake "path:/etc").outPath"#, "path:/etc"),
        (
            r#"builtins.readFile (pkgs.runCommand "x" { } "echo > $out")"#,
            "'allow-import-from-derivation' is disabled",
        ),
        (
            "builtins.getEnv 1",
            "value is an integer while a string was expected|expected a string but found an integer",
        ),
        (
            "let x = x; in x",
            "infinite recursion encountered; at agent.nix:1:",
        ),
        (r#"throw "no\u001b[2J way""#, "no"),
    ] {
        let refusal = world.refused(&set(prompt)).await;
        // In the words of this version of Nix or of that.
        let is_told = told.split('|').any(|words| refusal.contains(words));
        assert!(is_told, "{prompt}: {refusal}");
        assert!(!refusal.contains('\x1b') && refusal.len() < 2000, "{refusal}");
    }
    let refusal = world.refused("{ ... }: { a = 1 + ; }").await;
    assert!(
        refusal.contains("syntax error") && refusal.contains("agent.nix:1:"),
        "{refusal}"
    );
    let refusal = world.refused("{ ... }: { hyperhive.promt = \"x\"; }").await;
    assert!(refusal.contains("`hyperhive.promt' does not exist"), "{refusal}");
}

#[tokio::test]
async fn a_config_is_held_to_the_same_rules_as_agent_json() {
    let world = World::new().await;
    for (fields, told) in [
        (
            r#"mcpServers.wiki.command = "wiki";"#,
            "agent.nix: hyperhive.mcpServers.wiki.command",
        ),
        (
            r#"driver = { kind = "claude"; model = "--x"; };"#,
            "agent.nix: hyperhive.driver.model",
        ),
        (r#"network = "everything";"#, "agent.nix: hyperhive.network"),
        (r#"tools.permit = [ "Read" ];"#, "agent.nix: hyperhive.tools"),
        (r#"recipients = [ "../x" ];"#, "agent.nix: hyperhive.recipients"),
    ] {
        let refusal = world
            .refused(&format!("{{ ... }}: {{ hyperhive = {{ {fields} }}; }}"))
            .await;
        assert!(refusal.contains(told), "{fields}: {refusal}");
    }
}

#[tokio::test]
async fn who_fights_what_must_hold_is_told_option_and_value() {
    let world = World::new().await;
    let unit = "systemd.services.hive-harness.serviceConfig";
    for (setting, option, value) in [
        (
            "boot.isContainer = lib.mkForce false;".to_owned(),
            "boot.isContainer",
            "false",
        ),
        (
            "networking.hostName = lib.mkOverride 10 \"bob\";".to_owned(),
            "networking.hostName",
            "\"bob\"",
        ),
        (
            "users.users.agent.uid = lib.mkForce 0;".to_owned(),
            "users.users.agent.uid",
            "is 0",
        ),
        (
            "nix.settings.trusted-users = [ \"root\" \"agent\" ];".to_owned(),
            "nix.settings.trusted-users",
            "[\"root\",\"agent\"]",
        ),
        (
            format!("{unit}.ExecStart = lib.mkForce \"/bin/sh\";"),
            "serviceConfig.ExecStart",
            "/bin/sh",
        ),
        (
            format!("{unit}.User = lib.mkOverride 0 \"root\";"),
            "serviceConfig.User",
            "root",
        ),
    ] {
        let refusal = world.refused(&format!("{{ lib, ... }}: {{ {setting} }}")).await;
        assert!(
            refusal.contains(option) && refusal.contains(value),
            "{setting}: {refusal}"
        );
        assert!(refusal.contains("cannot change it"), "{setting}: {refusal}");
    }
    // Of ordinary priority it is a contradiction.
    let refusal = world.refused("{ ... }: { networking.hostName = \"bob\"; }").await;
    assert!(
        refusal.contains("`networking.hostName' has conflicting"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_system_that_is_not_what_the_options_say_is_refused() {
    let world = World::new().await;
    let refusal = world
        .refused(
            r#"{ lib, pkgs, ... }: { system.build.toplevel = lib.mkForce (pkgs.runCommand "evil" { } "mkdir $out"); }"#,
        )
        .await;
    assert!(refusal.contains("it has no program `init`"), "{refusal}");
}

#[tokio::test]
async fn a_bomb_of_memory_or_of_time_is_ended() {
    let limits = Limits {
        time: Duration::from_secs(3),
        ..LIMITS
    };
    let world = World::with(limits).await;
    let set = |prompt: &str| format!("{{ ... }}: {{ hyperhive.prompt = {prompt}; }}");
    let memory = set(
        "let f = n: [ n n ] ++ f (n + 1); in builtins.toJSON (builtins.genList (x: [ x x x x ]) 500000000)",
    );
    let refusal = world.refused(&memory).await;
    assert!(refusal.contains("more than 1024 MiB of memory"), "{refusal}");
    let time = set(
        "let l = builtins.genList (x: x) 1000; each = f: builtins.foldl' (a: x: a + f x) 0 l; in \
                    toString (each (a: each (b: each (c: each (d: c)))))",
    );
    let refusal = world.refused(&time).await;
    assert!(refusal.contains("longer than 3 seconds"), "{refusal}");
}

#[tokio::test]
async fn a_build_that_fails_shows_its_last_words_and_keeps_its_log() {
    let world = World::new().await;
    let module = r#"{ pkgs, ... }: { environment.systemPackages = [
        (pkgs.runCommand "broken" { } "echo last words >&2; exit 3") ]; }"#;
    let commit = world.commit(&[("agent.nix", module)]).await;
    let request = world.request(commit, json!({}));
    let error = world.builder.build(&request).await.expect_err("it fails");
    assert!(error.is_terminal());
    let told = error.chain();
    assert!(
        told.contains("broken.drv") && told.contains("exit code 3") && told.contains("last words"),
        "{told}"
    );
    let log = world.layout.build_log(&request.key().expect("a key"));
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.contains("last words"), "{log}");
}

#[tokio::test]
async fn a_build_reaches_the_network_only_where_the_operator_says() {
    let world = World::new().await;
    let fetch = r#"{ pkgs, ... }: { environment.systemPackages = [ (pkgs.runCommand "fetched" {
        outputHashMode = "recursive"; outputHashAlgo = "sha256";
        outputHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        url = "https://evil.example/x";
      } "mkdir -p $out/bin") ]; }"#;
    let refusal = world.refused(fetch).await;
    assert!(refusal.contains("fetched (from evil.example)"), "{refusal}");
    assert!(refusal.contains("builder.hosts"), "{refusal}");
    let wanted = world.build(fetch).await;
    let Err(HostError::WantsHosts { hosts, .. }) = wanted else {
        panic!("nobody can be asked about it: {wanted:?}");
    };
    assert_eq!(hosts, BTreeSet::from(["evil.example".to_owned()]));

    let commit = world.commit(&[("agent.nix", fetch)]).await;
    let mut request = world.request(commit, json!({}));
    let nix = request.nix.as_mut().expect("a nix builder");
    nix.hosts = BTreeSet::from(["evil.example".to_owned()]);
    let told = world
        .builder
        .build(&request)
        .await
        .expect_err("the hash is wrong")
        .chain();
    assert!(told.contains("hash mismatch"), "it was built: {told}");

    // What is not known by its hash has no network at all.
    let refusal = world
        .refused(
            r#"{ pkgs, ... }: { environment.systemPackages = [ (pkgs.runCommand "curious" { }
                "cat /proc/net/dev >&2; exit 1") ]; }"#,
        )
        .await;
    assert!(
        refusal.contains("lo:") && !refusal.contains("eth0") && !refusal.contains("ens"),
        "{refusal}"
    );
}

#[tokio::test]
async fn an_agents_tree_is_never_a_flake() {
    let world = World::new().await;
    let secret = world.root.join("secret");
    std::fs::create_dir(&secret).expect("a folder");
    let flake = format!(
        "{{ inputs.x = {{ url = \"path:{secret}\"; flake = false; }}; outputs = {{ self, x }}: {{ }}; nixConfig.allow-import-from-derivation = true; }}"
    );
    let commit = world
        .commit(&[("agent.nix", "{ ... }: { }"), ("flake.nix", &flake)])
        .await;
    world
        .builder
        .build(&world.request(commit, json!({})))
        .await
        .expect("built");
    let paths = std::fs::read_dir(&world.store.dir).expect("a store");
    for path in paths.flatten() {
        if path.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let is_empty = std::fs::read_dir(path.path()).is_ok_and(|mut entries| entries.next().is_none());
        assert!(
            !is_empty,
            "{} may be a copy of the secret folder",
            path.path().display()
        );
    }
}

#[tokio::test]
async fn without_a_module_the_prebuilt_system_is_taken_and_nothing_is_evaluated() {
    let world = World::new().await;
    let built = world.build("{ ... }: { }").await.expect("built");
    let top = built.launch.system.expect("a system").into_string();
    let before = world.evaluator.count.load(Ordering::Relaxed);
    let commit = world.commit(&[("agent.json", r#"{ "prompt": "mine" }"#)]).await;
    let request = world.request(commit, json!({ "system": top, "prompt": "yours" }));
    let output = world.builder.build(&request).await.expect("taken");
    assert_eq!(
        output.launch.system.as_deref().map(camino::Utf8Path::as_str),
        Some(top.as_str())
    );
    assert_eq!(output.config.prompt, "mine");
    assert_eq!(
        world.evaluator.count.load(Ordering::Relaxed),
        before,
        "nothing is evaluated"
    );
    assert!(world.is_present(&output.system).await);

    let seed = world.commit(&[]).await;
    let gone = world.request(seed, json!({ "system": format!("{top}x") }));
    let error = world.builder.build(&gone).await.expect_err("it is not there");
    assert!(!error.is_terminal(), "it may come back");
    assert!(error.chain().contains("agents.alice.system"), "{}", error.chain());
}

#[tokio::test]
async fn a_seed_without_a_prebuilt_system_is_built_from_the_operators_modules() {
    let world = World::new().await;
    let seed = world.commit(&[]).await;
    let module = world.root.join("wiki.nix");
    std::os::unix::fs::symlink(testbed("guest/default.nix"), &module).expect("a link");
    let mut request = world.request(seed, json!({ "modules": [testbed("extra.nix")] }));
    let nix = request.nix.as_mut().expect("a nix builder");
    nix.inputs.insert("data".to_owned(), testbed("guest"));
    let output = world.builder.build(&request).await.expect("built");
    let top = output.launch.system.expect("a system");
    let text = std::fs::read_to_string(top.join("etc/extra")).expect("what the operator's module makes");
    assert!(text.contains("isContainer"), "{text}");
}

#[tokio::test]
async fn both_files_may_speak_but_not_of_the_same_field() {
    let world = World::new().await;
    let module = "{ ... }: { hyperhive.prompt = \"from nix\"; }";
    let commit = world
        .commit(&[("agent.nix", module), ("agent.json", r#"{ "network": "none" }"#)])
        .await;
    let output = world
        .builder
        .build(&world.request(commit, json!({})))
        .await
        .expect("built");
    assert_eq!(
        (output.config.prompt.as_str(), output.launch.network),
        ("from nix", shared::spec::Network::None)
    );
    let commit = world
        .commit(&[
            ("agent.nix", module),
            ("agent.json", r#"{ "prompt": "from JSON" }"#),
        ])
        .await;
    let error = world
        .builder
        .build(&world.request(commit, json!({})))
        .await
        .expect_err("a contradiction");
    assert!(
        error.is_terminal() && error.chain().contains("hyperhive.prompt"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn a_vanished_system_is_seen_and_built_again() {
    let world = World::new().await;
    let module = "{ ... }: { hyperhive.prompt = \"x\"; }";
    let output = world.build(module).await.expect("built");
    std::fs::remove_dir_all(world.root.join("profiles")).expect("removed");
    assert!(!world.is_present(&output.system).await);
    world.collect_garbage();
    assert!(
        !output.launch.system.as_deref().expect("a system").exists(),
        "nothing held it"
    );
    assert_eq!(
        world.build(module).await.expect("built again").system,
        output.system
    );
    assert!(world.is_present(&output.system).await);
}

#[tokio::test]
async fn old_generations_are_forgotten_and_needed_ones_are_not() {
    let world = World::new().await;
    let mut systems = Vec::new();
    for number in 0..8 {
        let module = format!("{{ ... }}: {{ environment.etc.number.text = \"{number}\"; }}");
        systems.push(world.build(&module).await.expect("built"));
    }
    let needed = BTreeSet::from([systems[0].system.clone()]);
    let deployed = &systems[1];
    world
        .builder
        .retain(&alice(), &deployed.system, &needed)
        .await
        .expect("retained");
    world.collect_garbage();
    for (number, output) in systems.iter().enumerate() {
        assert_eq!(
            world.is_present(&output.system).await,
            number != 2,
            "system {number}"
        );
    }
    let profile = world
        .root
        .join("profiles/alice/system")
        .canonicalize_utf8()
        .expect("a profile");
    assert_eq!(Some(profile), deployed.launch.system);
}

#[tokio::test]
async fn what_two_systems_differ_in_is_told() {
    let world = World::new().await;
    let before = world.build("{ ... }: { }").await.expect("built");
    let after = world
        .build(
            r#"{ pkgs, ... }: {
                environment.systemPackages = [ (pkgs.writeShellScriptBin "tool" "echo") ];
                systemd.services.mine.serviceConfig = { ExecStart = "/bin/x"; User = "root"; };
                users.users.bob.uid = 0; }"#,
        )
        .await
        .expect("built");
    let lines = world
        .builder
        .difference(Some(&before.system), &after.system)
        .await
        .expect("compared");
    for told in [
        "+ unit mine.service: ExecStart=/bin/x; User=root",
        "+ user or group user bob: {\"name\":\"bob\",\"uid\":0}",
        "+ program tool: ",
        "+ package tool",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(told)),
            "{told}: {lines:#?}"
        );
    }
    let same = world
        .build("{ ... }: { hyperhive.prompt = \"x\"; }")
        .await
        .expect("built");
    let none = world.builder.difference(Some(&before.system), &same.system).await;
    assert_eq!(none.expect("compared"), [""; 0]);
    assert!(
        !world
            .builder
            .difference(None, &before.system)
            .await
            .expect("compared")
            .is_empty()
    );
}

/// Pure evaluation is Nix's promise; that an evaluator has nothing of the host to read is ours.
#[tokio::test]
async fn even_an_impure_evaluator_finds_nothing_of_the_host() {
    let world = World::new().await;
    world.build("{ ... }: { }").await.expect("built");
    let key = world
        .request(world.commit(&[]).await, json!({}))
        .key()
        .expect("a key");
    std::fs::create_dir_all(world.layout.build_log(&key).parent().expect("a folder")).expect("a folder");
    let secret = world.root.join("state/hive.db");
    std::fs::File::create(&secret).expect("a file");
    for (path, is_seen) in [
        ("/etc/passwd", false),
        ("/root", false),
        (secret.as_str(), false),
        ("/var", false),
        ("/sys", false),
        (world.store.dir.as_str(), true),
    ] {
        let expression = format!("builtins.pathExists \"{path}\"");
        let job = Job {
            program: "/usr/bin/nix-instantiate".into(),
            args: ["--eval", "--store", "dummy://", "--expr", &expression]
                .map(str::to_owned)
                .to_vec(),
            env: [("HOME", "/tmp"), ("USER", "evaluator")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            memory: None,
            cpu_secs: None,
        };
        let seen = world
            .evaluator
            .evaluate(&key, job, &Log::none())
            .await
            .expect("evaluated");
        let said = String::from_utf8_lossy(&seen.stdout);
        assert_eq!(
            said.trim(),
            is_seen.to_string(),
            "{path}: {}",
            String::from_utf8_lossy(&seen.stderr)
        );
    }
}
