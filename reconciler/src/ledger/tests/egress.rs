use shared::egress::{EgressReport, EgressStatus, Refusal, RefusalReason, Traffic};

use super::*;

fn refusal(host: &str) -> Refusal {
    Refusal {
        agent: name("alice"),
        host: host.to_owned(),
        port: 443,
        reason: RefusalReason::NotListed,
        count: 2,
        first_at: now(),
        last_at: now(),
    }
}

fn report(seq: u64, refusals: Vec<Refusal>) -> EgressReport {
    let bytes = Traffic {
        sent: 10,
        received: 100,
    };
    EgressReport {
        run: "a-run".to_owned(),
        seq,
        refusals,
        dropped: 0,
        traffic: [(name("alice"), bytes), (name("nobody"), bytes)].into(),
    }
}

impl Desk {
    async fn told(&self, report: EgressReport, at: Timestamp) {
        self.ledger.note_egress(report, at).await.expect("a write");
    }

    async fn status(&self) -> EgressStatus {
        self.ledger.egress_of(&name("alice")).await.expect("a read")
    }

    /// Events about refusals, and messages to alice.
    fn heard(&self) -> (i64, i64) {
        let count = |sql: &str| self.raw().query_row(sql, [], |row| row.get(0)).expect("a count");
        (
            count("SELECT count(*) FROM events WHERE kind = 'egressRefused'"),
            count("SELECT count(*) FROM messages WHERE to_addr = 'alice' AND topic = 'egressRefused'"),
        )
    }
}

#[tokio::test]
async fn a_refusal_is_told_once_a_day_and_counted_each_time() {
    let desk = Desk::with_alice().await;
    desk.told(report(1, vec![refusal("a.example")]), now()).await;
    desk.told(report(2, vec![refusal("a.example")]), now()).await;
    assert_eq!(desk.heard(), (1, 1));
    desk.told(report(3, vec![refusal("b.example")]), now()).await;
    assert_eq!(desk.heard(), (2, 2));
    desk.told(report(4, vec![refusal("a.example")]), days_later(2))
        .await;
    assert_eq!(desk.heard(), (3, 3));
    let status = desk.status().await;
    assert_eq!((status.sent, status.received, status.refused), (40, 400, 8));
    let kept: Vec<_> = status
        .refusals
        .iter()
        .map(|r| (r.host.as_str(), r.count))
        .collect();
    assert_eq!(kept, [("a.example", 6), ("b.example", 2)]);
}

#[tokio::test]
async fn a_report_that_is_sent_again_changes_nothing() {
    let desk = Desk::with_alice().await;
    desk.told(report(1, vec![refusal("a.example")]), now()).await;
    let (before, writes) = (desk.status().await, desk.ledger.writes());
    desk.told(
        report(1, vec![refusal("a.example"), refusal("b.example")]),
        days_later(3),
    )
    .await;
    assert_eq!((desk.status().await, desk.ledger.writes()), (before, writes));
    // Another run begins to count anew.
    let another = EgressReport {
        run: "another".to_owned(),
        ..report(1, Vec::new())
    };
    desk.told(another, now()).await;
    assert_eq!(desk.status().await.sent, 20);
}

#[tokio::test]
async fn an_agent_that_tries_every_host_is_told_of_for_a_while_and_kept_in_bounds() {
    let desk = Desk::with_alice().await;
    let hosts = (0..400).map(|number| refusal(&format!("h{number}.example")));
    desk.told(report(1, hosts.collect()), now()).await;
    assert_eq!(desk.heard(), (20, 20));
    let rows = "SELECT count(*) FROM egress_refusals";
    let rows: i64 = desk.raw().query_row(rows, [], |row| row.get(0)).expect("a count");
    assert_eq!(rows, 256);
    assert_eq!(desk.status().await.refused, 800);
}

#[tokio::test]
async fn what_is_no_host_is_not_kept() {
    let desk = Desk::with_alice().await;
    let hostile = ["\x1b[2J", "", "a b", "a\nb"].map(refusal).to_vec();
    desk.told(report(1, hostile), now()).await;
    assert_eq!(desk.heard(), (0, 0));
    assert_eq!(desk.status().await.refused, 0);
}

#[tokio::test]
async fn a_crash_keeps_a_report_whole_or_not_at_all() {
    let desk = Desk::with_alice().await;
    desk.told(report(1, vec![refusal("a.example")]), now()).await;
    let (_folder, copy) = crash_copy(&desk.path);
    let after = Ledger::open(&copy, now(), hive_id()).await.expect("a ledger");
    assert_eq!(
        after.egress_of(&name("alice")).await.expect("a read"),
        desk.status().await
    );
    after
        .note_egress(report(1, vec![refusal("a.example")]), now())
        .await
        .expect("a write");
    assert_eq!(
        after.egress_of(&name("alice")).await.expect("a read"),
        desk.status().await
    );
}

#[tokio::test]
async fn what_is_old_is_pruned() {
    let desk = Desk::with_alice().await;
    desk.told(report(1, vec![refusal("a.example")]), now()).await;
    assert_eq!(desk.ledger.prune(days_later(1)).await.expect("pruned").egress, 0);
    assert_eq!(desk.ledger.prune(days_later(31)).await.expect("pruned").egress, 2);
    assert!(desk.status().await.refusals.is_empty());
}
