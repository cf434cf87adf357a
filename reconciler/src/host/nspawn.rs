//! The nspawn runtime: each agent is a container under a systemd unit of its own.
//!
//! The unit is an instance of our template, whose command is [`launch`]. The daemon, which is not root, starts and stops it
//! over D-Bus and learns of every change by signal; nothing is polled, and no program is started. What runs is
//! said by two witnesses: systemd has the run's id, and the launcher noted which launch that run was made from.
//!
//! What always holds: an agent runs at most once, because a unit does; containers outlive the daemon, because they are not
//! below it; what somebody else put in the unit's place is left alone and shown.

mod bus;
mod cgroup;
mod command;
mod journal;
pub mod launch;
mod limits;
mod machine;
mod names;
pub(in crate::host) mod programs;
mod record;
mod told;
mod tree;
pub mod units;
mod verdict;
mod view;
pub mod wipe;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8Path;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use shared::spec::{LimitsSpec, RuntimeKind};
use shared::{AgentName, AgentUid};

pub(in crate::host) use self::bus::{Bus, ManagerProxy, Outcome};
use self::bus::{Heard, Line};
use self::cgroup::Cgroups;
pub use self::limits::Limits;
pub use self::machine::machine;
use self::record::{EndRecord, LaunchFailure, LaunchRecord};
use self::verdict::{Around, Kills, Unit};
use self::view::{Facts, View};
use super::blocking::blocking;
use super::layout::Layout;
use super::process::Notify;
use super::{Clock, HostError, LaunchFile, Lines, Output, Runtime, UnitState};

/// Where containers get their trees, unless told otherwise.
pub const ROOTS: &str = "/var/lib/hyperhive-roots";
/// Where evaluators have their jobs, in a folder `jobs` of the daemon's; itself it is root's.
pub const EVALUATIONS: &str = "/run/hyperhive-eval";
/// Where the egress service has its sockets, unless told otherwise.
pub const EGRESS: &str = "/run/hyperhive-egress";

/// Where the launcher notes what runs.
fn records() -> &'static Utf8Path {
    Utf8Path::new(record::FOLDER)
}

/// What the nspawn runtime is made from.
#[derive(Clone)]
pub struct NspawnOptions {
    /// Where everything lies.
    pub layout: Layout,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Called when something about an agent's unit changed.
    pub notify: Notify,
}

/// How long a list of all units counts, unless a signal says otherwise: passes over many agents share one.
const LIST_COUNTS_FOR: Duration = Duration::from_millis(500);
/// How long the daemon waits before it tries to reach the bus again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Runs agents as containers.
#[derive(Clone)]
pub struct NspawnRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    options: NspawnOptions,
    /// `None` while the system bus is away.
    bus: Mutex<Option<Bus>>,
    view: View,
    /// What becomes of limits is said by no signal of systemd's.
    cgroups: Arc<Cgroups>,
    /// One look at systemd at a time: whoever comes second has what the first one saw.
    looking: tokio::sync::Mutex<()>,
    /// Agents of whose units systemd was asked to remember the end.
    held: Mutex<BTreeSet<AgentName>>,
    /// What was seen of kills for want of memory.
    kills: Mutex<HashMap<AgentName, Kills>>,
    /// When runs whose end nobody saw were first seen to be over.
    first_seen: Mutex<HashMap<AgentName, (String, Timestamp)>>,
    /// Starts and stops of one agent come one after the other.
    turns: Mutex<HashMap<AgentName, Arc<tokio::sync::Mutex<()>>>>,
}

