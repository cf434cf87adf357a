//! Runs the turn loop: feeds what happens to [`crate::turn::decide()`] and carries out what it answers.
//!
//! One task owns all state. The others (the poller, a turn, probes, the reading of the config file) only send it
//! notes. An idle harness is one pending poll: no timer is set, nothing is written.

mod drivers;
mod instructions;
mod latest;
mod login;
mod meter;
mod poller;
mod tally;
mod timers;
mod turn_task;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use shared::TurnId;
use shared::agent_api::{PollResponse, Report};
use shared::config::{AgentConfig, ConfigFile};
use shared::login::LoginState;
use shared::spec::ScriptRule;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::children::Children;
use crate::config::{self, LoadError};
use crate::control::{self, Said};
use crate::driver::{Driver, ServerInTurn, program};
use crate::events::{Events, Feed};
use crate::host_client::HostClient;
use crate::lock::{self, LockError};
use crate::mcp_probe::{Probed, Probes};
use crate::relay;
use crate::turn::{Action, Event, InForce, Purpose, State, decide};
use drivers::Drivers;
use latest::Latest;
use login::Logins;
use timers::Timers;
use turn_task::TurnTask;

/// The longest error text in a report.
const MAX_ERROR: usize = 2000;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent API's socket.
    pub socket: Utf8PathBuf,
    /// The folder that holds `agent.json`; the daemon writes it.
    pub config: Utf8PathBuf,
    /// The agent's own folder.
    pub state: Utf8PathBuf,
    /// The folder of the sockets that lead out, where there is one.
    pub egress: Utf8PathBuf,
    /// Rules for the `scripted` driver instead of those in the config.
    pub script: Option<Utf8PathBuf>,
    /// How long a minute is, of `maxTurnMinutes` and of pauses after refusals; shorter in tests.
    pub minute: Duration,
    /// What the drivers need to know that run a program of their own.
    pub programs: program::Settings,
}

