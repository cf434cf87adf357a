//! Budgets: what counts, who is asked, and what an answer allows; whatever write is lost.

use shared::budget::{TurnLimits, TurnUsage};
use shared::question::{QuestionInfo, QuestionState};
use shared::spec::BudgetSpec;

use super::crashes::{World, lost_everywhere};
use super::questions::{later, mail_of};
use super::*;
use crate::ledger::spending::UNTOLD;
use crate::plan::budget::Budgets;

fn by_day(tokens: u64) -> BudgetSpec {
    BudgetSpec {
        tokens_per_day: Some(tokens),
        ..BudgetSpec::default()
    }
}

fn agents(tokens: u64) -> Budgets {
    Budgets {
        agent: by_day(tokens),
        ..Budgets::default()
    }
}

fn hives(tokens: u64) -> Budgets {
    Budgets {
        hive: by_day(tokens),
        ..Budgets::default()
    }
}

fn used(number: u128, tokens: u64) -> TurnUsage {
    TurnUsage {
        turn: turn(number),
        tokens,
        cost_usd: None,
    }
}

async fn uses(
    broker: &Broker,
    agent: &str,
    usage: TurnUsage,
    budgets: &Budgets,
    at: Timestamp,
) -> TurnLimits {
    let limits = broker.turn_uses(&name(agent), usage, budgets.clone(), at).await;
    limits.expect("it is noted")
}

async fn is_over(broker: &Broker, agent: &str, budgets: &Budgets, at: Timestamp) -> bool {
    let over = broker.is_over_budget(&name(agent), budgets.clone(), at).await;
    over.expect("it is known")
}

async fn questions(broker: &Broker) -> Vec<QuestionInfo> {
    broker.questions(None, true).await.expect("a read")
}

async fn answer(broker: &Broker, id: u64, text: &str) {
    let answered = broker
        .answer_as(id, Address::Operator, "unix:ann".into(), text.into(), now())
        .await;
    answered.expect("it is answered");
}

/// An answer that came already comes again.
async fn answer_again(broker: &Broker, id: u64) {
    let answered = broker
        .answer_as(id, Address::Operator, "unix:ann".into(), "more".into(), now())
        .await;
    answered.expect_err("it has ended");
}

#[tokio::test]
async fn a_turn_counts_from_its_beginning_and_what_was_told_once_never_goes_down() {
    let broker = broker().await;
    let budgets = agents(10 * UNTOLD);
    let begun = uses(&broker, "alice", used(1, 0), &budgets, now()).await;
    assert_eq!(begun.tokens, Some(10 * UNTOLD), "its own beginning is no other's");
    let other = uses(&broker, "alice", used(2, 0), &budgets, now()).await;
    assert_eq!(
        other.tokens,
        Some(9 * UNTOLD),
        "one that tells nothing counts all the same"
    );
    uses(&broker, "alice", used(1, 4 * UNTOLD), &budgets, now()).await;
    uses(&broker, "alice", used(1, 1), &budgets, now()).await;
    let other = uses(&broker, "alice", used(2, 0), &budgets, now()).await;
    assert_eq!(other.tokens, Some(6 * UNTOLD));
    assert!(broker.has_begun(&name("alice"), turn(1)).await.expect("a read"));
    assert!(
        !broker.has_begun(&name("bob"), turn(1)).await.expect("a read"),
        "another agent's"
    );
}

#[tokio::test]
async fn nothing_begins_over_budget_what_has_begun_is_told_what_is_left_and_another_day_is_another() {
    let broker = broker().await;
    let budgets = agents(5000);
    uses(&broker, "alice", used(1, 0), &budgets, now()).await;
    let last = uses(&broker, "alice", used(1, 5000), &budgets, now()).await;
    assert_eq!(
        (last.over_budget, last.tokens),
        (false, Some(5000)),
        "it has used what it may"
    );
    assert!(is_over(&broker, "alice", &budgets, now()).await);
    assert!(
        uses(&broker, "alice", used(2, 0), &budgets, now())
            .await
            .over_budget
    );
    assert!(!broker.has_begun(&name("alice"), turn(2)).await.expect("a read"));
    let events = broker.ledger.events(0, 100).await.expect("a read");
    let told = events.iter().filter(|event| event.kind == "budgetReached");
    assert_eq!(told.count(), 1, "told once, however often a turn is tried");
    assert!(!is_over(&broker, "bob", &budgets, now()).await);
    let tomorrow = later(12 * 3600);
    assert!(!is_over(&broker, "alice", &budgets, tomorrow).await);
    assert!(
        !uses(&broker, "alice", used(2, 0), &budgets, tomorrow)
            .await
            .over_budget
    );
}

