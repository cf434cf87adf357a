//! An agent with the driver `claude`: a daemon, a provider, and a harness that runs in the test itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use harness::children::Children;
use harness::control::{self, ControlClient, Said};
use harness::driver::program;
use harness::secrets::Secrets;
use harness::serve::{ServeError, Settings, serve};
use model_server::{ModelServer, Rule};
use serde_json::{Value, json};
use shared::agent_api::MessageKind;
use shared::instruction::{Instruction, InstructionKind};
use shared::turn::{TurnResult, TurnStats};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use crate::daemon::World;
use crate::world::{Nest, PROGRAM};

/// The real program takes 200 MB each time it runs.
static PROGRAMS: Semaphore = Semaphore::const_new(2);

/// Where the real program is.
pub(crate) fn real_program() -> Utf8PathBuf {
    let folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../checks/claude");
    let program = match std::env::var("HIVE_TEST_CLAUDE") {
        Ok(named) => Utf8PathBuf::from(named),
        Err(_) => folder.join("node_modules/@anthropic-ai/claude-code-linux-x64/claude"),
    };
    assert!(
        program.is_file(),
        "{program} is not there: run `npm ci --ignore-scripts` in checks/claude (`cargo xtask test` does), or name the \
         program in HIVE_TEST_CLAUDE"
    );
    program
}

/// The folder of the agent's secrets, which is not its own.
const SECRETS: &str = "secrets";

/// One agent.
pub(crate) struct Bee {
    pub(crate) nest: Nest,
    pub(crate) model: ModelServer,
    program: Utf8PathBuf,
    pub(crate) minute: Duration,
    pub(crate) silence: Duration,
    pub(crate) grace: Duration,
    pub(crate) more_environment: Vec<(&'static str, OsString)>,
    serving: Option<JoinHandle<Result<u8, ServeError>>>,
    _permit: Option<SemaphorePermit<'static>>,
}

impl Bee {
    /// With the real program, not started yet.
    pub(crate) async fn real(rules: Vec<Rule>) -> Self {
        let permit = PROGRAMS.acquire().await.unwrap();
        Self::new(rules, |_| real_program(), Some(permit)).await
    }

    /// With a program that is this shell script, not started yet. It has the id of the conversation in `$session`.
    pub(crate) async fn fake(script: &str) -> Self {
        let find =
            "while [ $# -gt 0 ]; do case $1 in --session-id|--resume) how=$1; session=$2;; esac; shift; done";
        let init =
            r#"init() { printf '{"type":"system","subtype":"init","session_id":"%s"}\n' "$session"; }"#;
        let result = r#"result() { printf '{"type":"result","subtype":"success","is_error":%s,"result":"%s"}\n' "$1" "$2"; }"#;
        let text = format!("#!/bin/sh\n{find}\n{init}\n{result}\n{script}\n");
        let write = |nest: &Nest| {
            let program = nest.path("claude");
            std::fs::write(&program, text).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            program
        };
        Self::new(Vec::new(), write, None).await
    }

    async fn new(
        rules: Vec<Rule>,
        program: impl FnOnce(&Nest) -> Utf8PathBuf,
        permit: Option<SemaphorePermit<'static>>,
    ) -> Self {
        let nest = Nest::new(json!([]));
        let bee = Self {
            program: program(&nest),
            nest,
            model: ModelServer::start(rules).await.unwrap(),
            minute: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            more_environment: Vec::new(),
            serving: None,
            _permit: permit,
        };
        bee.config(&json!({}));
        bee
    }

