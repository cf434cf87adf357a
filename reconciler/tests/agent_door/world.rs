//! A hive before a fake world, with real doors on real sockets.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use reconciler::api::Context;
use reconciler::api::doors::AgentDoors;
use reconciler::broker::{Broker, Outgoing};
use reconciler::control::reconciler::Settings;
use reconciler::control::{Key, Reconciler};
use reconciler::host::fake::World;
use reconciler::host::harness_link::Link;
use reconciler::host::layout::Layout;
use reconciler::host::{Announcement, Clock};
use reconciler::ledger::Ledger;
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use shared::agent_api::{
    AckRequest, MAX_WAIT_SECS, MessageKind, PollRequest, PollResponse, RecvRequest, RecvResponse, Report,
    SendRequest,
};
use shared::status::TurnState;
use shared::{AgentName, Digest, HiveId, TurnId};
use tokio::sync::watch;
use uuid::Uuid;

/// Answers that come at once come within this.
pub(crate) const PROMPT: Duration = Duration::from_secs(4);
/// What is not answered within this waits.
pub(crate) const WAITS: Duration = Duration::from_millis(400);

pub(crate) fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

pub(crate) fn turn(number: u128) -> TurnId {
    TurnId(Uuid::from_u128(number))
}

pub(crate) fn config() -> Digest {
    format!("config1-{}", "0".repeat(64)).parse().unwrap()
}

/// The announcement of this config.
pub(crate) fn announcement(paused: bool) -> Announcement {
    Announcement {
        config: Some(config()),
        paused,
        model: None,
    }
}

/// A report of a harness that is free and has loaded what is announced.
pub(crate) fn idle(run: &str, seq: u64) -> Report {
    Report {
        version: "1".into(),
        run_id: run.into(),
        seq,
        lease: None,
        config: Some(config()),
        config_error: None,
        turn_error: None,
        events_error: None,
        instructed: 0,
        model: None,
        turn: TurnState::Idle,
        mcp: [].into(),
        login: None,
    }
}

/// A report of a harness in a turn.
pub(crate) fn leasing(run: &str, seq: u64, number: u128) -> Report {
    Report {
        turn: TurnState::Thinking,
        lease: Some(turn(number)),
        ..idle(run, seq)
    }
}

/// How long ago the agents of a hive were deployed, in seconds.
pub(crate) const AGO: i64 = 60;

/// A ledger and a world, which outlive the daemon.
pub(crate) struct Hive {
    pub(crate) world: World,
    pub(crate) ledger: Ledger,
}

impl Hive {
    /// A hive in which these agents are deployed.
    pub(crate) async fn new(agents: Value) -> Self {
        let world = World::new();
        let spec = json!({ "version": 1, "hive": { "name": "test" }, "agents": agents });
        world.lock().spec = Ok(spec.to_string().into_bytes());
        let now = world.lock().now;
        let ledger = Ledger::open_in_memory(now, HiveId(Uuid::from_u128(7)))
            .await
            .unwrap();
        let hive = Self { world, ledger };
        let daemon = hive.daemon();
        daemon.reconciler.reconcile(&Key::Hive).await.unwrap();
        for agent in agents.as_object().unwrap().keys() {
            let key = Key::Agent(name(agent));
            daemon.reconciler.reconcile(&key).await.unwrap();
            let record = hive.ledger.record(&name(agent)).await.unwrap().unwrap();
            assert!(record.deployed.is_some(), "{agent} is not deployed");
        }
        // It was some time ago.
        hive.world.advance(AGO);
        hive
    }