#[tokio::test]
async fn the_operator_is_asked_once_a_day_and_the_question_ends_with_the_day() {
    let broker = broker().await;
    let budgets = agents(5000);
    uses(&broker, "alice", used(1, 5000), &budgets, now()).await;
    for _ in 0..3 {
        assert!(is_over(&broker, "alice", &budgets, now()).await);
    }
    let asked = questions(&broker).await;
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].body.contains("alice has used 5000 tokens today"),
        "{}",
        asked[0].body
    );
    assert_eq!(
        (&asked[0].from, &asked[0].to),
        (&Address::System, &Address::Operator)
    );
    assert_eq!(asked[0].expires_at, Some(later(12 * 3600)), "midnight");
    broker.settle(later(12 * 3600)).await.expect("it ends");
    assert_eq!(questions(&broker).await[0].state, QuestionState::Expired);
    assert_eq!(
        mail_of(&broker, "system").await,
        [],
        "nobody reads the daemon's mail"
    );
    let tomorrow = later(13 * 3600);
    uses(&broker, "alice", used(2, 5000), &budgets, tomorrow).await;
    assert!(is_over(&broker, "alice", &budgets, tomorrow).await);
    assert_eq!(questions(&broker).await.len(), 2);
}

#[tokio::test]
async fn more_allows_as_much_again_lift_everything_and_any_other_answer_nothing() {
    for (text, left) in [("more", Some(5000)), ("lift", None), ("no", Some(0))] {
        let broker = broker().await;
        let budgets = agents(5000);
        uses(&broker, "alice", used(1, 5000), &budgets, now()).await;
        assert!(is_over(&broker, "alice", &budgets, now()).await);
        let mut woken = broker.subscribe(&name("alice"));
        answer(&broker, questions(&broker).await[0].id, text).await;
        let allowed = left != Some(0);
        assert_eq!(woken.has_changed().expect("it lives"), allowed, "{text}");
        woken.mark_unchanged();
        assert_eq!(
            is_over(&broker, "alice", &budgets, now()).await,
            !allowed,
            "{text}"
        );
        let said = broker
            .allowance(Some(&name("alice")), now())
            .await
            .expect("a read");
        assert_eq!(
            said.as_ref().is_some_and(|said| said.contains("unix:ann")),
            allowed,
            "{said:?}"
        );
        if allowed {
            let limits = uses(&broker, "alice", used(2, 0), &budgets, now()).await;
            assert_eq!(limits.tokens, left, "{text}");
            uses(&broker, "alice", used(2, 5000), &budgets, now()).await;
            assert_eq!(is_over(&broker, "alice", &budgets, now()).await, left.is_some());
        }
        let asked = if text == "more" { 2 } else { 1 };
        assert!(is_over(&broker, "alice", &budgets, now()).await || text == "lift");
        assert_eq!(
            questions(&broker).await.len(),
            asked,
            "once for what may be used: {text}"
        );
        assert_eq!(
            broker
                .allowance(Some(&name("alice")), later(86_400))
                .await
                .expect("a read"),
            None
        );
    }
}

