//! The run state: folders written, process started, stopped or restarted, harness told.

use jiff::Timestamp;
use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateClass, GateView};
use shared::plan::WaitingOn;
use shared::spec::{AgentSpec, Drain, RunState};

use super::after;
use super::agent::Planner;
use crate::gate;
use crate::host::{Announcement, ExitCause, Limits, Resources, UnitState};
use crate::model::records::{Deployed, Override};
use crate::model::step::{Action, Authority};

/// An agent that ended this often in a row, over half an hour, has something that time alone does not mend.
const TRIPS_AFTER: u32 = 12;
/// From then on it is started once in this time, unless somebody asks for it.
const OPEN_SECS: i64 = 3_600;

/// An agent that has run this long has recovered: its failures are forgotten.
const RECOVERED_AFTER_SECS: i64 = 60;

impl Planner<'_> {
    /// Whether the agent should run: the operator's override, else the spec. One whose deployed system failed its
    /// probation must not, whatever they say.
    pub(super) fn wanted_run(&self, spec: &AgentSpec) -> RunState {
        if self.halted().is_some() {
            return RunState::Stopped;
        }
        self.inputs.ledger.overrides.wanted_run(spec.run, self.inputs.now)
    }

    /// Why the deployed system must not run.
    fn halted(&self) -> Option<&str> {
        let ledger = self.inputs.ledger;
        let deployed = ledger.record.deployed.as_ref()?;
        ledger
            .quarantine
            .get(&deployed.output.system)
            .map(|quarantine| quarantine.reason.as_str())
    }

    /// The order that holds about the run state, if there is one.
    fn run_override(&self, spec: &AgentSpec) -> Option<&Override<RunState>> {
        self.inputs.ledger.overrides.run_at(spec.run, self.inputs.now)
    }

    /// A run that ended unasked and was not noted yet.
    fn new_failure(&self) -> Option<(Timestamp, &ExitCause)> {
        match &self.inputs.inventory.unit {
            Ok(UnitState::Exited { at, cause, .. }) if *cause != ExitCause::Clean => {
                // One that was noted in the future was noted before the clock was set back: it says nothing about later ends.
                let noted = self
                    .inputs
                    .ledger
                    .failures
                    .last_at
                    .is_some_and(|last| last == *at || (*at < last && last <= self.inputs.now));
                (!noted).then_some((*at, cause))
            }
            _ => None,
        }
    }

    /// Processes killed for want of memory of which nobody was told. Told is the first, and then each time that their
    /// number has doubled: an agent that always wants too much must not keep anybody busy.
    fn new_kills(&self) -> Option<(String, u64)> {
        let Ok(UnitState::Running { run, resources, .. }) = &self.inputs.inventory.unit else {
            return None;
        };
        let kills = resources.oom_kills?;
        let told = self.inputs.ledger.record.out_of_memory.as_ref();
        let told = told.filter(|told| told.run == *run).map_or(0, |told| told.kills);
        (kills.checked_ilog2() > told.checked_ilog2()).then(|| (run.clone(), kills))
    }

    /// The deployed system's files are in place.
    pub(super) fn files_are_written(&self, deployed: &Deployed) -> bool {
        self.inputs.inventory.folders.as_ref().is_ok_and(|folders| {
            folders.toplevel.as_ref() == Some(&deployed.output.toplevel)
                && folders.config.as_ref() == Some(&deployed.output.config_digest)
        })
    }

    /// Writes the deployed system's files.
    pub(super) fn files(&mut self) -> Result<(), NotCanonical> {
        let Some(deployed) = &self.inputs.ledger.record.deployed else {
            return Ok(());
        };
        match &self.inputs.inventory.folders {
            Err(error) => self.unknown("launch and config files", "folders", error),
            Ok(_) if self.files_are_written(deployed) => {}
            Ok(_) => {
                let present = self.inputs.inventory.systems.as_ref().ok();
                if present.and_then(|systems| systems.get(&deployed.output.system)) == Some(&false) {
                    let error = format!("the deployed system {} is gone", deployed.output.system);
                    let rebuilt = self
                        .plan
                        .steps
                        .iter()
                        .any(|s| matches!(s.step.action, Action::Build { .. }));
                    if !rebuilt {
                        self.stuck("launch and config files", error, None);
                    }
                    return Ok(());
                }
                self.free(Action::Activate {
                    system: deployed.output.system.clone(),
                    toplevel: deployed.output.toplevel.clone(),
                    config: deployed.output.config_digest.clone(),
                })?;
            }
        }
        Ok(())
    }

    /// Tells the harness of the written config.
    pub(super) fn announce(&mut self) {
        let Some(deployed) = &self.inputs.ledger.record.deployed else {
            return;
        };
        if !self.files_are_written(deployed) {
            return;
        }
        let paused = self
            .inputs
            .spec
            .is_some_and(|spec| self.wanted_run(spec) == RunState::Paused);
        let model = self.inputs.ledger.overrides.model_at(self.inputs.now);
        self.plan.announce = Some(Announcement {
            config: Some(deployed.output.config_digest.clone()),
            paused,
            model: model.map(|model| model.value.clone()),
        });
    }

    /// Starts, stops, restarts.
    pub(super) fn run(&mut self, spec: &AgentSpec) -> Result<(), NotCanonical> {
        let run_until = self.run_override(spec).and_then(|o| o.until);
        let model_until = self
            .inputs
            .ledger
            .overrides
            .model_at(self.inputs.now)
            .and_then(|o| o.until);
        for until in [run_until, model_until].into_iter().flatten() {
            self.plan.wake(until);
        }
        if let Some((at, cause)) = self.new_failure() {
            let (what, out_of_memory) = (cause.to_string(), *cause == ExitCause::OutOfMemory);
            self.free(Action::NoteFailure {
                at,
                what,
                out_of_memory,
            })?;
            return Ok(());
        }
        if let Some((run, kills)) = self.new_kills() {
            self.free(Action::NoteOutOfMemory { run, kills })?;
        }
        if let Some(why) = self.halted() {
            let because = if self.inputs.ledger.record.last_good.is_some() {
                "and the one before may do more than the spec allows"
            } else {
                "and there is none before it"
            };
            let error = format!("its system failed its probation, {because}: {why}");
            let hint = format!("change the spec, or run: hive retry {}", self.name());
            self.stuck("running", error, Some(hint));
        }
        let wanted = self.wanted_run(spec);
        let deployed = self.inputs.ledger.record.deployed.as_ref();
        self.announce();
        match (&self.inputs.inventory.unit, deployed) {
            (Err(error), _) => self.unknown("the run state", "runtime", error),
            (Ok(UnitState::Foreign { what }), _) => self.foreign(what),
            (Ok(UnitState::Running { .. }), None)
                if self.inputs.ledger.record.adopts() && wanted != RunState::Stopped =>
            {
                let first =
                    "what main holds is built and deployed, which says whether it runs that".to_owned();
                self.plan
                    .wait("adopting what runs", WaitingOn::Dependency { first }, None);
            }
            (Ok(UnitState::Running { run, .. }), None) => self.stop(spec, run)?,
            (Ok(UnitState::Running { run, .. }), Some(_)) if wanted == RunState::Stopped => {
                self.stop(spec, run)?;
            }
            (
                Ok(UnitState::Running {
                    toplevel,
                    since,
                    run,
                    resources,
                }),
                Some(deployed),
            ) => {
                if toplevel == &deployed.output.toplevel {
                    self.limits(deployed, resources)?;
                }
                self.running(spec, deployed, toplevel == &deployed.output.toplevel, *since, run)?;
            }
            (Ok(UnitState::Absent | UnitState::Exited { .. }), Some(deployed))
                if wanted != RunState::Stopped =>
            {
                self.start(spec, deployed)?;
            }
            (Ok(UnitState::Absent | UnitState::Exited { .. }), _) => {}
        }
        Ok(())
    }

    fn stop(&mut self, spec: &AgentSpec, run: &str) -> Result<(), NotCanonical> {
        let action = Action::Stop { run: run.to_owned() };
        if let (Some(_), Some(deployed)) = (self.halted(), &self.inputs.ledger.record.deployed) {
            // Its probation is over, and the gate that allowed the deployment allowed its end.
            return self.step(action, Authority::Under(deployed.gate), GateView::default());
        }
        if self.waits_for_turn(spec, "stopping", self.stop_wanted_since(spec)) {
            return Ok(());
        }
        if self.run_override(spec).is_some() {
            // The operator's own command is the decision, and a manager's order was decided about.
            return self.step(action, Authority::Free, GateView::default());
        }
        self.gated(action, GateClass::Stop, Asker::Spec)
    }

    fn stop_wanted_since(&self, spec: &AgentSpec) -> Timestamp {
        self.run_override(spec)
            .map(|o| o.since)
            // The spec does not say since when: the turn that is under way gets its whole time.
            .or_else(|| self.inputs.inventory.harness.as_ref().map(|h| h.at))
            .unwrap_or(self.inputs.now)
    }

    fn start(&mut self, spec: &AgentSpec, deployed: &Deployed) -> Result<(), NotCanonical> {
        if !self.files_are_written(deployed) {
            return Ok(());
        }
        let failures = &self.inputs.ledger.failures;
        if let Some(last) = failures.last_at.filter(|_| failures.count > 0) {
            // Every agent has its own spread, so that a host that comes back does not start all at once.
            let spread = f64::from(u32::from(self.uid().0.as_bytes()[15])) / 255.0;
            let tripped = failures.count >= TRIPS_AFTER;
            let until = match tripped {
                true => after(last, OPEN_SECS),
                false => gate::backoff(failures.count, spread, last),
            };
            if last <= self.inputs.now && self.inputs.now < until {
                let on = match tripped {
                    true => WaitingOn::Breaker {
                        until,
                        why: format!(
                            "it ended {} times in a row, the last time because it {}",
                            failures.count, failures.last
                        ),
                    },
                    false => WaitingOn::Backoff {
                        until,
                        attempts: failures.count,
                        error: failures.last.clone(),
                    },
                };
                let hint = Some(format!("hive retry {}", self.name()));
                self.plan.wait("starting", on, hint);
                return Ok(());
            }
        }
        let action = Action::Start {
            toplevel: deployed.output.toplevel.clone(),
        };
        if self.run_override(spec).is_some() {
            return self.step(action, Authority::Free, GateView::default());
        }
        self.gated(action, GateClass::Start, Asker::Spec)
    }

    fn running(
        &mut self,
        spec: &AgentSpec,
        deployed: &Deployed,
        same_toplevel: bool,
        since: Timestamp,
        run: &str,
    ) -> Result<(), NotCanonical> {
        let asked = self
            .inputs
            .ledger
            .record
            .restart_before
            .filter(|before| since < *before);
        if !same_toplevel || asked.is_some() {
            if !self.files_are_written(deployed) {
                return Ok(());
            }
            let wanted_since = asked.unwrap_or(deployed.at);
            if self.waits_for_turn(spec, "restarting", wanted_since) {
                return Ok(());
            }
            let toplevel = deployed.output.toplevel.clone();
            let authority = if asked.is_some() {
                Authority::Free
            } else {
                Authority::Under(deployed.gate)
            };
            let action = Action::Restart {
                toplevel,
                run: run.to_owned(),
            };
            return self.step(action, authority, GateView::default());
        }
        if self.inputs.ledger.failures.count > 0 && self.inputs.inventory.harness.is_some() {
            let recovered = after(since, RECOVERED_AFTER_SECS);
            if self.inputs.now >= recovered {
                self.free(Action::ClearFailures)?;
            } else {
                self.plan.wake(recovered);
            }
        }
        if self.inputs.ledger.probation.is_none() {
            self.await_report(deployed);
        }
        Ok(())
    }

    /// Limits that somebody changed underneath the run are put back; it goes on meanwhile.
    fn limits(&mut self, deployed: &Deployed, resources: &Resources) -> Result<(), NotCanonical> {
        let declared = &deployed.output.launch.limits;
        // What cannot be understood was never started from.
        let (Some(held), Ok(wanted)) = (resources.limits, Limits::of(declared)) else {
            return Ok(());
        };
        if held == wanted {
            return Ok(());
        }
        self.free(Action::Limit {
            limits: declared.clone(),
            found: held.differences(&wanted),
        })
    }

    /// Outside a trial, a harness that does not run the written config is waited for, and shown.
    fn await_report(&mut self, deployed: &Deployed) {
        let wanted = &deployed.output.config_digest;
        match &self.inputs.inventory.harness {
            None => {
                let on = WaitingOn::StaleInventory {
                    source: "harness".to_owned(),
                    error: None,
                };
                self.plan
                    .wait("knowing what the agent runs (no report yet)", on, None);
            }
            Some(harness) if harness.report.config.as_ref() != Some(wanted) => {
                let first = "the harness loads the written config at its turn boundary".to_owned();
                self.plan
                    .wait("the config", WaitingOn::Dependency { first }, None);
            }
            Some(_) => {}
        }
    }

    /// Whether an interruption has to wait for the end of the turn; if so, the wait is noted.
    fn waits_for_turn(&mut self, spec: &AgentSpec, what: &str, wanted_since: Timestamp) -> bool {
        let busy = self
            .inputs
            .inventory
            .harness
            .as_ref()
            .is_some_and(|h| h.is_busy());
        if !busy || spec.drain == Drain::Immediate {
            return false;
        }
        let deadline = after(wanted_since, i64::from(spec.max_turn_minutes) * 60);
        if self.inputs.now >= deadline {
            return false;
        }
        self.plan.wait(what, WaitingOn::TurnBoundary { deadline }, None);
        true
    }
}
