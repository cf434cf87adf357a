//! Any requests at an agent's door, before a fake world and a ledger in memory: each is answered, none with a fault of
//! the daemon.
//!
//! Requests are separated by the byte 0x1e. The first byte of one says which: see `ask`.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use libfuzzer_sys::fuzz_target;
use reconciler::api::Context;
use reconciler::api::agent::{AgentContext, router};
use reconciler::broker::Broker;
use reconciler::control::reconciler::Settings;
use reconciler::control::{Key, Reconciler};
use reconciler::host::fake::World;
use reconciler::host::harness_link::Link;
use reconciler::host::layout::Layout;
use reconciler::ledger::Ledger;
use shared::agent_api::{PollResponse, ProposalInfo, RecvResponse, SendResponse};
use shared::wire_error::WireError;
use shared::{AgentName, HiveId};
use tokio::sync::watch;
use tower::ServiceExt as _;

const AGENTS: &str = r#"{ "version": 1, "hive": { "name": "h" },
    "agents": { "alice": {}, "bob": { "recipients": ["alice"] } } }"#;
/// One input is one short story.
const MAX_REQUESTS: usize = 12;
/// After so many stories the hive is made anew: it keeps what it is told.
const STORIES: u32 = 64;

struct Hive {
    runtime: tokio::runtime::Runtime,
    doors: [axum::Router; 2],
    stories: u32,
}

impl Hive {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let doors = runtime.block_on(async {
            let world = World::new();
            world.lock().spec = Ok(AGENTS.into());
            let now = world.lock().now;
            let ledger = Ledger::open_in_memory(now, HiveId(uuid::Uuid::from_u128(7)))
                .await
                .expect("a ledger");
            let settings = Settings {
                harness: "/fake/hive-harness".into(),
                max_transitions: 4,
            };
            let (reconciler, _nudged) = Reconciler::new(world.host(), ledger.clone(), settings);
            let name = |text: &str| text.parse::<AgentName>().expect("a name");
            for key in [Key::Hive, Key::Agent(name("alice")), Key::Agent(name("bob"))] {
                reconciler.reconcile(&key).await.expect("a pass");
            }
            // Nothing waits: the daemon is about to end.
            let (_, shutdown) = watch::channel(true);
            let context = Context {
                link: Arc::new(Link::new(Arc::clone(&world.host().clock))),
                broker: Broker::new(ledger),
                layout: Layout::new("/nonexistent/state".into(), "/nonexistent/run".into()),
                reconciler,
                shutdown,
            };
            ["alice", "bob"].map(|agent| {
                let door = AgentContext::new(context.clone(), name(agent));
                router().layer(Extension(door))
            })
        });
        Self {
            runtime,
            doors,
            stories: 0,
        }
    }
}

thread_local! {
    static HIVE: RefCell<Option<Hive>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    HIVE.with_borrow_mut(|slot| {
        let hive = slot.get_or_insert_with(Hive::new);
        for request in bytes.split(|byte| *byte == 0x1e).take(MAX_REQUESTS) {
            ask(hive, request);
        }
        hive.stories += 1;
        if hive.stories == STORIES {
            *slot = None;
        }
    });
});

/// `p r a s l` are poll, recv, ack, send, list, by alice, in capitals by bob; `x` is any method and path.
fn ask(hive: &Hive, request: &[u8]) {
    let Some((kind, rest)) = request.split_first() else {
        return;
    };
    let door = &hive.doors[usize::from(kind.is_ascii_uppercase())];
    let (method, path, body) = match kind.to_ascii_lowercase() {
        b'p' => (Method::POST, "/v1/poll".to_owned(), rest),
        b'r' => (Method::POST, "/v1/recv".to_owned(), rest),
        b'a' => (Method::POST, "/v1/ack".to_owned(), rest),
        b's' => (Method::POST, "/v1/send".to_owned(), rest),
        b'l' => (Method::GET, "/v1/proposals".to_owned(), rest),
        b'x' => {
            let mut parts = rest.splitn(3, |byte| *byte == b' ');
            let mut next = || parts.next().unwrap_or_default();
            let Ok(method) = Method::from_bytes(next()) else {
                return;
            };
            (method, String::from_utf8_lossy(next()).into_owned(), next())
        }
        _ => return,
    };
    // Bundles need a real repo: `bundle_header` has them.
    if path.contains("bundle") || (path.contains("proposals") && method != Method::GET) {
        return;
    }
    let request = Request::builder()
        .method(method)
        .uri(&path)
        .header("content-type", "application/json");
    let Ok(request) = request.body(Body::from(body.to_vec())) else {
        return;
    };
    let (status, answer) = hive.runtime.block_on(async {
        let response = door
            .clone()
            .oneshot(request)
            .await
            .expect("a router always answers");
        let status = response.status();
        (
            status,
            to_bytes(response.into_body(), 64 * 1024 * 1024)
                .await
                .expect("a whole answer"),
        )
    });
    assert!(
        !status.is_server_error(),
        "{status} to {path}: {}",
        String::from_utf8_lossy(&answer)
    );
    if !status.is_success() {
        // To HEAD no answer has a body.
        if !answer.is_empty() {
            serde_json::from_slice::<WireError>(&answer).expect("a refusal in the one shape");
        }
        return;
    }
    let read = match path.as_str() {
        "/v1/poll" => serde_json::from_slice::<PollResponse>(&answer).map(drop),
        "/v1/recv" => serde_json::from_slice::<RecvResponse>(&answer).map(drop),
        "/v1/send" => serde_json::from_slice::<SendResponse>(&answer).map(drop),
        "/v1/proposals" if !answer.is_empty() => {
            serde_json::from_slice::<Vec<ProposalInfo>>(&answer).map(drop)
        }
        _ => Ok(()),
    };
    read.expect("an answer of its type");
}
