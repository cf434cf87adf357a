//! Questions, broadcasts and loose ends at agents' doors: who may, and what is said to those who may not.

use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::agent_api::{MessageKind, WhoAmI};
use shared::loose_end::LooseEnd;
use shared::question::QuestionInfo;
use shared::spec::Role;
use shared::wire_error::{ErrorCode, WireError};

use super::world::{Door, Hive, turn};

fn agents() -> Value {
    json!({ "queen": { "role": "manager" }, "alice": { "recipients": ["bob"] }, "bob": {} })
}

async fn refused(answer: reqwest::Response) -> ErrorCode {
    let error: WireError = answer.json().await.unwrap();
    assert!(!error.message.is_empty());
    error.code
}

async fn get<T: serde::de::DeserializeOwned>(door: &Door, path: &str) -> T {
    let answer = door.http.get(format!("http://hive{path}")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

async fn delete(door: &Door, path: &str) -> reqwest::Response {
    let request = door.http.delete(format!("http://hive{path}"));
    request.send().await.unwrap()
}

async fn ask(door: &Door, to: &str) -> reqwest::Response {
    let question = json!({ "to": to, "body": "red or blue?" });
    door.post("/v1/questions", &question).await
}

#[tokio::test]
async fn a_recipient_that_is_not_there_is_another_refusal_than_one_that_is_not_allowed() {
    let hive = Hive::new(agents()).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    for (to, code) in [
        ("operator", ErrorCode::Forbidden),
        ("nobody", ErrorCode::NotFound),
    ] {
        assert_eq!(refused(ask(&door, to).await).await, code, "{to}");
        let message = json!({ "to": to, "kind": "message", "body": "hello" });
        assert_eq!(refused(door.post("/v1/send", &message).await).await, code, "{to}");
    }
    for to in ["bob", "queen"] {
        assert_eq!(ask(&door, to).await.status(), StatusCode::OK, "{to}");
    }
}

#[tokio::test]
async fn whoever_is_asked_answers_whomever_it_may_write_to_otherwise() {
    let hive = Hive::new(agents()).await;
    let mut daemon = hive.daemon();
    let (alice, bob) = (daemon.door("alice"), daemon.door("bob"));
    let question = daemon.message("operator", MessageKind::Question).await;
    let answer = json!({ "body": "blue" });
    let path = format!("/v1/questions/{question}/answer");
    assert_eq!(
        refused(bob.post(&path, &answer).await).await,
        ErrorCode::Forbidden
    );
    let ended: QuestionInfo = alice.post(&path, &answer).await.json().await.unwrap();
    assert_eq!(ended.answer.as_deref(), Some("blue"));
    assert_eq!(
        refused(alice.post(&path, &answer).await).await,
        ErrorCode::Conflict
    );
    for (path, code) in [
        ("/v1/questions/999/answer", ErrorCode::NotFound),
        ("/v1/questions/x/answer", ErrorCode::BadRequest),
        ("/v1/questions/-1/answer", ErrorCode::BadRequest),
    ] {
        assert_eq!(refused(alice.post(path, &answer).await).await, code, "{path}");
    }
}

#[tokio::test]
async fn an_agent_learns_who_it_is_and_whom_it_may_write_to() {
    let hive = Hive::new(agents()).await;
    let mut daemon = hive.daemon();
    let who: WhoAmI = get(&daemon.door("alice"), "/v1/whoami").await;
    let names = |who: &WhoAmI| who.recipients.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&who), ["bob", "queen"]);
    assert_eq!(
        (who.name.as_str(), who.hive.as_str(), who.role),
        ("alice", "test", Role::Worker)
    );
    assert_eq!(
        who.managers.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["queen"]
    );
    assert!(who.commit.is_some());
    let who: WhoAmI = get(&daemon.door("queen"), "/v1/whoami").await;
    assert_eq!(names(&who), ["operator", "alice", "bob"]);
    assert_eq!(who.role, Role::Manager);
}

#[tokio::test]
async fn only_a_manager_writes_to_everybody() {
    let hive = Hive::new(agents()).await;
    let mut daemon = hive.daemon();
    let all = json!({ "body": "all hands" });
    let (alice, queen) = (daemon.door("alice"), daemon.door("queen"));
    assert_eq!(
        refused(alice.post("/v1/broadcast", &all).await).await,
        ErrorCode::Forbidden
    );
    let sent: Value = queen.post("/v1/broadcast", &all).await.json().await.unwrap();
    assert_eq!(sent["count"], 2, "{sent}");
    for agent in ["alice", "bob"] {
        assert_eq!(daemon.door(agent).recv(turn(1)).await.len(), 1, "{agent}");
    }
    assert_eq!(queen.recv(turn(1)).await, []);
}

#[tokio::test]
async fn a_loose_end_is_its_owners_and_a_gate_is_the_operators_alone() {
    let hive = Hive::new(agents()).await;
    let mut daemon = hive.daemon();
    let (alice, bob, queen) = (daemon.door("alice"), daemon.door("bob"), daemon.door("queen"));
    let asked: QuestionInfo = ask(&alice, "bob").await.json().await.unwrap();
    let path = format!("/v1/loose-ends/question/{}", asked.id);
    for door in [&alice, &bob, &queen] {
        let ends: Vec<LooseEnd> = get(door, "/v1/loose-ends").await;
        assert_eq!(ends[0].id, format!("question/{}", asked.id));
    }
    assert_eq!(refused(delete(&bob, &path).await).await, ErrorCode::Forbidden);
    for door in [&alice, &queen] {
        let gate = delete(door, "/v1/loose-ends/gate/1").await;
        assert_eq!(gate.status(), StatusCode::FORBIDDEN);
        assert!(gate.text().await.unwrap().contains("only the operator decides"));
    }
    for (path, code) in [
        ("/v1/loose-ends/task/1", ErrorCode::BadRequest),
        ("/v1/loose-ends/question/0", ErrorCode::BadRequest),
        ("/v1/loose-ends/reminder/9", ErrorCode::NotFound),
    ] {
        assert_eq!(refused(delete(&alice, path).await).await, code, "{path}");
    }
    assert_eq!(delete(&queen, &path).await.status(), StatusCode::NO_CONTENT);
    let ends: Vec<LooseEnd> = get(&alice, "/v1/loose-ends").await;
    assert_eq!(ends, []);
}