/// Why the harness cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state folder is not free.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The script is not usable.
    #[error("the script given on the command line cannot be used")]
    Script(#[source] LoadError),
    /// The HTTP client cannot be set up.
    #[error("cannot set up the client of the agent API")]
    Client(#[source] reqwest::Error),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
}

/// What other tasks tell the loop.
#[derive(Debug)]
enum Note {
    /// The config file was read; and why its driver cannot run a turn, if so.
    File(Box<Result<(ConfigFile, Option<String>), LoadError>>),
    /// The login was looked at.
    Login(u64),
    /// A login that the operator asked for goes on.
    LogsIn(LoginState),
    /// The daemon answered a poll.
    Answer(PollResponse),
    /// A turn goes on.
    Turn(Event),
    /// What a turn found of the declared MCP servers.
    Servers(BTreeMap<String, ServerInTurn>),
}

/// Runs until told to end; returns the exit status. Programs are started through `children`.
///
/// # Errors
/// When it cannot even begin. Whatever happens later is reported to the daemon instead.
pub async fn serve(mut settings: Settings, children: Children) -> Result<u8, ServeError> {
    // First of all: as PID 1 the harness does not even get a signal that it has no handler for.
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let _lock = lock::acquire(&settings.state)?;
    // Behind the lock: what an earlier harness left at the path is replaced.
    let mut said = listen(&settings.state);
    let rules = match &settings.script {
        Some(path) => Some(Arc::from(config::load_script(path).map_err(ServeError::Script)?)),
        None => None,
    };
    let client = Arc::new(HostClient::new(&settings.socket).map_err(ServeError::Client)?);
    let (notes, mut incoming) = mpsc::unbounded_channel();
    let (tell_lease, told_lease) = watch::channel(None);
    settings.programs.ways = relay::open(&settings.egress).await;
    let (probes, mut probed) = Probes::new(
        children.clone(),
        settings.state.clone(),
        settings.programs.secrets.clone(),
        settings.programs.ways,
    );
    let mut harness = Loop::new(
        settings,
        rules,
        children,
        Arc::clone(&client),
        notes.clone(),
        probes,
        told_lease,
    );
    let mut events = harness.start_events();
    tokio::spawn(poller::poll(
        client,
        harness.reports.subscribe(),
        notes,
        tell_lease,
    ));

    tracing::info!(version = env!("CARGO_PKG_VERSION"), "harness started");
    harness.run(Action::Load);
    loop {
        if let Some(status) = harness.exit {
            events.end().await;
            tracing::info!(status, "harness ends");
            return Ok(status);
        }
        // All arms are cancel-safe: channels, signals, and a point in time.
        tokio::select! {
            Some(note) = incoming.recv() => harness.noted(note),
            Some(said) = said.recv() => harness.said(said),
            Some(result) = probed.recv() => harness.probed(result),
            fault = events.fault() => harness.not_kept(fault),
            _ = terminate.recv() => harness.happened(Event::StopAsked),
            _ = interrupt.recv() => harness.happened(Event::StopAsked),
            timer = harness.timers.next() => harness.happened(Event::Elapsed(timer)),
        }
    }
}

/// What the MCP servers of turns say; nothing when they cannot be listened to. Other drivers do without.
fn listen(state: &Utf8Path) -> mpsc::Receiver<Said> {
    control::listen(&state.join(control::SOCKET)).unwrap_or_else(|error| {
        let error = crate::error_chain(&error);
        tracing::error!(
            error,
            "turns cannot tell what they receive: messages will be delivered again"
        );
        mpsc::channel(1).1
    })
}

struct Loop {
    settings: Settings,
    state: State,
    exit: Option<u8>,
    timers: Timers,
    reports: watch::Sender<Report>,
    notes: mpsc::UnboundedSender<Note>,
    client: Arc<HostClient>,
    probes: Probes,
    drivers: Drivers,
    /// The config in force.
    config: Option<Arc<AgentConfig>>,
    latest: Latest,
    /// The lease that the daemon was told of.
    told_lease: watch::Receiver<Option<TurnId>>,
    /// The login when it was found wanting.
    login: Option<u64>,
    /// Where turns tell what happens in them.
    feed: Feed,
    /// Why that is not kept.
    events_error: Option<String>,
    /// The login that the operator asks for.
    logins: Logins,
}

impl Loop {
    fn new(
        settings: Settings,
        rules: Option<Arc<[ScriptRule]>>,
        children: Children,
        client: Arc<HostClient>,
        notes: mpsc::UnboundedSender<Note>,
        probes: Probes,
        told_lease: watch::Receiver<Option<TurnId>>,
    ) -> Self {
        let drivers = Drivers::new(&settings, rules, &client, &children);
        let state = State::starting();
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: crate::ids::run_id(),
            seq: 0,
            lease: None,
            config: None,
            config_error: None,
            turn_error: None,
            events_error: None,
            instructed: 0,
            model: None,
            turn: state.turn_state(),
            mcp: BTreeMap::new(),
            login: None,
        };
        Self {
            timers: Timers::new(settings.minute),
            settings,
            state,
            exit: None,
            reports: watch::Sender::new(report),
            logins: Logins::new(notes.clone()),
            notes,
            drivers,
            client,
            probes,
            config: None,
            latest: Latest::none(),
            told_lease,
            login: None,
            feed: Feed::default(),
            events_error: None,
        }
    }

    fn noted(&mut self, note: Note) {
        match note {
            Note::Answer(mut answer) => {
                // It is no news for the turn loop, which has no use for a code.
                if let Some(order) = answer.login.take() {
                    self.logins.heed(order, self.driver().zip(self.config.clone()));
                }
                for instruction in std::mem::take(&mut answer.instructions) {
                    let instructed = instructions::understood(&instruction, self.running());
                    self.happened(Event::Instructed(instructed));
                }
                self.happened(Event::Polled(answer));
            }
            Note::Turn(event) => self.happened(event),
            Note::Login(login) => self.login_seen(login),
            Note::Servers(found) => {
                self.probes.note_turn(found);
                self.report();
            }
            Note::LogsIn(login) => self.login_told(login),
            Note::File(file) => {
                let event = match *file {
                    Ok((file, unusable)) => self.put_in_force(file, unusable),
                    Err(error) => self.not_loaded(&error),
                };
                self.happened(event);
            }
        }
    }

    /// Takes in what an MCP server of a turn says; it may be one of a turn that is over.
    fn said(&mut self, said: Said) {
        let runs = |turn: TurnId| self.running() == Some(turn);
        match said {
            Said::Received {
                turn,
                batch,
                messages,
            } if runs(turn) => {
                self.latest.received(batch);
                self.happened(Event::TakenUp(messages));
            }
            Said::Waiting { turn, waits } if runs(turn) => self.latest.waits(waits),
            Said::Nap {
                until,
                wake_on_message,
            } => {
                let length = crate::clock::until(until);
                self.happened(Event::Nap {
                    length,
                    wake_on_message,
                });
            }
            Said::Received { turn, .. } | Said::Waiting { turn, .. } => {
                tracing::debug!(%turn, "a turn that is over says something");
            }
        }
    }

    /// The first look after a turn was refused says what there was; another is a reason to try again.
    fn login_seen(&mut self, login: u64) {
        if *self.login.get_or_insert(login) != login {
            tracing::info!("the login has changed");
            self.login = None;
            self.happened(Event::LoginChanged);
        }
    }

    fn login_told(&mut self, login: LoginState) {
        if self.logins.told(login) {
            self.run(Action::CheckLogin);
        }
        self.report();
    }

    fn not_loaded(&self, error: &LoadError) -> Event {
        let error = crate::tame(&crate::error_chain(error), MAX_ERROR);
        if self.state.load_error.as_ref() != Some(&error) {
            tracing::error!(error, "config not loaded");
        }
        Event::LoadFailed(error)
    }

    fn put_in_force(&mut self, file: ConfigFile, unusable: Option<String>) -> Event {
        let ConfigFile { digest, config } = file;
        let known = self.state.config.as_ref().map(|known| &known.digest);
        if known != Some(&digest) {
            tracing::info!(digest = digest.short(), agent = %config.agent, "config loaded");
        }
        let in_force = InForce {
            max_turn: self
                .settings
                .minute
                .saturating_mul(config.max_turn_minutes.max(1)),
            unusable: unusable.map(|why| crate::tame(&why, MAX_ERROR)),
            digest,
        };
        let config = Arc::new(config);
        self.probes.declare(&config);
        self.config = Some(config);
        Event::Loaded(in_force)
    }

    fn probed(&mut self, result: Probed) {
        self.probes.note(result);
        self.report();
    }

    /// Begins to keep and stream what turns tell.
    fn start_events(&self) -> Events {
        let run_id = self.reports.borrow().run_id.clone();
        let client = Arc::clone(&self.client);
        Events::start(self.feed.clone(), &self.settings.state, client, run_id)
    }

    fn not_kept(&mut self, why: Option<String>) {
        self.events_error = why.map(|why| crate::tame(&why, MAX_ERROR));
        self.report();
    }

    fn happened(&mut self, event: Event) {
        tracing::trace!(?event, "event");
        let state = std::mem::replace(&mut self.state, State::starting());
        let (state, actions) = decide(state, event);
        self.state = state;
        for action in actions {
            self.run(action);
        }
        self.report();
    }

    fn run(&mut self, action: Action) {
        tracing::trace!(?action, "action");
        match action {
            Action::Load => {
                let (folder, drivers) = (self.settings.config.clone(), self.drivers.clone());
                let secrets = self.settings.programs.secrets.clone();
                self.look(move || {
                    Note::File(Box::new(config::load(&folder).map(|file| {
                        let unusable = drivers.prepare(&file.config.driver);
                        let unusable = unusable.or_else(|| secrets.unusable(&file.config));
                        (file, unusable)
                    })))
                });
            }
            Action::CheckLogin => {
                if let Some(driver) = self.driver() {
                    self.look(move || Note::Login(driver.login()));
                }
            }
            Action::StartTurn => self.start_turn(Purpose::Messages),
            Action::Compact => self.start_turn(Purpose::Compaction),
            Action::Interrupt(why) => self.latest.interrupt(why),
            Action::Set(timer, length) => self.timers.set(timer, length),
            Action::Clear(timer) => self.timers.clear(timer),
            Action::Exit(status) => self.exit = Some(status),
        }
    }

    /// Looks at something that may block, and notes what is seen.
    fn look(&self, what: impl FnOnce() -> Note + Send + 'static) {
        let notes = self.notes.clone();
        tokio::task::spawn_blocking(move || {
            if notes.send(what()).is_err() {
                tracing::debug!("the loop has ended before something was looked at");
            }
        });
    }

    fn driver(&self) -> Option<Arc<dyn Driver>> {
        let config = self.config.as_ref()?;
        Some(Arc::clone(self.drivers.of(config.driver.kind)))
    }

    /// The running turn that has messages, from before the first is leased until the daemon has settled the last.
    fn running(&self) -> Option<TurnId> {
        self.latest.lease.filter(|_| self.state.is_in_turn())
    }

    fn start_turn(&mut self, purpose: Purpose) {
        let Some(mut config) = self.config.clone() else {
            return;
        };
        if let Some(model) = self.state.announced.model.clone() {
            // The file is what was deployed; the operator's word goes before it and is gone with it.
            Arc::make_mut(&mut config).driver.model = Some(model);
        }
        let id = crate::ids::turn_id();
        let (latest, signals) = Latest::begin(id, purpose, config.driver.model.clone());
        self.latest = latest;
        self.login = None;
        let task = TurnTask {
            id,
            purpose,
            conversation: self.state.announced.conversation,
            offered: self.probes.offered(),
            client: Arc::clone(&self.client),
            driver: Arc::clone(self.drivers.of(config.driver.kind)),
            config,
            notes: self.notes.clone(),
            feed: self.feed.clone(),
            state: self.settings.state.clone(),
            told_lease: self.told_lease.clone(),
            signals,
        };
        tokio::spawn(task.run());
    }

    /// Hands the poller a new report when there is something new in it.
    fn report(&self) {
        let (turn, mcp) = (self.state.turn_state(), self.probes.states());
        let config = self.state.config.as_ref().map(|config| config.digest.clone());
        let login = self.logins.state();
        let config_error = self.state.config_error().map(str::to_owned);
        let lease = self.running();
        let instructed = self.state.instructed();
        let turn_error = self.state.turn_error.as_deref();
        let turn_error = turn_error.map(|error| crate::tame(error, MAX_ERROR));
        self.reports.send_if_modified(|report| {
            let new = Report {
                version: report.version.clone(),
                run_id: report.run_id.clone(),
                seq: report.seq,
                lease,
                config,
                config_error,
                turn_error,
                events_error: self.events_error.clone(),
                instructed,
                model: self.latest.model.clone(),
                turn,
                mcp,
                login,
            };
            let modified = *report != new;
            *report = Report {
                seq: report.seq + u64::from(modified),
                ..new
            };
            modified
        });
    }
}
