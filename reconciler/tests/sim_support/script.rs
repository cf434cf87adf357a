//! Scripts: a story is played again, judged, and made as short as it can be while it still fails.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shared::plan::Waiting;
use shared::spec::{RunState, Spec};
use shared::status::Sync;

use super::driver::{End, Player};
use super::moves::{Move, Oracle, Scenario, Script};
use super::oracle;

/// When a decision that arrives during a move is made at rest instead.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ordering {
    Before,
    After,
    Never,
}

impl Ordering {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::After, Self::Never];

    /// The same moves with every decision at rest.
    pub(crate) fn at_rest(self, moves: &[Move]) -> Vec<Move> {
        let mut calm = Vec::new();
        let mut late = None;
        for step in moves {
            let Move::Decide(decide) = step else {
                calm.push(step.clone());
                calm.extend(late.take());
                continue;
            };
            let decision = if decide.approve { Move::Approve } else { Move::Deny };
            match self {
                Self::Before => calm.push(decision),
                Self::After => late = Some(decision),
                Self::Never => {}
            }
        }
        calm
    }
}

impl Script {
    pub(crate) fn of(scenario: &Scenario, oracle: Oracle, moves: Vec<Move>) -> Self {
        Self {
            oracle,
            behaviours: scenario.behaviours.clone(),
            unbuildable: scenario.unbuildable.clone(),
            moves,
        }
    }

    fn play(&self, moves: &[Move]) -> End {
        crate::block_on(async {
            let mut player = Player::new(&self.behaviours, &self.unbuildable).await;
            for step in moves {
                player.play(step).await;
            }
            player.end().await
        })
    }

    /// Plays it, and panics when it does not end as it should.
    pub(crate) fn judge(&self) {
        let end = self.play(&self.moves);
        oracle::check_alone(&end);
        // What it would have been without what went wrong.
        let calm = |when: Ordering| {
            let moves: Vec<Move> = self
                .moves
                .iter()
                .filter(|m| !m.is_disturbance())
                .cloned()
                .collect();
            let end = self.play(&when.at_rest(&moves));
            oracle::check_alone(&end);
            end
        };
        match self.oracle {
            Oracle::Alone => {}
            Oracle::Same => oracle::check_same(&calm(Ordering::Before), &end),
            Oracle::Late => oracle::check_late(&calm(Ordering::Before), &end),
            Oracle::SameEnd => oracle::check_same_end(&calm(Ordering::Before), &end),
            Oracle::Decided => oracle::check_decided(&Ordering::ALL.map(calm), &end),
            Oracle::Specs => self.check_specs(&end),
        }
    }

    /// Whoever the last spec declares is in sync with it, whatever came before.
    fn check_specs(&self, end: &End) {
        let Some(Move::Spec(last)) = self.moves.last() else {
            return;
        };
        // A shorter script may end with a spec that cannot be had.
        let Ok(spec) = serde_json::from_str::<Spec>(last) else {
            return;
        };
        for (name, declared) in &spec.agents {
            let status = end.status(name.as_str());
            let config = status.config.as_ref();
            if declared.run == RunState::Running {
                assert_eq!(status.sync.value, Sync::InSync, "{name}: {:#?}", status.waiting);
            } else {
                // Its trial is put off until it runs again.
                let on_trial = |waiting: &Waiting| waiting.what.starts_with("probation");
                assert!(
                    status.waiting.iter().all(on_trial),
                    "{name}: {:#?}",
                    status.waiting
                );
            }
            assert_eq!(
                config.map(|config| config.prompt.as_str()),
                Some(declared.prompt.as_str()),
                "{name}"
            );
            assert_eq!(
                config.map(|config| &config.mcp_servers),
                Some(&declared.mcp_servers),
                "{name}"
            );
            assert_eq!(status.generations.desired, status.generations.deployed, "{name}");
        }
    }

    /// Why it fails, if it does.
    pub(crate) fn fails(&self) -> Option<String> {
        why(|| self.judge())
    }

    /// Judges it; when it fails, takes away moves as long as it still fails, and panics with what is left.
    pub(crate) fn or_shortest(self, replay: &str) {
        if let Some(why) = self.fails() {
            self.shortest(why, replay);
        }
    }

    /// Takes away moves as long as it still fails, and panics with what is left.
    pub(crate) fn shortest(mut self, mut why: String, replay: &str) -> ! {
        let mut index = 0;
        while index < self.moves.len() {
            let mut shorter = self.clone();
            shorter.moves.remove(index);
            match shorter.fails() {
                Some(still) => (self, why) = (shorter, still),
                None => index += 1,
            }
        }
        let story = catch_unwind(AssertUnwindSafe(|| self.play(&self.moves).story()));
        let story = story.unwrap_or_default();
        let text = serde_json::to_string_pretty(&self).unwrap();
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("sim-failure.json");
        let copied = std::fs::File::create(&file).and_then(|mut file| file.write_all(text.as_bytes()));
        copied.unwrap();
        panic!(
            "{why}\n\nwhat happened:\n{story}\nminimal script:\n{text}\nreplay: {replay}\nreplay the minimal script: cargo xtask sim --script {}",
            file.display()
        );
    }
}

/// The text of the panic, if there is one.
pub(crate) fn why(check: impl FnOnce()) -> Option<String> {
    let panicked = catch_unwind(AssertUnwindSafe(check)).err()?;
    let text = panicked
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panicked.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.unwrap_or_default())
}
