//! What is known about the units, until a signal says that it changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::AgentName;

use super::bus::Line;
use super::locked;
use super::record::{EndRecord, LaunchRecord};
use super::verdict::Unit;

/// What the state of an agent follows from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The line of the list that the rest belongs to.
    pub(super) line: Option<Line>,
    /// The unit, when systemd has it.
    pub(super) unit: Option<Unit>,
    /// What the launcher noted.
    pub(super) record: Option<LaunchRecord>,
    /// The run that was told to end.
    pub(super) told: Option<String>,
    /// What was noted when a run was over.
    pub(super) end: Option<EndRecord>,
}

/// The state of the view when a look began. What was seen is kept only if nothing changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

/// The list of units, and when it was made.
type Listed = (Duration, Arc<BTreeMap<AgentName, Line>>);

#[derive(Debug, Default)]
struct Known {
    /// Counts what was forgotten.
    changes: u64,
    lines: Option<Listed>,
    facts: BTreeMap<AgentName, Arc<Facts>>,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct View(Mutex<Known>);

impl View {
    /// The list of units, if it is young enough.
    pub(super) fn lines(
        &self,
        now: Duration,
        counts_for: Duration,
    ) -> Result<Arc<BTreeMap<AgentName, Line>>, Stamp> {
        let known = locked(&self.0);
        match &known.lines {
            Some((made, lines)) if now.saturating_sub(*made) < counts_for => Ok(Arc::clone(lines)),
            _ => Err(Stamp(known.changes)),
        }
    }

    /// Keeps a list that was asked for at `now`, unless something changed meanwhile.
    pub(super) fn keep_lines(
        &self,
        stamp: Stamp,
        now: Duration,
        lines: BTreeMap<AgentName, Line>,
    ) -> Arc<BTreeMap<AgentName, Line>> {
        let lines = Arc::new(lines);
        let mut known = locked(&self.0);
        if Stamp(known.changes) == stamp {
            known.lines = Some((now, Arc::clone(&lines)));
        }
        lines
    }

    /// What is known of an agent, if the list still says the same.
    pub(super) fn facts(&self, agent: &AgentName, line: Option<&Line>) -> Result<Arc<Facts>, Stamp> {
        let known = locked(&self.0);
        match known.facts.get(agent) {
            Some(facts) if facts.line.as_ref() == line => Ok(Arc::clone(facts)),
            _ => Err(Stamp(known.changes)),
        }
    }

    /// Keeps what was seen of an agent, unless something changed meanwhile.
    pub(super) fn keep_facts(&self, stamp: Stamp, agent: &AgentName, facts: Facts) -> Arc<Facts> {
        let facts = Arc::new(facts);
        let mut known = locked(&self.0);
        if Stamp(known.changes) == stamp {
            known.facts.insert(agent.clone(), Arc::clone(&facts));
        }
        facts
    }

    /// What is known of an agent does not count any more.
    pub(super) fn forget(&self, agent: &AgentName) {
        let mut known = locked(&self.0);
        known.changes += 1;
        known.lines = None;
        known.facts.remove(agent);
    }

    /// Nothing that is known counts any more.
    pub(super) fn forget_all(&self) {
        let mut known = locked(&self.0);
        known.changes += 1;
        known.lines = None;
        known.facts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_millis(500);

    fn name() -> AgentName {
        "alice".parse().unwrap()
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn line(active: &str) -> Line {
        Line {
            agent: name(),
            load: "loaded".to_owned(),
            active: active.to_owned(),
            sub: "running".to_owned(),
        }
    }

    fn of(line: Line) -> Facts {
        Facts {
            line: Some(line),
            ..Facts::default()
        }
    }

    #[test]
    fn a_list_counts_while_it_is_young_and_nothing_changed() {
        let view = View::default();
        let stamp = view.lines(at(0), YOUNG).unwrap_err();
        view.keep_lines(stamp, at(0), BTreeMap::new());
        assert!(view.lines(at(499), YOUNG).is_ok());
        assert!(view.lines(at(500), YOUNG).is_err());
        view.forget(&name());
        assert!(view.lines(at(1), YOUNG).is_err());
    }

    #[test]
    fn what_was_seen_while_something_changed_is_not_kept() {
        let view = View::default();
        let stamp = view.lines(at(0), YOUNG).unwrap_err();
        let of_alice = view.facts(&name(), Some(&line("active"))).unwrap_err();
        view.forget(&name());
        view.keep_lines(stamp, at(0), BTreeMap::new());
        view.keep_facts(of_alice, &name(), of(line("active")));
        assert!(view.lines(at(1), YOUNG).is_err());
        assert!(view.facts(&name(), Some(&line("active"))).is_err());
    }

    #[test]
    fn what_is_known_of_a_unit_counts_while_the_list_says_the_same() {
        let view = View::default();
        let stamp = view.facts(&name(), Some(&line("active"))).unwrap_err();
        view.keep_facts(stamp, &name(), of(line("active")));
        assert!(view.facts(&name(), Some(&line("active"))).is_ok());
        assert!(view.facts(&name(), Some(&line("failed"))).is_err());
        assert!(view.facts(&name(), None).is_err());
        view.forget_all();
        assert!(view.facts(&name(), Some(&line("active"))).is_err());
    }
}
