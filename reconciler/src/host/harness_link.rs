//! What harnesses report, and what they are told. Memory only; the agent API writes here, passes read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::agent_api::Report;
use shared::login::{LoginAnswer, LoginOrder, LoginPhase, LoginState};
use shared::{AgentName, LoginId, TurnId};
use tokio::sync::watch;

use super::turn_events::{Room, TurnEvents};
use super::{Announcement, Clock, HarnessLink, HarnessState};

mod turns;

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new, or nothing that is believed.
    Nothing,
    /// Something new of a run that is known.
    News,
    /// A run whose predecessors may still hold leases, as far as this daemon knows.
    NewRun,
}

#[derive(Default)]
struct Agent {
    state: Option<HarnessState>,
    /// A run that was told to end: what it still says is not believed.
    forgotten_run: Option<String>,
    /// The run and the announcement that were last told, so that a harness that cannot follow does not spin.
    told: Option<(String, Announcement)>,
    /// The run and the instruction that it was told last.
    told_instruction: Option<(String, u64)>,
    /// The run whose predecessors' leases were given back.
    settled_run: Option<String>,
    announcement: watch::Sender<Announcement>,
    /// The login that the operator asks for.
    login: watch::Sender<Option<LoginOrder>>,
    /// The run and the order that were last told.
    told_login: Option<(String, LoginOrder)>,
    /// The turn that ended last, which may still be the lease of the newest report.
    ended_turn: Option<TurnId>,
}

impl Agent {
    fn end_login_of_another(&mut self, run_id: &str) {
        if self.told_login.take_if(|(run, _)| run != run_id).is_some() {
            self.login.send_replace(None);
        }
    }
}

/// The link to all harnesses of the hive.
pub struct Link {
    clock: Arc<dyn Clock>,
    agents: Mutex<BTreeMap<AgentName, Agent>>,
    events: TurnEvents,
}

