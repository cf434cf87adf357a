//! What a move looks like from inside when nothing goes wrong: it says where something that goes wrong is noticed at all,
//! so that nothing else has to be played.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use reconciler::host::fake::{Probe, Stop, Trouble};

use super::driver::{Move, Player, Saved};

/// The places of one move, which is looked at once somebody asks.
pub(crate) struct Places<'a> {
    saved: &'a Saved,
    step: &'a Move,
    survey: OnceCell<Survey>,
}

impl<'a> Places<'a> {
    pub(crate) fn of(saved: &'a Saved, step: &'a Move) -> Self {
        Self {
            saved,
            step,
            survey: OnceCell::new(),
        }
    }

    /// Whether anybody would notice; `None`: there is no such place. What is not silent is always noticed, if it comes.
    pub(crate) fn notices(&self, disturbance: &Move) -> Option<bool> {
        if !disturbance.is_silent() {
            return Some(true);
        }
        let survey = || crate::block_on(Player::survey(self.saved, self.step));
        self.survey.get_or_init(survey).notices(disturbance)
    }
}

/// One move, pass by pass and boundary by boundary.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Which trouble each pass would notice.
    passes: Vec<BTreeSet<Trouble>>,
    /// Whether a gate waits for a person, after each boundary that a pass comes to.
    asking: Vec<bool>,
    /// The number of the first boundary.
    first: usize,
}

impl Survey {
    fn notices(&self, disturbance: &Move) -> Option<bool> {
        match disturbance {
            Move::BlindPass(away, source) => self.pass(*away, Trouble::Blind(*source)),
            Move::LagPass(away, source, lag) => self.pass(*away, Trouble::Lag(*source, *lag)),
            Move::Decide(decide) => self.asking.get(decide.away).copied(),
            _ => Some(true),
        }
    }

    fn pass(&self, away: usize, trouble: Trouble) -> Option<bool> {
        self.passes.get(away).map(|noticed| noticed.contains(&trouble))
    }

    /// Notes a stop at a boundary.
    pub(super) fn stopped(&mut self, (boundary, is_after): (usize, bool), asks: bool) {
        let place = boundary - self.first;
        self.asking.resize(self.asking.len().max(place + 1), false);
        self.asking[place] |= is_after && asks;
    }

    /// Notes what a pass that came to its end would have noticed.
    pub(super) fn passed(&mut self, probe: Option<Probe>) {
        self.passes.push(probe.unwrap_or_default().noticed);
    }
}

impl Player {
    /// Looks at one move from inside.
    async fn survey(saved: &Saved, step: &Move) -> Survey {
        let mut player = Self::resume(saved).await;
        {
            let mut state = player.world.lock();
            state.stop = Stop::Everywhere;
            player.survey = Some(Survey {
                first: state.boundaries,
                ..Survey::default()
            });
        }
        player.play(step).await;
        player.survey.unwrap_or_default()
    }
}
