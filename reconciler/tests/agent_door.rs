//! An agent's door as a harness meets it: real routes on a real socket, before a fake world.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

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
use reconciler::host::{Clock, HarnessLink as _};
use reconciler::ledger::Ledger;
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use shared::agent_api::{
    AckRequest, MAX_WAIT_SECS, MessageKind, PollRequest, PollResponse, RecvRequest, RecvResponse, Report,
    SendRequest,
};
use shared::status::{McpHealth, McpServerState, TurnState};
use shared::{AgentName, Digest, HiveId, TurnId};
use tokio::sync::watch;
use uuid::Uuid;

/// Answers that come at once come within this.
const PROMPT: Duration = Duration::from_secs(4);
/// What is not answered within this waits.
const WAITS: Duration = Duration::from_millis(400);

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn turn(number: u128) -> TurnId {
    TurnId(Uuid::from_u128(number))
}

fn config() -> Digest {
    format!("config1-{}", "0".repeat(64)).parse().unwrap()
}

/// A report of a harness that is free and has loaded what is announced.
fn idle(run: &str, seq: u64) -> Report {
    Report {
        version: "1".into(),
        run_id: run.into(),
        seq,
        lease: None,
        config: Some(config()),
        config_error: None,
        turn: TurnState::Idle,
        mcp: [].into(),
    }
}

/// A ledger and a world, which outlive the daemon.
struct Hive {
    world: World,
    ledger: Ledger,
}

impl Hive {
    /// A hive in which these agents are deployed.
    async fn new(agents: Value) -> Self {
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
        hive
    }

    /// A daemon that has just started: it remembers nothing but what is in the ledger.
    fn daemon(&self) -> Daemon {
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
        let doors = AgentDoors::new(Context {
            reconciler: Arc::clone(&reconciler),
            broker: broker.clone(),
            link: Arc::clone(&link),
            layout: layout.clone(),
            shutdown,
        });
        Daemon {
            reconciler,
            link,
            broker,
            doors,
            layout,
            now: self.world.lock().now,
            _running: running,
            _dir: dir,
        }
    }
}

struct Daemon {
    reconciler: Arc<Reconciler>,
    link: Arc<Link>,
    broker: Broker,
    doors: AgentDoors,
    layout: Layout,
    now: jiff::Timestamp,
    _running: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn door(&mut self, agent: &str) -> Door {
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
    async fn message(&self, from: &str, kind: MessageKind) -> u64 {
        let message = Outgoing {
            from: from.parse().unwrap(),
            to: "alice".parse().unwrap(),
            kind,
            body: "hello".into(),
            reply_to: None,
            dedupe: None,
        };
        self.broker.send(message, self.now).await.unwrap().id
    }
}

/// What a harness does at its door.
#[derive(Clone)]
struct Door {
    http: reqwest::Client,
}

impl Door {
    async fn post(&self, path: &str, body: &impl Serialize) -> reqwest::Response {
        let request = self.http.post(format!("http://hive{path}")).json(body);
        request.send().await.unwrap()
    }