impl Link {
    /// A link over which nothing was said yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            events: TurnEvents::new(clock.now(), Room::default()),
            clock,
            agents: Mutex::default(),
        }
    }

    /// What happens in turns.
    pub fn events(&self) -> &TurnEvents {
        &self.events
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<AgentName, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a report.
    pub fn report(&self, name: &AgentName, report: Report) -> Heard {
        let at = self.clock.now();
        let mut agents = self.agents();
        let agent = agents.entry(name.clone()).or_default();
        if agent.forgotten_run.as_ref() == Some(&report.run_id) {
            return Heard::Nothing;
        }
        let settled = agent.settled_run.as_ref() == Some(&report.run_id);
        let heard = match agent.state.as_ref().map(|state| &state.report) {
            Some(last) if last.run_id != report.run_id => Heard::NewRun,
            None => Heard::NewRun,
            Some(last) if report.seq < last.seq => return Heard::Nothing,
            // The leases of the run before it could not be given back yet.
            Some(_) if !settled => Heard::NewRun,
            Some(last)
                if Report {
                    seq: last.seq,
                    ..report.clone()
                } == *last =>
            {
                Heard::Nothing
            }
            Some(_) => Heard::News,
        };
        if heard == Heard::Nothing {
            // Only its position in the stream is new.
            if let Some(state) = &mut agent.state {
                state.report.seq = report.seq;
            }
        } else {
            let mut state = HarnessState { report, at };
            // A busy agent that keeps reporting must not push away the deadline of what waits for its turn.
            if let Some(last) = agent.state.take()
                && last.report.run_id == state.report.run_id
                && last.is_busy()
                && state.is_busy()
            {
                state.at = last.at;
            }
            // The program that waited for a code is gone with the run that was told of it.
            agent.end_login_of_another(&state.report.run_id);
            if let Some(login) = state.report.login.as_ref().filter(|login| login.phase.is_over()) {
                let over =
                    |order: &mut Option<LoginOrder>| order.take_if(|order| order.id == login.id).is_some();
                agent.login.send_if_modified(over);
            }
            agent.state = Some(state);
        }
        heard
    }

    /// Asks an agent's harness to log in; another login that is under way ends. What it is like, from now on.
    pub fn begin_login(&self, name: &AgentName, id: LoginId) {
        let mut agents = self.agents();
        let agent = agents.entry(name.clone()).or_default();
        agent.login.send_replace(Some(LoginOrder { id, code: None }));
    }

    /// Hands over the code of a login, if that waits for one.
    pub fn give_code(&self, name: &AgentName, answer: LoginAnswer) -> bool {
        let waits = self
            .login(name)
            .is_some_and(|login| login.id == answer.id && login.phase == LoginPhase::WaitingForCode);
        if let (true, Some(agent)) = (waits, self.agents().get(name)) {
            agent.login.send_replace(Some(LoginOrder {
                id: answer.id,
                code: Some(answer.code),
            }));
        }
        waits
    }

    /// How the login that was last asked for stands.
    pub fn login(&self, name: &AgentName) -> Option<LoginState> {
        let agents = self.agents();
        let agent = agents.get(name)?;
        let reported = agent.state.as_ref().and_then(|state| state.report.login.clone());
        let order = agent.login.borrow();
        let Some(order) = order.as_ref() else {
            return reported;
        };
        let at = |phase| LoginState {
            id: order.id,
            phase,
            url: None,
            error: None,
        };
        match reported.filter(|reported| reported.id == order.id) {
            None => Some(at(LoginPhase::Starting)),
            Some(reported) if !order.is_heeded(Some(&reported)) => Some(at(LoginPhase::Checking)),
            reported => reported,
        }
    }

    /// The login that this agent's harness is asked for, and every change of it.
    pub fn login_orders(&self, name: &AgentName) -> watch::Receiver<Option<LoginOrder>> {
        self.agents().entry(name.clone()).or_default().login.subscribe()
    }

    /// Whether this run was not told yet which login is asked for now.
    pub fn is_new_order(&self, name: &AgentName, run_id: &str) -> bool {
        let agents = self.agents();
        let Some(agent) = agents.get(name) else {
            return false;
        };
        let order = agent.login.borrow();
        let told = agent.told_login.as_ref().filter(|(run, _)| run == run_id);
        order.is_some() && told.map(|(_, told)| told) != order.as_ref()
    }

    /// Notes which login this run was asked for.
    pub fn told_login(&self, name: &AgentName, run_id: &str, order: Option<LoginOrder>) {
        if let (Some(order), Some(agent)) = (order, self.agents().get_mut(name)) {
            agent.told_login = Some((run_id.to_owned(), order));
        }
    }

    /// Notes that the leases of all runs before this one were given back.
    pub fn settled(&self, name: &AgentName, run_id: &str) {
        if let Some(agent) = self.agents().get_mut(name) {
            agent.settled_run = Some(run_id.to_owned());
        }
    }

    /// Whether this run was not told yet what is announced now.
    pub fn is_news(&self, name: &AgentName, run_id: &str) -> bool {
        let agents = self.agents();
        let Some(agent) = agents.get(name) else {
            return true;
        };
        let announced = agent.announcement.borrow();
        !matches!(&agent.told, Some((run, told)) if run == run_id && *told == *announced)
    }

    /// Whether this run was told of another model than the one that is announced now. It does not report which it has.
    pub fn is_another_model(&self, name: &AgentName, run_id: &str) -> bool {
        let agents = self.agents();
        let Some(agent) = agents.get(name) else {
            return false;
        };
        let told = agent.told.as_ref().filter(|(run, _)| run == run_id);
        told.and_then(|(_, told)| told.model.as_ref()) != agent.announcement.borrow().model.as_ref()
    }

    /// Whether this run was not told yet of instructions up to this number; never when there is none.
    pub fn is_another_instruction(&self, name: &AgentName, run_id: &str, instruction: u64) -> bool {
        let agents = self.agents();
        let told = agents.get(name).and_then(|agent| agent.told_instruction.as_ref());
        let told = told
            .filter(|(run, _)| run == run_id)
            .map_or(0, |(_, instruction)| *instruction);
        instruction > told
    }

    /// Notes that this run was told of instructions up to this number.
    pub fn told_instruction(&self, name: &AgentName, run_id: &str, instruction: u64) {
        if let Some(agent) = self.agents().get_mut(name)
            && instruction > 0
        {
            agent.told_instruction = Some((run_id.to_owned(), instruction));
        }
    }

    /// Notes what this run was told: not necessarily what is announced by now.
    pub fn told(&self, name: &AgentName, run_id: &str, what: Announcement) {
        if let Some(agent) = self.agents().get_mut(name) {
            agent.told = Some((run_id.to_owned(), what));
        }
    }

    /// What this agent's harness is told, and every change of it.
    pub fn listen(&self, name: &AgentName) -> watch::Receiver<Announcement> {
        self.agents()
            .entry(name.clone())
            .or_default()
            .announcement
            .subscribe()
    }
}