    /// Gives it a secret.
    pub(crate) fn secret(&self, name: &str, value: &str) {
        let folder = self.nest.path(SECRETS);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), value).unwrap();
    }

    /// Announces a config with these fields.
    pub(crate) fn config(&self, fields: &Value) {
        let mut all = json!({ "driver": { "kind": "claude", "model": "made-up" } });
        for (name, value) in fields.as_object().unwrap() {
            all[name] = value.clone();
        }
        self.nest.deploy_config(all);
    }

    pub(crate) fn start(&mut self) {
        let socket = self.nest.path("sock/hive.sock");
        let folders = ["config", "state"].map(|folder| self.nest.path(folder).into_string());
        let [config, state] = folders;
        let words = [
            "--socket".to_owned(),
            socket.to_string(),
            "--config".to_owned(),
            config,
            "--state".to_owned(),
            state,
        ];
        let mut environment: BTreeMap<String, OsString> = [
            ("PATH", std::env::var_os("PATH").unwrap()),
            ("ANTHROPIC_BASE_URL", self.model.url().into()),
            ("ANTHROPIC_API_KEY", "made-up-key".into()),
            ("CLAUDE_CODE_MAX_RETRIES", "0".into()),
            ("TMPDIR", self.nest.path("").into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (name, value) in &self.more_environment {
            environment.insert((*name).to_owned(), value.clone());
        }
        // A login, or a key, but not both.
        if environment.contains_key("CLAUDE_CODE_OAUTH_TOKEN") {
            environment.remove("ANTHROPIC_API_KEY");
        }
        let settings = Settings {
            socket: socket.clone(),
            config: self.nest.path("config"),
            state: self.nest.path("state"),
            egress: "/nonexistent/hive-egress".into(),
            script: None,
            minute: self.minute,
            programs: program::Settings {
                claude: Some(self.program.clone()),
                environment,
                secrets: Secrets::new(Some(self.nest.path(SECRETS))),
                own_server: program::OwnServer {
                    program: PROGRAM.into(),
                    args: ["mcp".to_owned()].into_iter().chain(words).collect(),
                },
                ways: harness::relay::Ways::default(),
                silence: self.silence,
                grace: self.grace,
            },
        };
        self.serving = Some(tokio::spawn(serve(settings, Children::default())));
    }

    /// Ends the harness the way SIGKILL does: nothing of it runs on.
    pub(crate) async fn kill(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.is_err_and(|error| error.is_cancelled()));
    }

    /// Says something as the turn's MCP server does.
    pub(crate) async fn say(&self, said: &Said) {
        let socket = self.nest.path("state").join(control::SOCKET);
        ControlClient::new(&socket).say(said).await.unwrap();
    }

    pub(crate) fn message(&self, body: &str) {
        self.nest.daemon.message(MessageKind::Message, "operator", body);
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        self.nest.daemon.until(what, holds).await;
    }

    /// Waits until so many turns were told, and gives them.
    pub(crate) async fn turns(&self, count: usize) -> Vec<TurnStats> {
        self.until(&format!("{count} turns"), |world| world.turns.len() >= count)
            .await;
        self.nest.daemon.world().turns.clone()
    }

    /// Starts, and gives the turn that a message wakes. There may be more of them.
    pub(crate) async fn first_turn(&mut self) -> TurnStats {
        self.start();
        self.message("work");
        self.turns(1).await.remove(0)
    }

    /// The process that the program noted.
    pub(crate) async fn pid(&self) -> String {
        file(&self.nest.path("state/pid")).await
    }

    /// Starts, has the first turn ended as the operator may once its tool has noted its process here, and sees to it that
    /// this is gone.
    pub(crate) async fn cut_short(&mut self, pid: &Utf8Path) {
        self.start();
        self.message("work");
        let pid = file(pid).await;
        self.nest.daemon.change(|world| {
            world.instructions = vec![Instruction {
                id: 1,
                kind: InstructionKind::Cancel,
                turn: world.report().lease,
                until: None,
                wake_on_message: false,
            }];
        });
        let turns = self.turns(1).await;
        assert_eq!(turns[0].result, TurnResult::Interrupted, "{turns:?}");
        gone(&pid).await;
    }

    /// What the program is told to call to read its messages, and to say something.
    pub(crate) fn replies() -> Vec<Rule> {
        let said = json!({ "to": "operator", "body": "I heard you" });
        about([Rule::tool("from operator", "mcp__hive__send", said)])
    }
}

/// Rules by which the model fetches its messages, does this about them, and is done.
pub(crate) fn about(rules: impl IntoIterator<Item = Rule>) -> Vec<Rule> {
    let mut all = vec![Rule::tool("You have messages", "mcp__hive__recv", json!({}))];
    all.extend(rules);
    all.push(Rule::text("", "done"));
    all
}

/// The model runs a command about a message.
pub(crate) fn runs(command: &str) -> Rule {
    Rule::tool("from operator", "Bash", json!({ "command": command }))
}

impl Drop for Bee {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

/// Waits until a file is there, and gives what is in it.
pub(crate) async fn file(path: &Utf8Path) -> String {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.ends_with('\n')
        {
            return text.trim().to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "{path} was never written");
        tokio::task::yield_now().await;
    }
}

/// Waits until this process is gone.
pub(crate) async fn gone(pid: &str) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
    };
    while alive() {
        assert!(
            std::time::Instant::now() < deadline,
            "process {pid} is still there"
        );
        tokio::task::yield_now().await;
    }
}