impl NspawnRuntime {
    /// A runtime on this machine's systemd. Starts nothing; what runs already is there.
    ///
    /// # Errors
    /// When there is no systemd to talk to.
    pub async fn new(options: NspawnOptions) -> Result<Self, HostError> {
        let bus = Bus::connect().await?;
        let heard = bus.listen().await?;
        let inner = Arc::new(Inner {
            options,
            bus: Mutex::new(Some(bus)),
            view: View::default(),
            cgroups: Arc::new(Cgroups::new()?),
            looking: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            kills: Mutex::default(),
            first_seen: Mutex::default(),
            turns: Mutex::default(),
        });
        tokio::spawn(listen(Arc::downgrade(&inner), heard.boxed()));
        tokio::spawn(cgroup::listen(Arc::clone(&inner.cgroups), Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    async fn observe_one(&self, agent: &AgentName) -> Result<UnitState, HostError> {
        let mut states = self.inner.observe(std::slice::from_ref(agent)).await?;
        Ok(states.remove(agent).unwrap_or(UnitState::Absent))
    }

    /// Waits until it is this caller's turn with the agent.
    async fn turn(&self, agent: &AgentName) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(locked(&self.inner.turns).entry(agent.clone()).or_default());
        turn.lock_owned().await
    }
}

/// Hears what the bus says until the runtime is gone. A bus that goes away is looked for again; until it is back nothing is
/// known, and afterwards nothing of what was known counts.
async fn listen(runtime: Weak<Inner>, mut heard: BoxStream<'static, Heard>) {
    loop {
        while let Some(heard) = heard.next().await {
            let Some(inner) = runtime.upgrade() else { return };
            match heard {
                Heard::Unit(agent) => {
                    inner.view.forget(&agent);
                    (inner.options.notify)(agent);
                }
                Heard::Everything => inner.view.forget_all(),
            }
        }
        tracing::error!("the system bus went away: nothing is known about containers until it is back");
        heard = loop {
            let Some(inner) = runtime.upgrade() else { return };
            *locked(&inner.bus) = None;
            locked(&inner.held).clear();
            inner.view.forget_all();
            drop(inner);
            tokio::time::sleep(RECONNECT_AFTER).await;
            let Ok(bus) = Bus::connect().await else { continue };
            let Ok(heard) = bus.listen().await else { continue };
            let Some(inner) = runtime.upgrade() else { return };
            *locked(&inner.bus) = Some(bus);
            inner.view.forget_all();
            tracing::info!("the system bus is back");
            break heard.boxed();
        };
    }
}

impl Inner {
    fn bus(&self) -> Result<Bus, HostError> {
        let bus = locked(&self.bus).clone();
        bus.ok_or_else(|| HostError::failed("the system bus", "it went away; it is looked for every second"))
    }

    async fn observe(&self, agents: &[AgentName]) -> Result<BTreeMap<AgentName, UnitState>, HostError> {
        let bus = self.bus()?;
        let _one = self.looking.lock().await;
        let lines = self.lines(&bus).await?;
        let mut states = BTreeMap::new();
        for agent in agents {
            let facts = self.facts(&bus, agent, lines.get(agent)).await?;
            if let Some(unit) = facts.unit.as_ref().filter(|unit| unit.is_up()) {
                self.hold(&bus, agent).await;
                self.count_kills(agent, unit).await;
            }
            states.insert(agent.clone(), self.state(agent, &facts));
        }
        Ok(states)
    }

    /// The units that systemd has loaded, asked for at most once in a while.
    async fn lines(&self, bus: &Bus) -> Result<Arc<BTreeMap<AgentName, Line>>, HostError> {
        let now = self.options.clock.steady();
        let stamp = match self.view.lines(now, LIST_COUNTS_FOR) {
            Ok(lines) => return Ok(lines),
            Err(stamp) => stamp,
        };
        let listed = bus.list().await?;
        let lines = listed
            .into_iter()
            .map(|line| (line.agent.clone(), line))
            .collect();
        Ok(self.view.keep_lines(stamp, now, lines))
    }

    async fn facts(
        &self,
        bus: &Bus,
        agent: &AgentName,
        line: Option<&Line>,
    ) -> Result<Arc<Facts>, HostError> {
        let stamp = match self.view.facts(agent, line) {
            Ok(facts) => return Ok(facts),
            Err(stamp) => stamp,
        };
        let unit = match line {
            Some(_) => Some(self.look(bus, agent).await?),
            None => None,
        };
        let (name, folder) = (agent.clone(), self.options.layout.launch(agent));
        let (record, told, end) = blocking(agent.as_str(), move || {
            let record = record::read::<LaunchRecord>(&record::record_file(records(), &name))?;
            let end = record::read::<EndRecord>(&record::end_file(records(), &name))?;
            Ok((record, told::read(&folder)?, end))
        })
        .await?;
        let facts = Facts {
            line: line.cloned(),
            unit,
            record,
            told,
            end,
        };
        Ok(self.view.keep_facts(stamp, agent, facts))
    }

    /// Looks how many processes of a run the kernel has killed for want of memory. It is a file of the kernel's, and under
    /// the first version of cgroups nobody says when it changes.
    async fn count_kills(&self, agent: &AgentName, unit: &Unit) {
        let count = match self.cgroups.oom_kills(agent, &unit.cgroup).await {
            Ok(Some(count)) => count,
            Ok(None) => return,
            Err(error) => {
                // Whether it runs is known all the same.
                tracing::debug!(%agent, error = error.chain(), "the kernel's count of kills cannot be read");
                return;
            }
        };
        let now = self.options.clock.now();
        let mut kills = locked(&self.kills);
        let seen = Kills::seen(kills.get(agent), &unit.invocation, count, now);
        kills.insert(agent.clone(), seen);
    }

    /// The properties of a unit. They are read after its cgroup is watched, so that no change of it is missed.
    async fn look(&self, bus: &Bus, agent: &AgentName) -> Result<Unit, HostError> {
        let unit = bus.unit(agent).await?;
        if unit.is_up() && self.cgroups.watch(agent, &unit.invocation, &unit.cgroup) {
            return bus.unit(agent).await;
        }
        Ok(unit)
    }

    fn state(&self, agent: &AgentName, facts: &Facts) -> UnitState {
        let Facts {
            unit,
            record,
            told,
            end,
            line: _,
        } = facts;
        let run = record.as_ref().map_or("", |record| record.invocation.as_str());
        let now = self.options.clock.now();
        let first_seen = {
            let mut seen = locked(&self.first_seen);
            match seen.get(agent).filter(|(of, _)| of == run) {
                Some((_, at)) => *at,
                None => {
                    seen.insert(agent.clone(), (run.to_owned(), now));
                    now
                }
            }
        };
        let kills = locked(&self.kills).get(agent).cloned();
        let around = Around {
            record: record.as_ref(),
            told: told.as_deref(),
            end: end.as_ref(),
            kills: kills.as_ref(),
            first_seen,
        };
        verdict::state(unit.as_ref(), around)
    }

    /// Has systemd remember how the unit ends, even when it ends well.
    async fn hold(&self, bus: &Bus, agent: &AgentName) {
        if locked(&self.held).contains(agent) {
            return;
        }
        match bus.hold(agent).await {
            Ok(()) => drop(locked(&self.held).insert(agent.clone())),
            // Then a container that switches itself off counts as one whose end nobody saw.
            Err(error) => tracing::debug!(agent = %agent, error = error.chain(), "the unit is not held"),
        }
    }

    /// Whether an agent could be started from this; its unit as it is, and the limits that it is to have.
    async fn check(&self, launch: &LaunchFile) -> Result<(Unit, Limits), HostError> {
        let agent = &launch.launch.agent;
        let limits = Limits::of(&launch.launch.limits)?;
        if agent.as_str().ends_with('-') {
            let why = "a container's host name cannot end in a dash: give the agent another name";
            return Err(HostError::refused(format!("the start of {agent}"), why));
        }
        let unit = self.bus()?.unit(agent).await?;
        if unit.is_missing() {
            let why = format!(
                "there is no unit {}: as root run hive units --install",
                names::TEMPLATE
            );
            return Err(HostError::failed(format!("the start of {agent}"), why));
        }
        if let Some(what) = unit.foreign() {
            return Err(HostError::failed(format!("the start of {agent}"), what));
        }
        if !unit.is_up() {
            machine::is_free(agent).await?;
        }
        let system = launch.launch.system.clone().ok_or_else(|| {
            let why = format!("no operating system is declared for its container: set agents.{agent}.system");
            HostError::refused(format!("the start of {agent}"), why)
        })?;
        let init = system.join("init");
        let found = blocking(agent.as_str(), move || {
            let found = init.symlink_metadata();
            found
                .map(drop)
                .map_err(HostError::io("find the guest's", init.as_str()))
        });
        found.await?;
        Ok((unit, limits))
    }

    async fn start(&self, launch: &LaunchFile) -> Result<(), HostError> {
        let agent = &launch.launch.agent;
        let (unit, limits) = self.check(launch).await?;
        let bus = self.bus()?;
        // systemd has polkit judge each of these, which takes longer than all else that is done here.
        if unit.limits != Some(limits) {
            bus.limit(agent, limits).await?;
        }
        if unit.has_failed() {
            bus.forget_failure(agent).await?;
        }
        let result = bus.start(agent).await;
        self.view.forget(agent);
        let result = result?;
        if result == "done" {
            self.hold(&bus, agent).await;
            return Ok(());
        }
        Err(self.why_not(&bus, agent, &result).await?)
    }

    /// Why a start failed: in the launcher's words, if it was the launcher.
    async fn why_not(&self, bus: &Bus, agent: &AgentName, result: &str) -> Result<HostError, HostError> {
        let unit = bus.unit(agent).await?;
        let name = agent.clone();
        let noted = blocking(agent.as_str(), move || {
            record::read::<LaunchFailure>(&record::failure_file(records(), &name))
        });
        let subject = format!("the container of {agent}");
        Ok(
            match noted.await?.filter(|noted| noted.invocation == unit.invocation) {
                Some(noted) if noted.refused => HostError::refused(subject, noted.message),
                Some(noted) => HostError::failed(subject, noted.message),
                None => HostError::failed(
                    subject,
                    format!(
                        "it did not come up ({result}, {}): hive logs {agent} has what it said",
                        unit.result
                    ),
                ),
            },
        )
    }

    /// Sets limits again, and looks whether they hold: what does not is not to be tried without end.
    async fn limit(&self, agent: &AgentName, declared: &LimitsSpec) -> Result<(), HostError> {
        let wanted = Limits::of(declared)?;
        let bus = self.bus()?;
        let set = bus.limit(agent, wanted).await;
        self.view.forget(agent);
        set?;
        match bus.unit(agent).await?.limits {
            Some(held) if held != wanted => Err(HostError::failed(
                format!("the limits of {agent}"),
                format!(
                    "systemd was told and does not keep them: {}",
                    held.differences(&wanted)
                ),
            )),
            _ => Ok(()),
        }
    }

    async fn stop(&self, agent: &AgentName) -> Result<(), HostError> {
        let bus = self.bus()?;
        let unit = bus.unit(agent).await?;
        if unit.is_missing() || !unit.is_up() {
            return Ok(());
        }
        if let Some(what) = unit.foreign() {
            return Err(HostError::refused(format!("the stop of {agent}"), what));
        }
        let (folder, run) = (self.options.layout.launch(agent), unit.invocation.clone());
        blocking(agent.as_str(), move || told::write(&folder, &run)).await?;
        let result = bus.stop(agent).await;
        self.view.forget(agent);
        match result?.as_str() {
            "done" => Ok(()),
            other => Err(HostError::failed(
                format!("the container of {agent}"),
                format!("it did not stop ({other}); it is tried again"),
            )),
        }
    }
}

#[async_trait]
impl Runtime for NspawnRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Nspawn
    }