impl HarnessLink for Link {
    fn state(&self, name: &AgentName) -> Option<HarnessState> {
        self.agents().get(name).and_then(|agent| agent.state.clone())
    }

    fn forget(&self, name: &AgentName) {
        if let Some(agent) = self.agents().get_mut(name)
            && let Some(state) = agent.state.take()
        {
            agent.forgotten_run = Some(state.report.run_id);
        }
    }

    fn announce(&self, name: &AgentName, announcement: Announcement) {
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
    use shared::status::TurnState;

    use super::super::clock::SystemClock;
    use super::*;

    pub(super) fn report(run: &str) -> Report {
        Report {
            version: "1".into(),
            run_id: run.into(),
            seq: 0,
            lease: None,
            config: None,
            config_error: None,
            turn_error: None,
            events_error: None,
            instructed: 0,
            model: None,
            turn: TurnState::Idle,
            mcp: BTreeMap::new(),
            login: None,
        }
    }

    #[test]
    fn a_login_goes_from_order_to_address_to_code_and_ends_with_its_run() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        let id = LoginId(uuid::Uuid::from_u128(1));
        let phase = || link.login(&alice).map(|login| login.phase);
        let says = |run: &str, seq: u64, phase: LoginPhase| {
            let url = Some("https://claude.com/".to_owned());
            let login = Some(LoginState {
                id,
                phase,
                url,
                error: None,
            });
            link.report(
                &alice,
                Report {
                    seq,
                    login,
                    ..report(run)
                },
            );
        };
        let code = |id: LoginId| {
            let code = shared::login::LoginCode("code".to_owned());
            link.give_code(&alice, LoginAnswer { id, code })
        };
        link.report(&alice, report("one"));
        assert!(phase().is_none() && !code(id));
        link.begin_login(&alice, id);
        assert_eq!(phase(), Some(LoginPhase::Starting));
        assert!(link.is_new_order(&alice, "one"));
        let order = link.login_orders(&alice).borrow().clone();
        link.told_login(&alice, "one", order);
        assert!(!link.is_new_order(&alice, "one"), "it is told once");
        says("one", 1, LoginPhase::WaitingForCode);
        assert!(!code(LoginId(uuid::Uuid::from_u128(2))), "of another login");
        assert!(code(id));
        assert_eq!(phase(), Some(LoginPhase::Checking));
        assert!(!code(id), "there is one already");
        assert!(link.is_new_order(&alice, "one"));
        // The harness that has the program dies.
        link.report(&alice, report("two"));
        assert_eq!(phase(), None);
        assert!(
            link.login_orders(&alice).borrow().is_none(),
            "no code goes to another program"
        );
        link.begin_login(&alice, id);
        says("two", 1, LoginPhase::Done);
        assert_eq!(phase(), Some(LoginPhase::Done));
        assert!(link.login_orders(&alice).borrow().is_none());
    }

