use std::collections::BTreeMap;
use std::sync::Arc;

use camino::Utf8Path;
use serde_json::json;

use super::*;
use crate::children::Children;
use crate::config::testing::config;
use crate::driver::program::{OwnServer, Settings, Setup};
use crate::driver::running::TURN_MARK;
use crate::driver::{RunningTurn, TurnEnd, TurnEvent, TurnProgress, TurnSpec};
use crate::secrets::Secrets;
use crate::turn::Purpose;

fn setup(state: &Utf8Path) -> Arc<Setup> {
    let settings = Settings {
        claude: None,
        environment: BTreeMap::new(),
        secrets: Secrets::default(),
        own_server: OwnServer {
            program: "/nonexistent".into(),
            args: Vec::new(),
        },
        ways: crate::relay::Ways::default(),
        silence: Duration::from_secs(60),
        grace: Duration::from_secs(10),
    };
    Setup::new(settings, state.to_owned(), Children::default())
}

fn spec() -> TurnSpec {
    TurnSpec {
        turn: crate::ids::turn_id(),
        purpose: Purpose::Messages,
        messages: Vec::new(),
        config: Arc::new(config(&json!({}))),
        offered: BTreeMap::new(),
        conversation: None,
        cost_limit_usd: None,
        waits: watch::channel(false).1,
    }
}

/// A turn of a shell script that is told line by line, and is left as it is.
fn script(setup: &Arc<Setup>, script: &'static str) -> RunningTurn {
    #[expect(clippy::disallowed_methods, reason = "without it the shell finds nothing")]
    let path = std::env::var_os("PATH").expect("PATH");
    setup.start_turn(spec(), move |turn| async move {
        let environment = [
            ("PATH".to_owned(), path),
            (TURN_MARK.to_owned(), turn.spec.turn.to_string().into()),
        ];
        let args = ["-c".to_owned(), script.to_owned()];
        let mut process = turn.start("sh".into(), &args, environment.into(), async |_| {})?;
        while let Next::Line(Piece::Whole(line)) = process.next(None).await {
            let line = String::from_utf8_lossy(&line).into_owned();
            turn.tell(TurnEvent::Notice(line)).await;
        }
        let home = turn.setup.state.clone();
        process.finish(home, false).await?;
        Ok(TurnEnd::Completed)
    })
}

async fn line(turn: &mut RunningTurn) -> String {
    match turn.next().await {
        TurnProgress::Event(TurnEvent::Notice(line)) => line,
        other => panic!("no line, but {other:?}"),
    }
}

/// Whether a process runs; one that only waits to be collected does not.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[tokio::test]
async fn what_a_turn_started_elsewhere_does_not_outlive_a_turn_that_is_given_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let setup = setup(Utf8Path::from_path(dir.path()).expect("UTF-8"));
    let mut turn = script(&setup, "setsid sh -c 'echo $$; exec sleep 1000' & wait");
    let sleeper = line(&mut turn).await;
    assert!(runs(&sleeper));
    drop(turn);
    let deadline = Instant::now() + Duration::from_secs(10);
    while runs(&sleeper) {
        assert!(Instant::now() < deadline, "process {sleeper} goes on");
        tokio::task::yield_now().await;
    }
}
