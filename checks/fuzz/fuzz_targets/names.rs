//! Any text in place of a name: what passes survives a round trip and is one component of a path.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use reconciler::host::git::names;
use reconciler::host::layout::Layout;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::{Address, AgentName, CommitOid, Digest, ServerName};

fn round_trip<T>(text: &str) -> Option<T>
where
    T: FromStr + Display + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let from_json = serde_json::from_value::<T>(text.into()).ok();
    let Ok(value) = text.parse::<T>() else {
        assert_eq!(
            from_json, None,
            "JSON lets pass what the name's own check refuses"
        );
        return None;
    };
    assert_eq!(value.to_string(), text);
    assert_eq!(serde_json::to_value(&value).expect("JSON"), text);
    assert_eq!(from_json.as_ref(), Some(&value));
    Some(value)
}

fn one_component(text: &str) {
    assert!(!text.is_empty() && text != "." && text != ".." && !text.starts_with('-'));
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(name) = names::check(bytes) {
        let parts: Vec<_> = std::path::Path::new(name).components().collect();
        assert!(matches!(parts[..], [std::path::Component::Normal(_)]), "{name:?}");
        assert_eq!(
            names::folded(&names::folded(name)),
            names::folded(name),
            "{name:?}"
        );
        assert!(!name.eq_ignore_ascii_case(".git"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(agent) = round_trip::<AgentName>(text) {
        one_component(text);
        let layout = Layout::new("/s".into(), "/r".into());
        assert_eq!(layout.agent(&agent).parent(), Some(layout.agents().as_path()));
        assert_eq!(layout.repo(&agent).parent(), Some(layout.repos().as_path()));
        assert_eq!(layout.sock(&agent).as_str(), format!("/r/agents/{text}/sock"));
    }
    if let Some(server) = round_trip::<ServerName>(text) {
        one_component(server.as_str());
    }
    round_trip::<Address>(text);
    if let Some(commit) = round_trip::<CommitOid>(text) {
        one_component(commit.as_str());
    }
    if let Some(digest) = round_trip::<Digest>(text) {
        one_component(digest.as_str());
        assert_eq!(digest.hex().len(), 64);
    }
});