    #[test]
    fn a_run_that_was_told_to_end_is_not_believed_any_more() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        assert_eq!(link.report(&alice, report("one")), Heard::NewRun);
        link.settled(&alice, "one");
        assert_eq!(
            link.report(&alice, report("one")),
            Heard::Nothing,
            "the same report twice is nothing new"
        );
        link.forget(&alice);
        assert_eq!(link.report(&alice, report("one")), Heard::Nothing);
        assert_eq!(link.state(&alice), None);
        assert_eq!(link.report(&alice, report("two")), Heard::NewRun);
    }

    #[test]
    fn a_run_is_new_until_the_leases_of_the_one_before_were_given_back() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        assert_eq!(link.report(&alice, report("one")), Heard::NewRun);
        assert_eq!(
            link.report(&alice, report("one")),
            Heard::NewRun,
            "the ledger failed meanwhile"
        );
        link.settled(&alice, "one");
        let next = Report {
            seq: 1,
            ..report("one")
        };
        assert_eq!(link.report(&alice, next), Heard::Nothing);
        assert_eq!(link.report(&alice, report("two")), Heard::NewRun);
        link.settled(&alice, "two");
    }

    fn announcement(model: Option<&str>) -> Announcement {
        Announcement {
            config: format!("config1-{}", "0".repeat(64)).parse().ok(),
            paused: false,
            model: model.map(str::to_owned),
        }
    }

    #[test]
    fn a_run_is_told_of_another_model_once() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        let tell = || link.told(&alice, "one", link.listen(&alice).borrow().clone());
        link.report(&alice, report("one"));
        assert!(!link.is_another_model(&alice, "one"), "none was ever ordered");
        for model in [Some("opus"), None] {
            link.announce(&alice, announcement(model));
            assert!(link.is_another_model(&alice, "one"));
            tell();
            assert!(!link.is_another_model(&alice, "one"));
        }
        link.announce(&alice, announcement(Some("opus")));
        tell();
        assert!(
            link.is_another_model(&alice, "two"),
            "another run was told nothing"
        );
    }

    #[test]
    fn what_is_announced_while_an_answer_is_made_is_still_news() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        link.report(&alice, report("one"));
        let answered = link.listen(&alice).borrow().clone();
        link.announce(&alice, announcement(None));
        link.told(&alice, "one", answered);
        assert!(link.is_news(&alice, "one"));
        let answered = link.listen(&alice).borrow().clone();
        link.told(&alice, "one", answered);
        assert!(!link.is_news(&alice, "one"));
        assert!(link.is_news(&alice, "two"), "another run was told nothing");
    }

    #[test]
    fn a_busy_agent_is_busy_since_it_first_said_so() {
        let world = crate::host::fake::World::new();
        let link = Link::new(Arc::new(world.clone()));
        let alice: AgentName = "alice".parse().unwrap();
        let since = |seq, turn| {
            world.advance(10);
            let news = Report {
                seq,
                turn,
                ..report("one")
            };
            assert_ne!(link.report(&alice, news), Heard::Nothing);
            link.state(&alice).unwrap().at
        };
        let idle = since(1, TurnState::Idle);
        let busy = since(2, TurnState::Thinking);
        assert!(idle < busy);
        assert_eq!(since(3, TurnState::Compacting), busy);
        assert_eq!(since(4, TurnState::Thinking), busy);
        assert!(since(5, TurnState::Idle) > busy);
        assert!(since(6, TurnState::Thinking) > busy);
    }

    #[test]
    fn a_report_that_was_overtaken_is_not_believed() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        let thinking = Report {
            seq: 2,
            turn: TurnState::Thinking,
            ..report("one")
        };
        link.report(&alice, thinking.clone());
        link.settled(&alice, "one");
        assert_eq!(
            link.report(
                &alice,
                Report {
                    seq: 1,
                    ..report("one")
                }
            ),
            Heard::Nothing
        );
        assert_eq!(link.state(&alice).unwrap().report, thinking);
    }

    #[test]
    fn a_listener_hears_of_changes_only() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        let mut heard = link.listen(&alice);
        heard.mark_unchanged();
        link.announce(&alice, announcement(None));
        assert!(heard.has_changed().unwrap());
        heard.mark_unchanged();
        link.announce(&alice, announcement(None));
        assert!(!heard.has_changed().unwrap());
    }
}
