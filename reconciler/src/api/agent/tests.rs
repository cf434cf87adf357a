use shared::agent_api::MessageKind;
use shared::{Address, HiveId};
use tokio::sync::watch;

use super::*;
use crate::broker::{Broker, Outgoing, SendError};
use crate::control::Reconciler;
use crate::control::reconciler::Settings;
use crate::host::fake::World;
use crate::host::layout::Layout;
use crate::ledger::Ledger;

fn context(world: &World, ledger: &Ledger) -> Context {
    let settings = Settings {
        harness: "/fake/hive-harness".into(),
        max_transitions: 4,
    };
    let (reconciler, _nudged) = Reconciler::new(world.host(), ledger.clone(), settings);
    let (_, shutdown) = watch::channel(false);
    Context {
        link: Arc::new(Link::new(Arc::clone(&world.host().clock))),
        broker: Broker::new(ledger.clone()),
        layout: Layout::new("/fake/state".into(), "/fake/run".into()),
        reconciler,
        shutdown,
    }
}

#[tokio::test]
async fn a_restarted_daemon_keeps_the_allow_list_before_its_first_pass() {
    let world = World::new();
    let spec = r#"{ "version": 1, "hive": { "name": "h" }, "agents": {
        "alice": { "recipients": ["operator"] }, "bob": {}, "queen": { "role": "manager" } } }"#;
    world.lock().spec = Ok(spec.into());
    let now = world.lock().now;
    let ledger = Ledger::open_in_memory(now, HiveId(uuid::Uuid::from_u128(7)))
        .await
        .unwrap();
    let name = |text: &str| -> AgentName { text.parse().unwrap() };
    let may = async |context: &Context, from: &str, to: &str| {
        let message = Outgoing {
            from: Address::Agent(name(from)),
            to: to.parse().unwrap(),
            kind: MessageKind::Message,
            topic: None,
            body: "hello".into(),
            reply_to: None,
            dedupe: None,
        };
        match context.broker.send(message, now).await {
            Ok(_) => true,
            Err(SendError::Forbidden { .. }) => false,
            Err(error) => panic!("{from} to {to}: {error}"),
        }
    };

    let before = context(&world, &ledger);
    before.reconciler.reconcile(&Key::Hive).await.unwrap();
    assert!(
        !may(&before, "alice", "bob").await,
        "nothing is deployed, so nobody may be written to"
    );
    for agent in ["alice", "bob", "queen"] {
        before
            .reconciler
            .reconcile(&Key::Agent(name(agent)))
            .await
            .unwrap();
    }
    let after = context(&world, &ledger);
    for (context, when) in [(&before, "before the restart"), (&after, "after it")] {
        assert!(!may(context, "alice", "bob").await, "{when}");
        assert!(may(context, "alice", "operator").await, "{when}");
        assert!(may(context, "alice", "queen").await, "{when}");
        assert!(may(context, "bob", "alice").await, "{when}");
    }
}

#[tokio::test]
async fn a_run_that_is_first_heard_of_gives_back_what_the_run_before_it_had() {
    let world = World::new();
    let spec = r#"{ "version": 1, "hive": { "name": "h" }, "agents": { "alice": {} } }"#;
    world.lock().spec = Ok(spec.into());
    let now = world.lock().now;
    let ledger = Ledger::open_in_memory(now, HiveId(uuid::Uuid::from_u128(7)))
        .await
        .unwrap();
    let context = context(&world, &ledger);
    let alice: AgentName = "alice".parse().unwrap();
    for key in [Key::Hive, Key::Agent(alice.clone())] {
        context.reconciler.reconcile(&key).await.unwrap();
    }
    let message = Outgoing {
        from: Address::Operator,
        to: Address::Agent(alice.clone()),
        kind: MessageKind::Message,
        topic: None,
        body: "hello".into(),
        reply_to: None,
        dedupe: None,
    };
    context.broker.send(message, now).await.unwrap();
    let turn = TurnId(uuid::Uuid::from_u128(1));
    let door = AgentContext::new(context, alice);
    let says = async |run: &str, lease: Option<TurnId>| {
        let report = serde_json::json!({ "version": "1", "runId": run, "turn": "idle", "lease": lease });
        let report = serde_json::from_value(report).unwrap();
        let request = PollRequest { report, wait_secs: 0 };
        poll(door.clone(), Json(request)).await.unwrap().inbox
    };
    says("one", Some(turn)).await;
    let request = RecvRequest {
        turn,
        max: 1,
        wait_secs: 0,
        received: Some(0),
    };
    let taken = recv(door.clone(), Json(request.clone())).await.unwrap();
    assert_eq!(taken.messages.len(), 1);
    assert_eq!(says("one", Some(turn)).await, 0);
    assert_eq!(says("two", None).await, 1, "nobody else would deliver it again");
    let late = recv(door.clone(), Json(request)).await.unwrap_err();
    assert_eq!(late.0.code, ErrorCode::Conflict);
    assert_eq!(says("two", None).await, 1);
}