    async fn observe(&self, agents: &[AgentName]) -> Result<BTreeMap<AgentName, UnitState>, HostError> {
        self.inner.observe(agents).await
    }

    async fn can_start(&self, launch: &LaunchFile) -> Result<(), HostError> {
        self.inner.check(launch).await.map(drop)
    }

    async fn start(&self, launch: &LaunchFile) -> Result<(), HostError> {
        let agent = &launch.launch.agent;
        let _turn = self.turn(agent).await;
        match self.observe_one(agent).await? {
            UnitState::Running { toplevel, .. } if toplevel == launch.digest => Ok(()),
            UnitState::Running { .. } => Err(HostError::failed(
                format!("the start of {agent}"),
                "it runs from another launch; it is stopped first",
            )),
            UnitState::Foreign { what } => Err(HostError::failed(format!("the start of {agent}"), what)),
            UnitState::Absent | UnitState::Exited { .. } => self.inner.start(launch).await,
        }
    }

    async fn stop(&self, agent: &AgentName) -> Result<(), HostError> {
        let _turn = self.turn(agent).await;
        self.inner.stop(agent).await
    }

    async fn limit(&self, agent: &AgentName, limits: &LimitsSpec) -> Result<(), HostError> {
        let _turn = self.turn(agent).await;
        self.inner.limit(agent, limits).await
    }

    async fn output(&self, agent: &AgentName, max: u64) -> Result<Output, HostError> {
        journal::tail(&names::unit(agent), max).await
    }

    async fn follow(&self, agent: &AgentName, lines: u32) -> Result<Lines, HostError> {
        journal::follow(&names::unit(agent), lines)
    }

    async fn wipe(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        let unit = names::purge_unit(agent, uid);
        match self.inner.bus()?.run(&unit).await?.as_str() {
            "done" => Ok(()),
            other => Err(HostError::failed(
                format!("what is left of {agent}"),
                format!("it was not deleted ({other}): journalctl -u {unit} says why"),
            )),
        }
    }

    fn unsandboxed(&self) -> Option<String> {
        None
    }
}

/// Locks a mutex whose data cannot be left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
