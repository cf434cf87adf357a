use std::collections::BTreeSet;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use shared::egress::{EgressReport, RefusalReason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::super::report::PATH;
use super::super::resolve::testing::leading_to;
use super::super::testing::put;
use super::*;
use crate::host::clock::SystemClock;
use crate::host::folders::write_atomic;

struct World {
    folder: Utf8PathBuf,
    _temporary: tempfile::TempDir,
}

struct Running {
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl World {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = Utf8PathBuf::from_path_buf(temporary.path().to_owned()).expect("UTF-8");
        Self {
            folder,
            _temporary: temporary,
        }
    }

    fn allow(&self, agents: &serde_json::Value) {
        let text = json!({ "provider": "http://127.0.0.1:9", "agents": agents }).to_string();
        write_atomic(&self.folder.join("egress.json"), text.as_bytes(), 0o644).expect("written");
    }

    fn socket(&self, agent: &str, name: &str) -> Utf8PathBuf {
        self.folder.join("egress").join(agent).join(name)
    }

    async fn start(&self) -> Running {
        let (end, ended) = oneshot::channel::<()>();
        let (tell, ready) = oneshot::channel();
        let settings = Settings {
            policy: self.folder.join("egress.json"),
            folder: self.folder.join("egress"),
            daemon: self.folder.join("egress.sock"),
            credentials: None,
            run: "a-run".to_owned(),
        };
        let task = tokio::spawn(run(
            settings,
            Arc::new(leading_to(&[])),
            Arc::new(SystemClock),
            move || tell.send(()).expect("somebody waits"),
            async move {
                let _dropped = ended.await;
            },
        ));
        ready.await.expect("it starts");
        Running { end, task }
    }

    /// Asks the agent's proxy for a host that nobody listed.
    async fn refused(&self, agent: &str, host: &str) -> String {
        let mut stream = UnixStream::connect(self.socket(agent, PROXY_SOCKET))
            .await
            .expect("a proxy");
        let words = format!("CONNECT {host}:443 HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(words.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !what(self) {
            assert!(tokio::time::Instant::now() < deadline, "it does not come");
            tokio::task::yield_now().await;
        }
    }

    /// A daemon that takes reports.
    fn daemon(&self) -> mpsc::UnboundedReceiver<EgressReport> {
        let (tell, told) = mpsc::unbounded_channel();
        let take = |State(tell): State<mpsc::UnboundedSender<_>>, Json(report): Json<EgressReport>| async move {
            tell.send(report).expect("the test reads");
        };
        let router = Router::new().route(PATH, post(take)).with_state(tell);
        let listener = UnixListener::bind(self.folder.join("egress.sock")).expect("a socket");
        tokio::spawn(async move { axum::serve(listener, router).await });
        told
    }
}

#[tokio::test]
async fn agents_have_sockets_as_long_as_the_policy_names_them() {
    let world = World::new();
    world.allow(&json!({ "alice": { "network": "model" }, "bob": { "network": "none" } }));
    let running = world.start().await;
    assert!(world.socket("alice", MODEL_SOCKET).exists() && world.socket("alice", PROXY_SOCKET).exists());
    assert!(!world.socket("bob", PROXY_SOCKET).exists());
    assert!(
        world
            .refused("alice", "a.example")
            .await
            .starts_with("HTTP/1.1 403")
    );

    world.allow(&json!({ "bob": { "network": "hosts", "hosts": ["a.example"] } }));
    world
        .until(|world| world.socket("bob", PROXY_SOCKET).exists())
        .await;
    world
        .until(|world| !world.socket("alice", PROXY_SOCKET).exists())
        .await;
    // The name leads nowhere, but it is listed.
    assert!(
        world
            .refused("bob", "a.example")
            .await
            .starts_with("HTTP/1.1 502")
    );

    // A broken file changes nothing.
    put(world.folder.join("egress.json"), "{");
    assert!(
        world
            .refused("bob", "a.example")
            .await
            .starts_with("HTTP/1.1 502")
    );
    assert!(running.end.send(()).is_ok());
    running.task.await.expect("no panic").expect("it ends well");
}

#[tokio::test]
async fn the_next_one_takes_over_where_another_was_killed() {
    let world = World::new();
    world.allow(&json!({ "alice": { "network": "model" } }));
    let first = world.start().await;
    // As if it had been killed: nothing is tidied up.
    first.task.abort();
    let _cancelled = first.task.await;
    assert!(world.socket("alice", PROXY_SOCKET).exists());
    world.allow(&json!({ "bob": { "network": "model" } }));
    let _second = world.start().await;
    assert!(!world.socket("alice", PROXY_SOCKET).exists());
    assert!(
        world
            .refused("bob", "a.example")
            .await
            .starts_with("HTTP/1.1 403")
    );
}

#[tokio::test]
async fn a_daemon_that_was_away_is_told_what_was_refused_meanwhile() {
    let world = World::new();
    world.allow(&json!({ "alice": { "network": "model" } }));
    let _running = world.start().await;
    for host in ["a.example", "b.example", "a.example"] {
        assert!(world.refused("alice", host).await.starts_with("HTTP/1.1 403"));
    }
    let mut told = world.daemon();
    let mut counts = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while counts != BTreeMap::from([("a.example".to_owned(), 2), ("b.example".to_owned(), 1)]) {
        let report = tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
        let report = report.expect("it is told").expect("a report");
        assert_eq!((report.run.as_str(), report.dropped), ("a-run", 0));
        assert!(
            seen.insert(report.seq),
            "a report is not told twice once it was answered"
        );
        for refusal in report.refusals {
            assert_eq!(refusal.reason, RefusalReason::NotListed);
            *counts.entry(refusal.host).or_insert(0) += refusal.count;
        }
    }
}
