use serde_json::json;

use super::super::servers::document;
use super::*;
use crate::config::testing::config;
use crate::driver::conversation::Conversation as _;
use crate::driver::program::OwnServer;

const STATE: &str = "/state";

fn session(began: bool) -> Session {
    Session {
        began,
        ..Session::new(0)
    }
}

fn words(fields: &Value) -> Vec<String> {
    args(&config(fields), &session(false), Utf8Path::new(STATE), None)
}

/// What stands between this option and the next.
fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    let after = words.iter().skip_while(|word| *word != option).skip(1);
    after
        .map(String::as_str)
        .take_while(|word| !word.starts_with("--"))
        .collect()
}

#[test]
fn a_conversation_begins_with_its_id_and_goes_on_by_it() {
    for (began, option) in [(false, "--session-id"), (true, "--resume")] {
        let session = session(began);
        let words = args(&config(&json!({})), &session, Utf8Path::new(STATE), None);
        assert_eq!(values(&words, option), [session.id.to_string()]);
        assert_eq!(words.iter().filter(|word| *word == "--continue").count(), 0);
    }
}

#[test]
fn what_a_turn_may_cost_is_the_programs_to_keep_and_never_nothing() {
    let limit = |usd| {
        let words = args(&config(&json!({})), &session(true), Utf8Path::new(STATE), usd);
        values(&words, "--max-budget-usd").join(" ")
    };
    assert_eq!(limit(None), "");
    assert_eq!(limit(Some(1.25)), "1.25");
    assert_eq!(limit(Some(0.0)), "0.0001");
}

#[test]
fn nothing_of_the_work_tree_counts_and_nothing_is_asked_at_a_terminal() {
    let words = words(&json!({}));
    assert_eq!(values(&words, "--setting-sources"), [""]);
    assert_eq!(values(&words, "--permission-mode"), ["dontAsk"]);
    assert_eq!(values(&words, "--output-format"), ["stream-json"]);
    assert_eq!(values(&words, "--system-prompt-snapshot"), ["off"]);
    for option in [
        "-p",
        "--verbose",
        "--include-partial-messages",
        "--strict-mcp-config",
    ] {
        assert!(words.iter().any(|word| word == option), "{option} in {words:?}");
    }
}

#[test]
fn only_allowed_built_in_tools_exist_and_their_patterns_are_rules() {
    let tools = json!({ "tools": { "allow": ["Bash(git *)", "Bash(ls)", "Read", "mcp__wiki__look", "-bad", "(x)"] } });
    let all = words(&tools);
    assert_eq!(values(&all, "--tools"), ["Bash,Read"]);
    let rules = values(&all, "--allowedTools");
    assert!(
        rules.contains(&"Bash(git *)") && rules.contains(&"mcp__hive"),
        "{rules:?}"
    );
    // None is none, and not all.
    assert_eq!(values(&words(&json!({})), "--tools"), [""]);
}

#[test]
fn tools_of_declared_servers_are_allowed_as_declared() {
    let servers = json!({ "mcpServers": {
        "wiki": { "command": "wiki-mcp", "args": ["--all"], "env": { "A": "b" } },
        "web": { "url": "http://127.0.0.1:1/mcp", "allowedTools": ["look", "list"] },
        "kept": { "url": "https://127.0.0.1:1/mcp", "secretHeaders": { "Authorization": "the-key" }, "allowedTools": [] },
    } });
    let words = words(&servers);
    assert_eq!(
        values(&words, "--allowedTools"),
        ["mcp__hive", "mcp__web__list", "mcp__web__look", "mcp__wiki"]
    );
    let own = OwnServer {
        program: "/bin/hive-harness".into(),
        args: vec!["mcp".to_owned()],
    };
    let turn = TurnId(crate::ids::session_id());
    let document = document(&own, &config(&servers), turn);
    assert_eq!(
        document["mcpServers"]["wiki"],
        json!({ "command": "wiki-mcp", "args": ["--all"], "env": { "A": "b" } })
    );
    assert_eq!(
        document["mcpServers"]["web"],
        json!({ "type": "http", "url": "http://127.0.0.1:1/mcp" })
    );
    // The value is only in the environment.
    assert_eq!(
        document["mcpServers"]["kept"]["headers"],
        json!({ "Authorization": "${HIVE_SECRET_the_2d_key}" })
    );
    assert_eq!(
        document["mcpServers"]["hive"]["args"],
        json!(["mcp", "--turn", turn.to_string()])
    );
}

#[test]
fn no_declared_server_takes_the_place_of_the_hives_own_or_reads_our_environment() {
    let own = OwnServer {
        program: "/bin/hive-harness".into(),
        args: Vec::new(),
    };
    let servers = json!({ "mcpServers": {
        "hive": { "command": "evil", "allowedTools": ["x"] },
        "nosy": { "command": "nosy", "args": ["${ANTHROPIC_API_KEY}"], "env": { "K": "a${X}" } },
    } });
    let document = document(&own, &config(&servers), TurnId(crate::ids::session_id()));
    assert_eq!(document["mcpServers"]["hive"]["command"], "/bin/hive-harness");
    assert_eq!(
        document["mcpServers"]["nosy"]["args"],
        json!(["${HIVE_DOLLAR}{ANTHROPIC_API_KEY}"])
    );
    assert_eq!(document["mcpServers"]["nosy"]["env"]["K"], "a${HIVE_DOLLAR}{X}");
}

