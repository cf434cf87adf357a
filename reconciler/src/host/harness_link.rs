//! What harnesses report, and what they are told. Memory only; the agent API writes here, passes read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::agent_api::Report;
use shared::{AgentName, Digest};
use tokio::sync::watch;

use super::{Clock, HarnessLink, HarnessState};

/// What a harness is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The config that is written.
    pub config: Option<Digest>,
    /// Take no turns.
    pub paused: bool,
}

#[derive(Default)]
struct Agent {
    state: Option<HarnessState>,
    /// A run that was told to end: what it still says is not believed.
    forgotten_run: Option<String>,
    announcement: watch::Sender<Announcement>,
}

/// The link to all harnesses of the hive.
pub struct Link {
    clock: Arc<dyn Clock>,
    agents: Mutex<BTreeMap<AgentName, Agent>>,
}

impl Link {
    /// A link over which nothing was said yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, agents: Mutex::default() }
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<AgentName, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a report. Returns whether it says something new.
    pub fn report(&self, name: &AgentName, report: Report) -> bool {
        let at = self.clock.now();
        let mut agents = self.agents();
        let agent = agents.entry(name.clone()).or_default();
        if agent.forgotten_run.as_ref() == Some(&report.run_id) {
            return false;
        }
        let new = agent.state.as_ref().is_none_or(|state| state.report != report);
        if new {
            agent.state = Some(HarnessState { report, at });
        }
        new
    }

    /// What this agent's harness is told, and every change of it.
    pub fn listen(&self, name: &AgentName) -> watch::Receiver<Announcement> {
        self.agents().entry(name.clone()).or_default().announcement.subscribe()
    }
}

impl HarnessLink for Link {
    fn state(&self, name: &AgentName) -> Option<HarnessState> {
        self.agents().get(name).and_then(|agent| agent.state.clone())
    }

    fn forget(&self, name: &AgentName) {
        if let Some(agent) = self.agents().get_mut(name) {
            if let Some(state) = agent.state.take() {
                agent.forgotten_run = Some(state.report.run_id);
            }
        }
    }

    fn announce(&self, name: &AgentName, config: &Digest, paused: bool) {
        let announcement = Announcement { config: Some(config.clone()), paused };
        let mut agents = self.agents();
        let agent = agents.entry(name.clone()).or_default();
        agent.announcement.send_if_modified(|told| {
            let changed = *told != announcement;
            *told = announcement;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::status::TurnState;

    use super::super::clock::SystemClock;
    use super::*;

    fn report(run: &str) -> Report {
        Report {
            version: "1".into(),
            run_id: run.into(),
            config: None,
            config_error: None,
            turn: TurnState::Idle,
            mcp: BTreeMap::new(),
        }
    }

    #[test]
    fn a_run_that_was_told_to_end_is_not_believed_any_more() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        assert!(link.report(&alice, report("one")));
        assert!(!link.report(&alice, report("one")), "the same report twice is nothing new");
        link.forget(&alice);
        assert!(!link.report(&alice, report("one")));
        assert_eq!(link.state(&alice), None);
        assert!(link.report(&alice, report("two")));
    }

    #[test]
    fn a_listener_hears_of_changes_only() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        let digest: Digest = format!("config1-{}", "0".repeat(64)).parse().unwrap();
        let mut heard = link.listen(&alice);
        heard.mark_unchanged();
        link.announce(&alice, &digest, false);
        assert!(heard.has_changed().unwrap());
        heard.mark_unchanged();
        link.announce(&alice, &digest, false);
        assert!(!heard.has_changed().unwrap());
    }
}