    /// A daemon that has just started: it remembers nothing but what is in the ledger.
    pub(crate) fn daemon(&self) -> Daemon {
        let dir = tempfile::Builder::new()
            .prefix("door")
            .tempdir_in("/tmp")
            .unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let layout = Layout::new(root.join("s"), root.join("r"));
        let clock: Arc<dyn Clock> = Arc::new(self.world.clone());
        let link = Arc::new(Link::new(clock));
        let settings = Settings {
            harness: "/fake/hive-harness".into(),
            max_transitions: 4,
        };
        let mut host = self.world.host();
        host.harness = Arc::clone(&link) as _;
        let (reconciler, _nudged) = Reconciler::new(host, self.ledger.clone(), settings);
        let (running, shutdown) = watch::channel(false);
        let broker = Broker::new(self.ledger.clone());
        let doors = AgentDoors::new(
            Context {
                reconciler: Arc::clone(&reconciler),
                broker: broker.clone(),
                link: Arc::clone(&link),
                layout: layout.clone(),
                shutdown,
            },
            shared::spec::RuntimeKind::Process,
        );
        Daemon {
            reconciler,
            link,
            broker,
            doors,
            layout,
            now: self.world.lock().now,
            running,
            _dir: dir,
        }
    }
}

pub(crate) struct Daemon {
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) link: Arc<Link>,
    pub(crate) broker: Broker,
    pub(crate) doors: AgentDoors,
    pub(crate) layout: Layout,
    pub(crate) now: jiff::Timestamp,
    running: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    /// It is told to end.
    pub(crate) fn end(&self) {
        self.running.send_replace(true);
    }

    pub(crate) fn door(&mut self, agent: &str) -> Door {
        let agent = name(agent);
        std::fs::create_dir_all(self.layout.sock(&agent)).unwrap();
        self.doors.open(&agent).unwrap();
        let socket = self.layout.agent_socket(&agent);
        let http = reqwest::Client::builder()
            .unix_socket(socket.as_std_path())
            .build()
            .unwrap();
        Door { http }
    }

    /// Somebody writes to `alice`.
    pub(crate) async fn message(&self, from: &str, kind: MessageKind) -> u64 {
        let message = Outgoing {
            from: from.parse().unwrap(),
            to: "alice".parse().unwrap(),
            kind,
            topic: None,
            body: "hello".into(),
            reply_to: None,
            dedupe: None,
        };
        self.broker.send(message, self.now).await.unwrap().id
    }
}

/// What a harness does at its door.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) http: reqwest::Client,
}

impl Door {
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> reqwest::Response {
        let request = self.http.post(format!("http://hive{path}")).json(body);
        request.send().await.unwrap()
    }

    pub(crate) async fn poll(&self, report: Report, wait_secs: u32) -> PollResponse {
        let answer = self.post("/v1/poll", &PollRequest { report, wait_secs }).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Whether a poll that may wait is answered at once.
    pub(crate) async fn is_answered(&self, report: Report) -> bool {
        let poll = self.poll(report, MAX_WAIT_SECS);
        tokio::time::timeout(WAITS, poll).await.is_ok()
    }

    pub(crate) async fn recv(&self, turn: TurnId) -> Vec<(u64, bool)> {
        let answer = self.try_recv(turn).await;
        let answer: RecvResponse = answer.json().await.unwrap();
        let shown = |m: shared::agent_api::Message| (m.id, m.redelivered);
        answer.messages.into_iter().map(shown).collect()
    }

    pub(crate) async fn try_recv(&self, turn: TurnId) -> reqwest::Response {
        let request = RecvRequest {
            turn,
            max: 32,
            wait_secs: 0,
            received: None,
        };
        self.post("/v1/recv", &request).await
    }

    pub(crate) async fn ack(&self, turn: TurnId, done: bool) {
        let ack = AckRequest {
            turn,
            done,
            received: None,
        };
        let answer = self.post("/v1/ack", &ack).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }

    pub(crate) async fn send(&self, to: &str, kind: MessageKind, reply_to: Option<u64>) -> StatusCode {
        let request = SendRequest {
            to: to.parse().unwrap(),
            kind,
            body: "hello".into(),
            reply_to,
            dedupe: None,
        };
        self.post("/v1/send", &request).await.status()
    }
}