#[tokio::test]
async fn the_operator_may_allow_as_much_again_as_often_as_it_is_used_up() {
    let broker = broker().await;
    let budgets = agents(5000);
    for times in 1..=3 {
        let number = u128::from(times);
        assert!(!is_over(&broker, "alice", &budgets, now()).await, "{times}");
        uses(&broker, "alice", used(number, 5000), &budgets, now()).await;
        for _ in 0..3 {
            assert!(is_over(&broker, "alice", &budgets, now()).await, "{times}");
        }
        let asked = questions(&broker).await;
        assert_eq!(asked.len() as u64, times, "once for each time");
        let open = asked.iter().find(|asked| asked.state == QuestionState::Open);
        let open = open.expect("an open question");
        let most = 5000 * times;
        assert!(open.body.contains(&format!("of {most}")), "{}", open.body);
        answer(&broker, open.id, "more").await;
    }
    let limits = uses(&broker, "alice", used(9, 0), &budgets, now()).await;
    assert_eq!(limits.tokens, Some(5000));
    let first = questions(&broker).await.into_iter().map(|asked| asked.id).min();
    answer_again(&broker, first.expect("a question")).await;
    assert_eq!(
        uses(&broker, "alice", used(9, 0), &budgets, now()).await,
        limits,
        "an old answer allows nothing more"
    );
}

#[tokio::test]
async fn the_hives_budget_stops_every_agent_with_one_question() {
    let broker = broker().await;
    let budgets = hives(6000);
    uses(&broker, "alice", used(1, 5000), &budgets, now()).await;
    assert!(!is_over(&broker, "bob", &budgets, now()).await);
    let limits = uses(&broker, "bob", used(1, 0), &budgets, now()).await;
    assert_eq!(limits.tokens, Some(1000), "what alice left");
    for agent in ["alice", "bob"] {
        assert!(is_over(&broker, agent, &budgets, now()).await, "{agent}");
    }
    let asked = questions(&broker).await;
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].body.starts_with("the hive has used 6000 tokens"),
        "{}",
        asked[0].body
    );
    let woken = [broker.subscribe(&name("alice")), broker.subscribe(&name("bob"))];
    answer(&broker, asked[0].id, "more").await;
    for (agent, woken) in ["alice", "bob"].into_iter().zip(woken) {
        assert!(woken.has_changed().expect("it lives"), "{agent}");
        assert!(!is_over(&broker, agent, &budgets, now()).await, "{agent}");
    }
    assert!(broker.allowance(None, now()).await.expect("a read").is_some());
}

/// What the story comes to.
#[derive(Debug, PartialEq)]
struct End {
    questions: Vec<(u64, QuestionState)>,
    before: bool,
    after: bool,
    limits: TurnLimits,
    events: Vec<String>,
}

async fn story(world: &mut World) -> End {
    let (alice, budgets) = (name("alice"), agents(5000));
    for tokens in [0, 3000, 5000] {
        world
            .until_done(async |broker: &Broker| {
                broker
                    .turn_uses(&alice, used(1, tokens), budgets.clone(), now())
                    .await
            })
            .await;
    }
    let is_over = async |broker: &Broker| broker.is_over_budget(&alice, budgets.clone(), now()).await;
    let before = world.until_done(is_over).await;
    let id = questions(&world.broker).await[0].id;
    let operator = Address::Operator;
    world
        .until_done(async |broker: &Broker| {
            match broker.answer(id, operator.clone(), "more".into(), now()).await {
                Err(SendError::Question(Refusal::Ended { by: Some(by), .. })) if by == operator => Ok(()),
                outcome => outcome.map(drop),
            }
        })
        .await;
    let after = world.until_done(is_over).await;
    let limits = world
        .until_done(async |broker: &Broker| {
            broker.turn_uses(&alice, used(2, 0), budgets.clone(), now()).await
        })
        .await;
    let events = world.broker.ledger.events(0, 100).await.expect("a read");
    End {
        questions: questions(&world.broker)
            .await
            .iter()
            .map(|q| (q.id, q.state))
            .collect(),
        before,
        after,
        limits,
        events: events.into_iter().map(|event| event.kind).collect(),
    }
}

#[tokio::test]
async fn whatever_write_is_lost_the_operator_is_asked_once_and_his_answer_holds() {
    let (calm, points) = lost_everywhere(broker, story).await;
    assert_eq!(
        (calm.before, calm.after, calm.limits.tokens),
        (true, false, Some(5000))
    );
    assert_eq!(calm.questions.len(), 1);
    assert!(points >= 24, "{points} points were tried");
}
