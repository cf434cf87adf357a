use serde_json::{Value, json};

use super::*;

fn config(fields: &Value) -> AgentConfig {
    let mut config = json!({
        "agent": "alice",
        "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f",
        "hive": "home",
        "driver": { "kind": "claude" },
        "maxTurnMinutes": 60,
        "commit": "0123456789abcdef0123456789abcdef01234567",
    });
    for (name, value) in fields.as_object().expect("an object") {
        config[name] = value.clone();
    }
    serde_json::from_value(config).expect("a config")
}

#[expect(clippy::disallowed_methods, reason = "a test's own files")]
fn secrets(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Secrets) {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8");
    for (name, content) in files {
        std::fs::write(folder.join(name), content).expect("written");
    }
    (dir, Secrets::new(Some(folder)))
}

fn environment(variables: &Variables) -> Vec<(String, Vec<u8>)> {
    let variables = variables.environment();
    variables.map(|(name, value)| (name, value.into_vec())).collect()
}

fn far(headers: &Value) -> Value {
    json!({ "mcpServers": { "far": { "url": "http://127.0.0.1:1/mcp", "secretHeaders": headers } } })
}

#[test]
fn variables_hold_the_line_of_their_secret_as_it_is_when_they_are_asked_for() {
    let (_dir, one) = secrets(&[("key", b"first\n"), ("raw", b"\xff\r\n"), ("unused", b"x")]);
    let config = config(&json!({ "secretEnv": { "KEY": "key", "RAW": "raw" } }));
    let found = environment(&one.variables(&config).expect("variables"));
    let expected = [("KEY", b"first".to_vec()), ("RAW", b"\xff".to_vec())];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));

    let (_dir, one) = secrets(&[("key", b"second"), ("raw", b"r")]);
    assert_eq!(
        environment(&one.variables(&config).expect("variables"))[0].1,
        b"second"
    );
    assert_eq!(one.unusable(&config), None);
}

#[test]
fn a_secret_that_is_not_there_or_fits_no_variable_is_named_without_its_content() {
    let (_dir, some) = secrets(&[("nul", b"hush\0")]);
    for (secrets, name, what) in [
        (&some, "key", "the agent was started without the secret key"),
        (
            &Secrets::default(),
            "key",
            "the agent was started without the secret key",
        ),
        (
            &some,
            "nul",
            "cannot be the value of the variable KEY: it holds a NUL character",
        ),
        // What an agent proposes leads to no other file.
        (&some, "../nul", "without the secret ../nul"),
        (&some, "", "without the secret "),
    ] {
        let config = config(&json!({ "secretEnv": { "KEY": name } }));
        let error = secrets.unusable(&config).expect("unusable");
        assert!(error.contains(what) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn a_header_holds_its_secret_and_does_not_show_it() {
    let (_dir, secrets) = secrets(&[("key", b"Bearer hush\n"), ("lines", b"hush\nhush")]);
    let server = |secret: &str| {
        let config = config(&far(&json!({ "Authorization": secret })));
        config.mcp_servers.into_values().next().expect("a server")
    };
    let (headers, told) = secrets.headers(&server("key")).expect("headers");
    assert_eq!(headers[&reqwest::header::AUTHORIZATION], "Bearer hush");
    assert!(!format!("{headers:?}").contains("hush"));
    assert_eq!(told.without("401 for Bearer hush!"), "401 for [secret]!");

    let Err(error) = secrets.headers(&server("lines")) else {
        panic!("a header of two lines");
    };
    assert!(
        error.to_string().contains("a second line") && !error.to_string().contains("hush"),
        "{error}"
    );
}

#[test]
fn headers_are_variables_too_and_one_that_is_missing_stops_nothing() {
    let (_dir, secrets) = secrets(&[("the-key", b"hush")]);
    let config = config(&far(
        &json!({ "Authorization": "the-key", "X-Key": "none", "X-Other": "the-key" }),
    ));
    let found = environment(&secrets.variables_and_headers(&config).expect("variables"));
    assert_eq!(found, [("HIVE_SECRET_the_2d_key".to_owned(), b"hush".to_vec())]);
    assert!(environment(&secrets.variables(&config).expect("variables")).is_empty());
}

#[test]
fn other_secrets_have_other_variables() {
    let names = ["a-b", "a_b", "a_2d_b", "ab"];
    let variables: std::collections::BTreeSet<_> = names.into_iter().map(header_variable).collect();
    assert_eq!(variables.len(), names.len());
    assert!(
        variables
            .iter()
            .all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    );
}

#[test]
fn what_is_too_short_to_be_told_apart_is_left_in_a_text() {
    let (_dir, secrets) = secrets(&[("key", b"a\n"), ("long", b"long")]);
    let config = config(&json!({ "secretEnv": { "KEY": "key", "LONG": "long" } }));
    let variables = secrets.variables(&config).expect("variables");
    assert_eq!(variables.without("a long day"), "a [secret] day");
}
