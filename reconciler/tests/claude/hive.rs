//! A hive whose agents are real Claude Code programs that speak to a made-up provider.

use std::fs::{self, DirBuilder};

use camino::{Utf8Path, Utf8PathBuf};
use model_server::{Asked, ModelServer, Rule};
use reconciler::host::folders::write_atomic;
use serde_json::{Value, json};
use shared::turn::{TurnInfo, TurnStats};
use tokio::runtime::Runtime;

use crate::world::{World, name, spec, with};

/// What every agent begins its turn with.
pub(crate) fn recv() -> Rule {
    Rule::tool("You have messages", "mcp__hive__recv", json!({}))
}

/// Says this to somebody when it reads that.
pub(crate) fn send(on: &str, to: &str, body: &str) -> Rule {
    Rule::tool(on, "mcp__hive__send", json!({ "to": to, "body": body }))
}

/// Where the real program is.
#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
pub(crate) fn claude() -> Utf8PathBuf {
    let program = match std::env::var("HIVE_TEST_CLAUDE") {
        Ok(named) => Utf8PathBuf::from(named),
        Err(_) => Utf8Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../checks/claude/node_modules/@anthropic-ai/claude-code-linux-x64/claude"),
    };
    program.canonicalize_utf8().unwrap_or_else(|error| {
        panic!(
            "{program}: {error}: run `npm ci --ignore-scripts` in checks/claude (`cargo xtask test` does), or name the program \
             in HIVE_TEST_CLAUDE"
        )
    })
}

/// What a login leaves in the agent's own folder.
pub(crate) fn log_in_at(state: &Utf8Path, agent: &str) {
    let folder = state.join("claude");
    DirBuilder::new().recursive(true).create(&folder).unwrap();
    let login = json!({ "claudeAiOauth": {
        "accessToken": format!("made-up-token-of-{agent}"),
        "refreshToken": "made-up",
        "expiresAt": 4_102_444_800_000_u64,
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    } });
    let file = folder.join(".credentials.json");
    write_atomic(&file, login.to_string().as_bytes(), 0o600).unwrap();
}

/// A provider for tests that know nothing of tasks.
pub(crate) struct Provider {
    server: ModelServer,
    runtime: Runtime,
}

impl Provider {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(ModelServer::start(rules)).unwrap();
        Self { server, runtime }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn log(&self) -> Vec<Asked> {
        self.server.log()
    }

    /// Waits until it is asked something like this.
    pub(crate) fn until_asked(&self, what: &str, like: impl Fn(&Asked) -> bool) {
        let asked = self.server.until(|log| log.iter().any(&like));
        let asked = async { tokio::time::timeout(crate::world::DEADLINE, asked).await };
        assert!(
            self.runtime.block_on(asked).is_ok(),
            "never asked: {what}; {:?}",
            self.log()
        );
    }
}

/// The hive.
pub(crate) struct Hive {
    pub(crate) world: World,
    pub(crate) model: Provider,
}

/// Shows a failed test's conversations, which no log has.
#[expect(clippy::print_stderr, reason = "it is part of what the test says")]
impl Drop for Hive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the provider was asked:\n{}", self.asked());
        }
    }
}

impl Hive {
    /// With these agents, all of them healthy, none of them logged in.
    pub(crate) fn without_login(agents: &[&str], rules: Vec<Rule>) -> Self {
        Self::with(agents, &json!({}), rules)
    }

    /// The same, declared with these fields besides.
    pub(crate) fn with(agents: &[&str], fields: &Value, rules: Vec<Rule>) -> Self {
        let model = Provider::new(rules);
        let mut spec = declared(agents, &model);
        for agent in agents {
            spec["agents"][agent] = with(spec["agents"][agent].take(), fields);
        }
        let world = World::serving(&spec);
        for agent in agents {
            world.until_healthy(agent);
        }
        Self { world, model }
    }

    /// With these agents, all of them healthy and logged in.
    pub(crate) fn of(agents: &[&str], rules: Vec<Rule>) -> Self {
        let hive = Self::without_login(agents, rules);
        for agent in agents {
            hive.log_in(agent);
        }
        hive
    }

    pub(crate) fn log_in(&self, agent: &str) {
        log_in_at(&self.world.layout.agent_state(&name(agent)), agent);
    }

    pub(crate) fn say(&self, agent: &str, text: &str) {
        self.world.does(&["send", agent, text]);
    }

    /// Waits until the daemon was told of so many turns of the agent, and gives them, oldest first.
    pub(crate) fn turns(&self, agent: &str, count: usize) -> Vec<TurnStats> {
        self.world.until(&format!("{count} turns of {agent}"), || {
            let turns: Vec<TurnInfo> = self.world.get(&format!("/v1/turns?agent={agent}")).ok();
            let turns: Vec<_> = turns.into_iter().rev().map(|turn| turn.stats).collect();
            (turns.len() >= count).then_some(turns)
        })
    }

    /// Waits until the operator was told exactly this, and nothing besides.
    pub(crate) fn until_said(&self, said: &[&str]) {
        self.world
            .until(&format!("{said:?}"), || (self.world.said() == said).then_some(()));
    }

    /// Waits until something that the operator was told contains this.
    pub(crate) fn until_told(&self, what: &str) {
        self.world.until(&format!("{what:?}"), || {
            let said = self.world.said();
            said.iter().any(|said| said.contains(what)).then_some(())
        });
    }

    /// What the provider was asked, for whoever looks into a failure.
    fn asked(&self) -> String {
        let log = self.model.log();
        let lines = log.iter().map(|asked| {
            let last: String = asked.last.chars().take(400).collect();
            format!("{:?}, with {} tools", last, asked.tools.len())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The conversation that the agent's harness keeps.
    pub(crate) fn conversation(&self, agent: &str) -> Value {
        let file = self
            .world
            .layout
            .agent_state(&name(agent))
            .join("claude/hive-session.json");
        let kept: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        kept["id"].clone()
    }
}

/// A spec with these agents.
pub(crate) fn declared(agents: &[&str], model: &Provider) -> Value {
    let agent = json!({ "network": "host", "driver": { "kind": "claude", "model": "made-up" } });
    let agents = agents.iter().map(|name| ((*name).to_owned(), agent.clone()));
    let mut spec = spec(&Value::Object(agents.collect()));
    spec["egress"] = json!({ "modelUrl": model.url() });
    spec["programs"] = json!({ "claude": claude() });
    spec
}
