//! The daemon is killed at random moments while agents write to each other, ask, answer, remind themselves, and end
//! turns well and badly. Whatever was lost on its way is asked for again. At the end every message that was accepted was
//! handled, acknowledged once, and handled in the order in which its sender sent it.
//!
//! `HIVE_FAULTS_SEED` draws the same again, as far as threads allow; `HIVE_FAULTS_KILLS` makes a longer run.

use std::thread;

use serde_json::{Value, json};

use self::account::Account;
use self::client::{Client, OPERATOR, Phase};
use super::kills::{given, seed};
use super::numbers::Numbers;
use super::world::{DEADLINE, World, silent, spec, with, within};

#[path = "mail/account.rs"]
mod account;
#[path = "mail/check.rs"]
mod check;
#[path = "mail/client.rs"]
mod client;

/// The first is the manager.
const AGENTS: [&str; 4] = ["queen", "alice", "bob", "carol"];
/// How often the daemon is killed, unless a variable says otherwise.
const KILLS: u64 = 40;
/// After so many requests at most the daemon is killed again.
const MAX_APART: u64 = 120;

fn declared() -> Value {
    let agents = AGENTS.map(|agent| {
        let role = if agent == AGENTS[0] { "manager" } else { "worker" };
        (agent.to_owned(), with(silent(), &json!({ "role": role })))
    });
    spec(&Value::Object(agents.into_iter().collect()))
}

/// What keeps the mail from being at its end.
fn left(world: &World) -> Vec<String> {
    world.messages(
        "SELECT 'message', id, from_addr, to_addr, state, coalesce(turn, '') FROM messages
             WHERE state IN ('queued', 'leased')
         UNION ALL SELECT 'question', id, from_addr, to_addr, state, '' FROM questions WHERE state = 'open'
         UNION ALL SELECT 'reminder', id, owner, '', coalesce(error, ''), '' FROM reminders WHERE ended_at IS NULL",
    )
}

#[test]
fn whenever_the_daemon_is_killed_each_message_is_handled_acknowledged_once_and_in_its_senders_order() {
    let (seed, kills) = (seed(), given("HIVE_FAULTS_KILLS").unwrap_or(KILLS));
    println!("HIVE_FAULTS_SEED={seed} HIVE_FAULTS_KILLS={kills}");
    let mut world = World::serving(&declared());
    for agent in AGENTS {
        world.until_stopped(agent);
    }
    let account = Account::default();
    let mut numbers = Numbers::from_seed(seed);
    thread::scope(|scope| {
        // Also when this fails.
        let _over = account.over_at_the_end();
        let names = AGENTS.into_iter().chain([OPERATOR]);
        let clients: Vec<_> = names
            .zip(1..)
            .map(|(name, number)| {
                let mut client =
                    Client::new(&world, &account, name, seed.wrapping_mul(31).wrapping_add(number));
                scope.spawn(move || client.live())
            })
            .collect();
        let all_live = || clients.iter().all(|client| !client.is_finished());
        for kill in 1..=kills {
            // Mostly in the middle of its work, sometimes before it answers.
            if numbers.below(5) > 0 {
                world.up();
            }
            account.after_requests(1 + numbers.below(MAX_APART));
            assert!(all_live(), "a client has failed; seed {seed}");
            world.kill();
            account.killed(kill);
            let command = world.serve();
            world.launch(command);
        }
        world.up();
        account.enter(Phase::Finish);
        let mut last = Vec::new();
        let finished = within(DEADLINE, || {
            last = left(&world);
            (last.is_empty() || !all_live()).then_some(())
        });
        assert!(all_live(), "a client has failed; seed {seed}");
        assert!(
            finished.is_some(),
            "this is stuck; seed {seed}\n{}\n{}",
            last.join("\n"),
            account.history(&check::subjects(&last))
        );
    });
    let found = check::check(&world, &account);
    assert!(found.faults.is_empty(), "seed {seed}\n{}", found.shown(&account));
    println!("{}", found.counts);
}