#[test]
fn the_environment_is_fresh_but_for_a_short_list() {
    let passed = [
        ("PATH", "/bin"),
        ("ANTHROPIC_API_KEY", "key"),
        ("CLAUDE_CODE_MAX_RETRIES", "0"),
        ("SECRET_OF_THE_HOST", "x"),
        ("HOME", "/root"),
        ("LD_PRELOAD", "x"),
    ];
    let passed = passed.map(|(name, value)| (name.to_owned(), value.into())).into();
    let turn = TurnId(crate::ids::session_id());
    let environment = environment(&passed, &config(&json!({})), Utf8Path::new(STATE), turn);
    let value = |name: &str| environment.get(name).and_then(|value| value.to_str());
    assert_eq!(
        (value("PATH"), value("ANTHROPIC_API_KEY")),
        (Some("/bin"), Some("key"))
    );
    assert_eq!(value("CLAUDE_CODE_MAX_RETRIES"), Some("0"));
    assert_eq!((value("SECRET_OF_THE_HOST"), value("LD_PRELOAD")), (None, None));
    assert_eq!(
        (value("HOME"), value("CLAUDE_CONFIG_DIR")),
        (Some("/state"), Some("/state/claude"))
    );
    assert_eq!(value(TURN_MARK), Some(turn.to_string().as_str()));
}

#[test]
fn the_provider_is_the_one_that_the_operator_declared() {
    let passed = [("ANTHROPIC_BASE_URL".to_owned(), "http://passed".into())].into();
    let turn = TurnId(crate::ids::session_id());
    let url = |fields: &Value| {
        let environment = environment(&passed, &config(fields), Utf8Path::new(STATE), turn);
        environment["ANTHROPIC_BASE_URL"].clone()
    };
    assert_eq!(url(&json!({ "modelUrl": "http://declared" })), "http://declared");
    assert_eq!(url(&json!({})), "http://passed");
}

#[test]
fn nothing_that_somebody_wrote_is_in_what_wakes_the_agent() {
    for tidy in [false, true] {
        let wake = prompt(Purpose::Messages, tidy);
        assert!(!wake.contains(['@', '{']) && !wake.starts_with('/'));
        assert_eq!(wake.contains("notes"), tidy);
        assert_eq!(prompt(Purpose::Compaction, tidy), "/compact");
    }
}

#[test]
fn the_agent_is_told_who_it_is_and_a_manager_more() {
    let worker = config(
        &json!({ "prompt": " Look after the wiki. ", "operator": { "name": "Ada", "pronouns": "she/her" } }),
    );
    let text = system_prompt(&worker, Utf8Path::new(STATE));
    assert!(
        text.starts_with("You are alice, an agent of the hive \"home\"."),
        "{text}"
    );
    assert!(
        text.contains("Ada (she/her), the operator, runs the hive"),
        "{text}"
    );
    assert!(
        text.ends_with("Your standing instructions:\n\nLook after the wiki.\n"),
        "{text}"
    );
    assert!(!text.contains("You are a manager"), "{text}");
    let manager = config(&json!({ "role": "manager" }));
    let text = system_prompt(&manager, Utf8Path::new(STATE));
    assert!(text.contains("You are a manager of this hive"), "{text}");
    for text in [text, system_prompt(&worker, Utf8Path::new(STATE))] {
        assert!(!text.contains(['{', '}']), "{text}");
    }
}

#[test]
fn denied_tools_and_the_login_are_denied_in_the_settings() {
    let config = config(&json!({ "tools": { "allow": ["Bash"], "deny": ["Bash(rm *)"] } }));
    let settings = settings(&config, &Offered::new(), Utf8Path::new(STATE));
    assert_eq!(
        settings["permissions"]["deny"],
        json!([
            "Bash(rm *)",
            "Read(//state/claude/.credentials.json)",
            "Edit(//state/claude/**)"
        ])
    );
}

#[test]
fn no_name_of_a_tool_is_more_than_one_rule() {
    let servers = json!({ "mcpServers": {
        "wiki": { "command": "w", "allowedTools": ["x,mcp__bank", "y Bash(*)", "l*k"] },
    } });
    assert_eq!(
        values(&words(&servers), "--allowedTools"),
        [
            "mcp__hive",
            "mcp__wiki__l_k",
            "mcp__wiki__x_mcp__bank",
            "mcp__wiki__y_Bash___"
        ]
    );
}

#[test]
fn what_a_server_is_known_to_offer_and_is_not_allowed_is_denied_by_name() {
    let config = config(&json!({ "mcpServers": {
        "hive": { "command": "evil", "allowedTools": [] },
        "wiki": { "command": "w", "allowedTools": ["look"] },
        "web": { "command": "w" },
        "new": { "command": "w", "allowedTools": [] },
    } }));
    let offered: Offered = [
        ("hive", vec!["recv"]),
        ("wiki", vec!["draw", "look"]),
        ("web", vec!["draw"]),
    ]
    .into_iter()
    .map(|(name, tools)| {
        (
            name.parse().expect("a name"),
            tools.into_iter().map(str::to_owned).collect(),
        )
    })
    .collect();
    let settings = settings(&config, &offered, Utf8Path::new(STATE));
    let deny = settings["permissions"]["deny"].as_array().expect("a list");
    let tools: Vec<&Value> = deny
        .iter()
        .filter(|rule| rule.as_str().is_some_and(|rule| rule.starts_with("mcp__")))
        .collect();
    assert_eq!(tools, ["mcp__wiki__draw"]);
}