    async fn poll(&self, report: Report, wait_secs: u32) -> PollResponse {
        let answer = self.post("/v1/poll", &PollRequest { report, wait_secs }).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Whether a poll that may wait is answered at once.
    async fn is_answered(&self, report: Report) -> bool {
        let poll = self.poll(report, MAX_WAIT_SECS);
        tokio::time::timeout(WAITS, poll).await.is_ok()
    }

    async fn recv(&self, turn: TurnId) -> Vec<(u64, bool)> {
        let request = RecvRequest {
            turn,
            max: 32,
            wait_secs: 0,
        };
        let answer: RecvResponse = self.post("/v1/recv", &request).await.json().await.unwrap();
        let shown = |m: shared::agent_api::Message| (m.id, m.redelivered);
        answer.messages.into_iter().map(shown).collect()
    }

    async fn ack(&self, turn: TurnId, done: bool) {
        let answer = self.post("/v1/ack", &AckRequest { turn, done }).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }

    async fn send(&self, to: &str, kind: MessageKind, reply_to: Option<u64>) -> StatusCode {
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

#[tokio::test]
async fn a_daemon_that_has_just_started_keeps_to_the_deployed_recipients() {
    let agents = json!({ "queen": { "role": "manager" }, "alice": { "recipients": ["bob"] }, "bob": {} });
    let hive = Hive::new(agents).await;
    let mut daemon = hive.daemon();
    let question = daemon.message("operator", MessageKind::Question).await;
    let door = daemon.door("alice");
    let (message, answer) = (MessageKind::Message, MessageKind::Answer);
    assert_eq!(door.send("operator", message, None).await, StatusCode::FORBIDDEN);
    assert_eq!(door.send("bob", message, None).await, StatusCode::OK);
    assert_eq!(
        door.send("queen", message, None).await,
        StatusCode::OK,
        "a manager can always be written to"
    );
    assert_eq!(
        door.send("operator", answer, Some(question)).await,
        StatusCode::OK,
        "whoever asks gets an answer"
    );
    let free = daemon.door("bob");
    assert_eq!(free.send("operator", message, None).await, StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_cannot_be_probed_is_pointed_out() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let unprobed = McpServerState {
        health: McpHealth::Unprobed,
        tools: Vec::new(),
        error: None,
    };
    let report = Report {
        mcp: [("wiki".parse().unwrap(), unprobed)].into(),
        ..idle("one", 0)
    };
    door.poll(report, 0).await;
    for key in [Key::Hive, Key::Agent(name("alice"))] {
        daemon.reconciler.reconcile(&key).await.unwrap();
    }
    let notices = daemon.reconciler.views().agents[&name("alice")]
        .status
        .notices
        .clone();
    assert!(
        notices.contains(&"MCP server wiki cannot be probed by this harness yet".to_owned()),
        "{notices:?}"
    );
}

#[tokio::test]
async fn leases_of_a_run_that_died_with_the_daemon_are_given_back_once() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    door.poll(idle("one", 0), 0).await;
    let id = daemon.message("operator", MessageKind::Message).await;
    assert_eq!(door.recv(turn(1)).await, [(id, false)]);
    drop(daemon);

    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    assert_eq!(door.poll(idle("two", 0), 0).await.inbox, 1);
    let busy = Report {
        lease: Some(turn(2)),
        ..idle("two", 1)
    };
    assert_eq!(door.poll(busy.clone(), 0).await.inbox, 1);
    assert_eq!(door.recv(turn(2)).await, [(id, true)]);
    let thinking = Report {
        seq: 2,
        turn: TurnState::Thinking,
        ..busy
    };
    assert_eq!(
        door.poll(thinking, 0).await.inbox,
        0,
        "the run is known: it keeps its leases"
    );
    door.ack(turn(2), true).await;
    assert_eq!(door.poll(idle("two", 3), 0).await.inbox, 0);
    assert!(door.recv(turn(3)).await.is_empty());
}

#[tokio::test]
async fn a_turn_that_outlives_the_daemon_keeps_its_leases() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    door.poll(idle("one", 0), 0).await;
    let id = daemon.message("operator", MessageKind::Message).await;
    let busy = Report {
        lease: Some(turn(1)),
        ..idle("one", 1)
    };
    door.poll(busy.clone(), 0).await;
    assert_eq!(door.recv(turn(1)).await, [(id, false)]);
    drop(daemon);

    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    assert_eq!(door.poll(busy, 0).await.inbox, 0);
    assert_eq!(
        door.poll(idle("one", 0), 0).await.inbox,
        0,
        "what was overtaken gives nothing back"
    );
    door.ack(turn(1), true).await;
    assert_eq!(door.poll(idle("one", 2), 0).await.inbox, 0);
}

#[tokio::test]
async fn what_a_lost_answer_leased_is_delivered_by_the_next_turn() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let id = daemon.message("operator", MessageKind::Message).await;
    // The answer is lost: the harness gives back what it may have leased, as often as it must.
    door.recv(turn(1)).await;
    door.ack(turn(1), false).await;
    door.ack(turn(1), false).await;
    assert_eq!(door.recv(turn(2)).await, [(id, true)]);
    // So is the answer to its acknowledgement.
    door.ack(turn(2), true).await;
    door.ack(turn(2), true).await;
    assert!(door.recv(turn(3)).await.is_empty());
}

#[tokio::test]
async fn a_poll_that_nothing_can_be_done_about_waits() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    daemon.link.announce(&name("alice"), &config(), false);
    daemon.message("operator", MessageKind::Message).await;
    let cases = [
        (
            "in a turn",
            Report {
                turn: TurnState::Thinking,
                ..idle("one", 0)
            },
        ),
        (
            "leasing",
            Report {
                lease: Some(turn(1)),
                ..idle("one", 1)
            },
        ),
        (
            "without a config",
            Report {
                config: None,
                config_error: Some("not JSON".into()),
                ..idle("one", 2)
            },
        ),
    ];
    for (what, report) in cases {
        door.poll(report.clone(), 0).await;
        assert!(!door.is_answered(report).await, "{what}");
    }
    assert!(door.is_answered(idle("one", 3)).await, "there is a message");

    daemon.link.announce(&name("alice"), &config(), true);
    assert!(door.is_answered(idle("one", 3)).await, "it is to pause");
    let paused = Report {
        turn: TurnState::Paused,
        ..idle("one", 4)
    };
    door.poll(paused.clone(), 0).await;
    assert!(!door.is_answered(paused).await, "paused");
}

#[tokio::test]
async fn a_waiting_poll_is_answered_by_a_message_and_by_an_announcement() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    daemon.link.announce(&name("alice"), &config(), false);
    door.poll(idle("one", 0), 0).await;
    let wait = || {
        let door = door.clone();
        tokio::spawn(async move { door.poll(idle("one", 0), MAX_WAIT_SECS).await })
    };
    let answer = wait();
    daemon.link.announce(&name("alice"), &config(), true);
    let answer = tokio::time::timeout(PROMPT, answer).await.unwrap().unwrap();
    assert!(answer.paused);

    daemon.link.announce(&name("alice"), &config(), false);
    let answer = wait();
    daemon.message("operator", MessageKind::Message).await;
    let answer = tokio::time::timeout(PROMPT, answer).await.unwrap().unwrap();
    assert_eq!(answer.inbox, 1);
}
