//! Which turn of an agent goes on, by what its harness reports.

use std::fmt;

use shared::{AgentName, TurnId};

use super::Link;

impl Link {
    /// Whether this turn may go on: it is the lease of the newest report and has not ended since. Before the first report
    /// it may be one that has outlived the daemon; a run that reports afterwards gives back what it took.
    pub fn goes_on(&self, name: &AgentName, turn: TurnId) -> bool {
        let agents = self.agents();
        let Some(agent) = agents.get(name) else {
            return true;
        };
        let reported = agent.state.as_ref().map(|state| state.report.lease);
        agent.ended_turn != Some(turn) && reported.is_none_or(|lease| lease == Some(turn))
    }

    /// Notes that a turn ends.
    pub fn end_turn(&self, name: &AgentName, turn: TurnId) {
        self.agents().entry(name.clone()).or_default().ended_turn = Some(turn);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::agent_api::Report;
    use uuid::Uuid;

    use super::super::super::HarnessLink as _;
    use super::super::super::clock::SystemClock;
    use super::super::tests::report;
    use super::*;

    #[test]
    fn the_turn_that_goes_on_is_the_lease_of_the_newest_report_until_it_ends() {
        let link = Link::new(Arc::new(SystemClock));
        let alice: AgentName = "alice".parse().unwrap();
        let turn = |number| TurnId(Uuid::from_u128(number));
        let going_on = || {
            (1..=3)
                .filter(|number| link.goes_on(&alice, turn(*number)))
                .collect::<Vec<_>>()
        };
        let reports = |run: &str, seq, lease: Option<u128>| {
            let lease = lease.map(turn);
            link.report(
                &alice,
                Report {
                    seq,
                    lease,
                    ..report(run)
                },
            );
        };
        assert_eq!(
            going_on(),
            [1, 2, 3],
            "nothing was reported yet: one may have outlived the daemon"
        );
        link.end_turn(&alice, turn(3));
        assert_eq!(going_on(), [1, 2], "that one has ended all the same");
        reports("one", 1, Some(1));
        assert_eq!(going_on(), [1]);
        reports("one", 0, Some(2));
        assert_eq!(going_on(), [1], "what was overtaken is not believed");
        reports("two", 0, None);
        assert_eq!(going_on(), [0_u128; 0], "the run of that turn is over");
        reports("two", 1, Some(2));
        assert_eq!(going_on(), [2]);
        link.end_turn(&alice, turn(2));
        assert_eq!(going_on(), [0_u128; 0], "before the next report says so");
        reports("two", 2, Some(1));
        link.forget(&alice);
        assert_eq!(
            going_on(),
            [1, 3],
            "what a run that was told to end takes, the next gives back"
        );
    }
}
