//! Folders, a daemon, the loop's end of the control socket, and clients of the server.

use std::process::Stdio;
use std::time::Duration;

use camino::Utf8PathBuf;
use harness::control::{self, Said};
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ContentBlock, Implementation, ProtocolVersion,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RunningService};
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceError};
use serde_json::{Value, json};
use shared::canonical::{Encoding, digest_value};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::daemon::{Daemon, TIME};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hive-harness");
pub(crate) const TURN: &str = "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f";
const DEADLINE: Duration = Duration::from_secs(30);

/// One agent's surroundings.
pub(crate) struct Nest {
    pub(crate) daemon: Daemon,
    /// What the loop of the harness is told.
    pub(crate) said: mpsc::Receiver<Said>,
    root: Utf8PathBuf,
    _dir: tempfile::TempDir,
}

impl Nest {
    /// With a daemon that knows the agent, and a config that says `role`.
    pub(crate) fn new(role: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("hive").tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        for folder in ["config", "state", "sock"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        let config = json!({
            "agent": "alice",
            "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f",
            "hive": "home",
            "role": role,
            "driver": { "kind": "scripted" },
            "maxTurnMinutes": 60,
            "commit": "0123456789abcdef0123456789abcdef01234567",
        });
        let digest = digest_value(Encoding::Config, &config);
        let file = json!({ "digest": digest, "config": config });
        std::fs::write(root.join("config/agent.json"), file.to_string()).unwrap();
        let daemon = Daemon::start(&root.join("sock/hive.sock"));
        let whoami = json!({
            "name": "alice", "hive": "home", "role": role, "operator": { "name": "Kim", "pronouns": "they/them" },
            "recipients": ["operator", "bob", "queen"], "managers": ["queen"],
            "commit": "0123456789abcdef0123456789abcdef01234567", "now": TIME,
        });
        daemon.answers("GET /v1/whoami", 200, whoami);
        let said = control::listen(&root.join("state").join(control::SOCKET)).unwrap();
        Self {
            daemon,
            said,
            root,
            _dir: dir,
        }
    }

    pub(crate) fn agent() -> Self {
        Self::new("worker")
    }

    pub(crate) fn manager() -> Self {
        Self::new("manager")
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        self.root.join(name)
    }

    /// The server as a driver's program would start it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        let path = |name| self.path(name).into_string();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .args(["mcp", "--turn", TURN])
            .args(["--socket", &path("sock/hive.sock")])
            .args(["--state", &path("state")])
            .args(["--config", &path("config")])
            .kill_on_drop(true);
        command
    }

    /// A client that begins with `initialize`.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(ClientLifecycleMode::Initialize).await
    }

    /// A client that asks `server/discover` and never says `initialize`, as Claude Code does.
    pub(crate) async fn stateless_client(&self) -> Client {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        self.client_with(ClientLifecycleMode::Discover { preferred_versions })
            .await
    }

    async fn client_with(&self, lifecycle: ClientLifecycleMode) -> Client {
        let (transport, _) = TokioChildProcess::builder(self.command())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let config = ClientConfig::new(ClientCapabilities::default(), Implementation::new("test", "1"))
            .with_protocol_version(ProtocolVersion::V_2025_11_25);
        let starting = config.serve_with_lifecycle(transport, lifecycle);
        let service = tokio::time::timeout(DEADLINE, starting).await.unwrap().unwrap();
        Client { service }
    }

    /// What the loop is told next.
    pub(crate) async fn told(&mut self) -> Said {
        tokio::time::timeout(DEADLINE, self.said.recv())
            .await
            .expect("the loop is told something")
            .expect("the socket is there")
    }
}

/// A client of one server, which ends with it.
pub(crate) struct Client {
    pub(crate) service: RunningService<RoleClient, ClientConfig>,
}

impl Client {
    /// Calls a tool: what it says, or in what words it refuses.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Result<String, String> {
        self.call_as(tool, arguments, None).await
    }

    /// Calls a tool as the model's call with this id.
    pub(crate) async fn call_as(
        &self,
        tool: &str,
        arguments: Value,
        id: Option<&str>,
    ) -> Result<String, String> {
        let mut params = CallToolRequestParams::new(tool.to_owned())
            .with_arguments(arguments.as_object().unwrap().clone());
        if let Some(id) = id {
            params.meta = Some(serde_json::from_value(json!({ "claudecode/toolUseId": id })).unwrap());
        }
        let result = tokio::time::timeout(DEADLINE, self.service.call_tool(params))
            .await
            .expect("an answer in time")
            .unwrap();
        assert_eq!(
            result.structured_content, None,
            "the model would see it instead of the text"
        );
        let [ContentBlock::Text(text)] = result.content.as_slice() else {
            panic!("{:?}", result.content);
        };
        match result.is_error {
            Some(true) => Err(text.text.clone()),
            _ => Ok(text.text.clone()),
        }
    }

    /// Calls a tool that must succeed.
    pub(crate) async fn does(&self, tool: &str, arguments: Value) -> String {
        self.call(tool, arguments).await.unwrap()
    }

    /// Calls a tool that must refuse.
    pub(crate) async fn refuses(&self, tool: &str, arguments: Value) -> String {
        self.call(tool, arguments).await.unwrap_err()
    }

    /// Calls what is no tool.
    pub(crate) async fn unknown(&self, tool: &str) -> ServiceError {
        let params = CallToolRequestParams::new(tool.to_owned());
        self.service.call_tool(params).await.unwrap_err()
    }

    pub(crate) async fn tools(&self) -> Vec<rmcp::model::Tool> {
        self.service.list_all_tools().await.unwrap()
    }

    pub(crate) async fn tool_names(&self) -> Vec<String> {
        self.tools()
            .await
            .iter()
            .map(|tool| tool.name.to_string())
            .collect()
    }
}
