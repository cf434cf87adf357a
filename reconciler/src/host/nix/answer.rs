//! What an evaluation says, and what of it must hold. Pure. All of it follows from what an agent wrote.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use shared::AgentName;

use super::flake::MODULE_FILE;
use super::store::{Store, StorePath};
use crate::host::HostError;
use crate::untrusted::line;

/// An option whose value must hold whatever modules say.
pub(super) struct Held {
    /// Its path, as people write it.
    pub(super) option: &'static str,
    must: Must,
}

enum Must {
    /// Be this number, text or truth value.
    Be(fn() -> Value),
    /// Be the agent's name.
    BeTheName,
    /// Be a text, or a list of one, that equals this.
    Say(&'static str),
    /// Be a list that contains this.
    Contain(&'static str),
    /// Be a list of nothing but this.
    OnlyContain(&'static str),
    /// Be absent or this.
    NotDiffer(fn() -> Value),
}

/// All of them. A change here is a change of what the launcher and the harness count on.
pub(super) const HELD: &[Held] = &[
    Held {
        option: "boot.isContainer",
        must: Must::Be(|| Value::Bool(true)),
    },
    Held {
        option: "networking.hostName",
        must: Must::BeTheName,
    },
    Held {
        option: "users.users.agent.uid",
        must: Must::Be(|| Value::from(1000)),
    },
    Held {
        option: "users.users.agent.group",
        must: Must::Say("agent"),
    },
    Held {
        option: "users.groups.agent.gid",
        must: Must::Be(|| Value::from(1000)),
    },
    Held {
        option: "nix.settings.trusted-users",
        must: Must::OnlyContain("root"),
    },
    Held {
        option: "systemd.services.hive-harness.enable",
        must: Must::NotDiffer(|| Value::Bool(true)),
    },
    Held {
        option: "systemd.services.hive-harness.wantedBy",
        must: Must::Contain("multi-user.target"),
    },
    Held {
        option: "systemd.services.hive-harness.serviceConfig.ExecStart",
        must: Must::Say("/config/hive-harness serve"),
    },
    Held {
        option: "systemd.services.hive-harness.serviceConfig.User",
        must: Must::Say("agent"),
    },
    Held {
        option: "systemd.services.hive-harness.serviceConfig.Restart",
        must: Must::Say("on-failure"),
    },
];

impl Held {
    /// What it must be, in words, unless it is.
    fn missed(&self, agent: &AgentName, value: &Value) -> Option<String> {
        let text = |value: &Value| match value {
            Value::Array(items) if items.len() == 1 => items[0].as_str().map(str::to_owned),
            value => value.as_str().map(str::to_owned),
        };
        let items = |value: &Value| -> Option<BTreeSet<String>> {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let (holds, wanted) = match &self.must {
            Must::Be(wanted) => (*value == wanted(), wanted().to_string()),
            Must::NotDiffer(wanted) => (value.is_null() || *value == wanted(), wanted().to_string()),
            Must::BeTheName => (value == agent.as_str(), format!("{:?}", agent.as_str())),
            Must::Say(wanted) => (text(value).as_deref() == Some(wanted), format!("{wanted:?}")),
            Must::Contain(wanted) => (
                items(value).is_some_and(|items| items.contains(*wanted)),
                format!("a list with {wanted:?}"),
            ),
            Must::OnlyContain(wanted) => (
                value.is_null() || items(value).is_some_and(|items| items.iter().all(|item| item == wanted)),
                format!("a list of nothing but {wanted:?}"),
            ),
        };
        (!holds).then_some(wanted)
    }
}

/// What the meta flake evaluates to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Said {
    guard: BTreeMap<String, Value>,
    config: Value,
    config_paths: BTreeMap<String, Context>,
    toplevel: Toplevel,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Toplevel {
    drv: String,
    out: String,
}

/// How a text depends on a store path.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Context {
    #[serde(default)]
    outputs: Vec<String>,
    #[serde(default)]
    path: bool,
    #[serde(default)]
    all_outputs: bool,
}

/// A checked answer.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// The system's derivation.
    pub(super) drv: StorePath,
    /// What it becomes.
    pub(super) toplevel: StorePath,
    /// The fields that modules set below `hyperhive`, as JSON.
    pub(super) config: Vec<u8>,
    /// What the config names: store paths, or `DRV!OUTPUTS`, as `nix-store --realise` takes them.
    pub(super) paths: Vec<String>,
}

/// Reads an answer and holds it against what must hold.
pub(super) fn read(store: &Store, agent: &AgentName, bytes: &[u8]) -> Result<Answer, HostError> {
    let said: Said = serde_json::from_slice(bytes)
        .map_err(|error| HostError::refused("the evaluation", format!("it makes no sense: {error}")))?;
    for held in HELD {
        let value = said.guard.get(held.option).unwrap_or(&Value::Null);
        if let Some(wanted) = held.missed(agent, value) {
            let found = if value.is_null() {
                "not set".to_owned()
            } else {
                line(&value.to_string(), 200)
            };
            return Err(HostError::refused(
                format!("{MODULE_FILE}: {}", held.option),
                format!("must be {wanted}, and is {found}: an agent's module cannot change it"),
            ));
        }
    }
    let drv = store.path(&said.toplevel.drv)?;
    let toplevel = store.path(&said.toplevel.out)?;
    if !drv.is_derivation() || !toplevel.below().is_empty() {
        return Err(HostError::refused(
            format!("{MODULE_FILE}: system.build.toplevel"),
            "it is no derivation",
        ));
    }
    let mut paths = Vec::new();
    for (path, context) in &said.config_paths {
        let path = store.path(path)?;
        if path.is_derivation() && !context.all_outputs && !context.path {
            if !context.outputs.iter().all(|output| is_output(output)) {
                return Err(HostError::refused(
                    path.to_string(),
                    "has an output with an impossible name",
                ));
            }
            paths.push(format!("{path}!{}", context.outputs.join(",")));
        } else {
            paths.push(path.to_string());
        }
    }
    Ok(Answer {
        drv,
        toplevel,
        config: said.config.to_string().into_bytes(),
        paths,
    })
}

fn is_output(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-._?=".contains(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HASHED: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz";

    fn answer() -> Value {
        json!({
            "guard": {
                "boot.isContainer": true,
                "networking.hostName": "alice",
                "users.users.agent.uid": 1000,
                "users.users.agent.group": "agent",
                "users.groups.agent.gid": 1000,
                "nix.settings.trusted-users": ["root"],
                "systemd.services.hive-harness.enable": true,
                "systemd.services.hive-harness.wantedBy": ["multi-user.target", "x.target"],
                "systemd.services.hive-harness.serviceConfig.ExecStart": ["/config/hive-harness serve"],
                "systemd.services.hive-harness.serviceConfig.User": "agent",
                "systemd.services.hive-harness.serviceConfig.Restart": "on-failure",
            },
            "config": { "prompt": "x" },
            "configPaths": {
                (format!("{HASHED}-wiki.drv")): { "outputs": ["out", "bin"] },
                (format!("{HASHED}-text")): { "path": true },
            },
            "toplevel": { "drv": format!("{HASHED}-system.drv"), "out": format!("{HASHED}-system") },
        })
    }

    fn read(answer: &Value) -> Result<Answer, HostError> {
        let agent = "alice".parse().expect("a name");
        super::read(&Store::of_machine(), &agent, answer.to_string().as_bytes())
    }

    #[test]
    fn an_answer_is_read() {
        let answer = read(&answer()).expect("an answer");
        assert_eq!(answer.toplevel.name(), "system");
        assert_eq!(
            answer.paths,
            [format!("{HASHED}-text"), format!("{HASHED}-wiki.drv!out,bin")]
        );
        assert_eq!(answer.config, br#"{"prompt":"x"}"#);
    }

    #[test]
    fn every_value_that_must_hold_is_held() {
        for held in HELD {
            for value in [
                json!("other"),
                json!(["other"]),
                json!({}),
                json!(false),
                json!(0),
            ] {
                let mut answer = answer();
                answer["guard"][held.option] = value.clone();
                let error = read(&answer).expect_err(held.option);
                let told = error.chain();
                assert!(error.is_terminal());
                assert!(told.contains(held.option), "{told}");
                assert!(told.contains(&value.to_string()), "{told}");
            }
        }
    }

    #[test]
    fn a_value_that_is_not_there_does_not_hold() {
        for option in [
            "boot.isContainer",
            "users.users.agent.uid",
            "systemd.services.hive-harness.serviceConfig.User",
        ] {
            let mut answer = answer();
            answer["guard"].as_object_mut().expect("an object").remove(option);
            let told = read(&answer).expect_err(option).chain();
            assert!(told.contains("not set"), "{told}");
        }
    }

    #[test]
    fn an_answer_that_names_something_outside_the_store_is_refused() {
        for (pointer, value) in [
            ("/toplevel/drv", json!("/etc/passwd")),
            ("/toplevel/drv", json!(format!("{HASHED}-system"))),
            ("/toplevel/out", json!("/nix/store/../../etc")),
            ("/toplevel/out", json!(format!("{HASHED}-system/etc"))),
            ("/configPaths", json!({ "/etc/shadow": { "path": true } })),
            (
                "/configPaths",
                json!({ (format!("{HASHED}-x.drv")): { "outputs": ["--add-root"] , "x": 1 } }),
            ),
            (
                "/configPaths",
                json!({ (format!("{HASHED}-x.drv")): { "outputs": ["a b"] } }),
            ),
            ("/toplevel", json!(null)),
        ] {
            let mut answer = answer();
            *answer.pointer_mut(pointer).expect("a place") = value;
            assert!(read(&answer).expect_err(pointer).is_terminal());
        }
    }
}
