//! What the ledger is stored on: says that it takes no writes, and takes up the work again once it does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use shared::event::Level;

use super::reconciler::{Key, Reconciler};
use crate::host::{HostError, Space};
use crate::ledger::Ledger;
use crate::ledger::storage::{Fault, Trouble};
use crate::model::change::Change;

/// How often it is tried whether the ledger takes writes again.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// With less room than this a full disk is still full, in bytes.
const ROOM: u64 = 1 << 20;
/// Less room than this is worth a word, in bytes.
const LITTLE: u64 = 64 << 20;
/// Less than this part of all room is little.
const LITTLE_PART: u64 = 20;

/// Waits for the ledger to take no writes, then until it does again; tells both, and lets everything be looked at.
pub async fn watch(reconciler: Arc<Reconciler>) {
    let ledger = reconciler.ledger().clone();
    let clock = Arc::clone(&reconciler.host().clock);
    let mut trouble = ledger.watch_trouble();
    loop {
        let Ok(Some(begun)) = trouble.wait_for(Option::is_some).await.map(|now| now.clone()) else {
            return;
        };
        let since = clock.now();
        // Said until then by every status.
        tracing::error!(
            why = begun.fault.as_str(),
            cure = begun.fault.cure(),
            "the ledger takes no writes"
        );
        loop {
            tokio::time::sleep(TRY_EVERY).await;
            if has_room(&reconciler, &ledger).await && ledger.recovered().await.is_ok() {
                break;
            }
        }
        let message = format!(
            "the ledger takes writes again; from {} it took none: {}",
            since.strftime("%Y-%m-%d %H:%M:%SZ"),
            begun.fault.as_str()
        );
        tracing::warn!("{message}");
        let change = Change::Event {
            agent: None,
            level: Level::Warning,
            kind: "ledgerWritable",
            message,
            data: json!({ "since": since }),
            at: clock.now(),
        };
        if let Err(error) = ledger.apply(vec![change]).await {
            tracing::warn!(error = crate::error_chain(&error), "that could not be recorded");
        }
        // Passes that failed over it would wait for their next try.
        reconciler.nudge(Key::Hive);
        match ledger.agents().await {
            Ok(agents) => {
                for record in agents.items {
                    reconciler.nudge(Key::Agent(record.name));
                }
            }
            Err(error) => tracing::warn!(error = crate::error_chain(&error), "the agents cannot be listed"),
        }
    }
}

/// Whether it is worth a try. A damaged file never is: nothing but another file mends that.
async fn has_room(reconciler: &Reconciler, ledger: &Ledger) -> bool {
    match ledger.trouble().map(|trouble| trouble.fault) {
        Some(Fault::Damaged) => false,
        Some(Fault::Full) => {
            let space = reconciler.host().folders.space().await;
            space.map_or(true, |space| space.free >= ROOM)
        }
        _ => true,
    }
}

/// What an operator should know of the storage.
pub fn notices(trouble: Option<&Trouble>, space: Result<&Space, &HostError>) -> Vec<String> {
    let room = match space {
        Ok(space) => format!(
            "{} of {} are free on the file system of {}",
            size(space.free),
            size(space.total),
            space.folder
        ),
        Err(error) => error.chain(),
    };
    let little = space.is_ok_and(|space| space.free < LITTLE.min(space.total / LITTLE_PART));
    match trouble {
        Some(Trouble { fault, .. }) => vec![format!(
            "the ledger takes no writes: {} ({room}). Nothing is accepted or changed meanwhile, agents go on. {}",
            fault.as_str(),
            upper(fault.cure())
        )],
        None if little => vec![format!(
            "only {room}: free space there before the ledger takes no writes any more"
        )],
        None => Vec::new(),
    }
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

fn size(bytes: u64) -> String {
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        (whole, tenths, unit) = (whole / 1024, whole % 1024 * 10 / 1024, larger);
    }
    if unit == "B" {
        format!("{whole} B")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free: u64, total: u64) -> Space {
        Space {
            folder: "/var/lib/hyperhive".to_owned(),
            free,
            total,
        }
    }

    #[test]
    fn a_full_disk_is_told_with_the_place_the_room_and_the_cure() {
        let trouble = Trouble {
            fault: Fault::Full,
            refused: 3,
        };
        let told = notices(Some(&trouble), Ok(&space(0, 24 << 20)));
        insta::assert_snapshot!(told.join("\n"), @"the ledger takes no writes: the disk is full (0 B of 24.0 MiB are free on the file system of /var/lib/hyperhive). Nothing is accepted or changed meanwhile, agents go on. Free space there; it goes on by itself");
    }

    #[test]
    fn little_room_is_told_before_there_is_none_and_enough_is_not() {
        let told = notices(None, Ok(&space(1_300_000, 100 << 20)));
        insta::assert_snapshot!(told.join("\n"), @"only 1.2 MiB of 100.0 MiB are free on the file system of /var/lib/hyperhive: free space there before the ledger takes no writes any more");
        assert_eq!(notices(None, Ok(&space(20 << 20, 100 << 20))), [""; 0]);
        assert_eq!(notices(None, Ok(&space(65 << 20, 1 << 40))), [""; 0]);
    }
}
