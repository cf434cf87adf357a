//! systemd's manager over D-Bus: what is asked of it, and what it says unasked.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use shared::AgentName;
use zbus::message::Type;
use zbus::names::InterfaceName;

use zbus::{Connection, MatchRule, MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

use super::limits::Limits;
use super::names;
use super::verdict::Unit;
use crate::host::HostError;

const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Signals that may wait; what does not fit makes the bus wait, and nothing is lost.
const QUEUE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
const MANAGER: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// One line of `ListUnitsByPatterns`: name, description, load, active and sub state, followed unit, object, job id, job
/// type, job object.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(in crate::host) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<Listed>>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn ref_unit(&self, name: &str) -> zbus::Result<()>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[(&str, Variant<'_>)],
    ) -> zbus::Result<()>;
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// What the bus says unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something about an agent's unit changed.
    Unit(AgentName),
    /// systemd read its files again: nothing that is known counts.
    Everything,
}

/// A unit of the list: enough to see whether what is known of it still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) agent: AgentName,
    pub(super) load: String,
    pub(super) active: String,
    pub(super) sub: String,
}

/// A connection to systemd.
#[derive(Debug, Clone)]
pub(in crate::host) struct Bus {
    connection: Connection,
    manager: ManagerProxy<'static>,
}

/// How a unit that runs once ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Outcome {
    /// `Result`, systemd's word for it: `success`, `exit-code`, `oom-kill` and so on.
    pub(in crate::host) result: String,
    /// `ExecMainCode`: whether its process exited (1) or was ended by a signal (2, 3).
    pub(in crate::host) code: i32,
    /// `ExecMainStatus`: its exit status, or the signal.
    pub(in crate::host) status: i32,
}

fn failed(what: &str) -> impl FnOnce(zbus::Error) -> HostError {
    let what = what.to_owned();
    move |error| match &error {
        zbus::Error::MethodError(name, message, _) => {
            let message = message.clone().unwrap_or_else(|| name.to_string());
            if name.as_str() == "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
                || name.as_str() == "org.freedesktop.DBus.Error.AccessDenied"
            {
                let why = "systemd does not let this user do that: install hyperhive's polkit rule (hive units --help)";
                return HostError::failed(what, format!("{message}; {why}"));
            }
            HostError::failed(what, message)
        }
        _ => HostError::failed(
            what,
            format!("systemd does not answer on the system bus: {error}"),
        ),
    }
}

impl Bus {
    /// Connects, and asks to be told of changes.
    ///
    /// # Errors
    /// When there is no system bus, or no systemd on it.
    pub(in crate::host) async fn connect() -> Result<Self, HostError> {
        let connection = Connection::system().await.map_err(failed("the system bus"))?;
        let manager = ManagerProxy::new(&connection).await.map_err(failed("systemd"))?;
        manager.subscribe().await.map_err(failed("systemd"))?;
        Ok(Self { connection, manager })
    }

    /// Everything that the bus says about agents' units from now on.
    pub(super) async fn listen(
        &self,
    ) -> Result<impl futures_util::Stream<Item = Heard> + Send + 'static + use<>, HostError> {
        let failed = || failed("listening to systemd");
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .path_namespace(MANAGER)
            .build()
            .map_err(failed())?;
        let stream = MessageStream::for_match_rule(rule, &self.connection, Some(QUEUE))
            .await
            .map_err(failed())?;
        Ok(stream.filter_map(|message| std::future::ready(message.ok().and_then(|message| heard(&message)))))
    }

    /// The agents' units that systemd has loaded.
    pub(super) async fn list(&self) -> Result<Vec<Line>, HostError> {
        let listed = self.manager.list_units_by_patterns(&[], &[names::PATTERN]).await;
        let listed = listed.map_err(failed("listing the agents' units"))?;
        let line = |(name, _, load, active, sub, ..): Listed| {
            let agent = names::agent_of(&name)?;
            Some(Line {
                agent,
                load,
                active,
                sub,
            })
        };
        Ok(listed.into_iter().filter_map(line).collect())
    }

    /// The properties of an agent's unit. A unit that is not loaded is loaded for it.
    pub(super) async fn unit(&self, agent: &AgentName) -> Result<Unit, HostError> {
        let what = format!("the unit of {agent}");
        let path = self
            .manager
            .load_unit(&names::unit(agent))
            .await
            .map_err(failed(&what))?;
        let unit = self.properties(&path, UNIT, &what).await?;
        let service = self.properties(&path, SERVICE, &what).await?;
        Ok(Unit {
            load: text(&unit, "LoadState"),
            active: text(&unit, "ActiveState"),
            fragment: text(&unit, "FragmentPath"),
            invocation: hex(&unit, "InvocationID"),
            active_since: during(&unit),
            began: time(&unit, "InactiveExitTimestamp"),
            ended: time(&unit, "InactiveEnterTimestamp"),
            result: text(&service, "Result"),
            exit_code: number(&service, "ExecMainCode"),
            exit_status: number(&service, "ExecMainStatus"),
            limits: limits(&service),
            cgroup: text(&service, "ControlGroup"),
        })
    }

    async fn properties(
        &self,
        path: &ObjectPath<'_>,
        interface: &'static str,
        what: &str,
    ) -> Result<HashMap<String, OwnedVariant>, HostError> {
        let proxy = zbus::fdo::PropertiesProxy::builder(&self.connection)
            .destination(SYSTEMD)
            .path(path.to_owned())
            .build()
            .await
            .map_err(failed(what))?;
        let interface = InterfaceName::from_static_str_unchecked(interface);
        proxy
            .get_all(interface)
            .await
            .map_err(|error| failed(what)(error.into()))
    }

    /// Sets the limits that hold from now on and for each later run, until the machine goes down.
    pub(super) async fn limit(&self, agent: &AgentName, limits: Limits) -> Result<(), HostError> {
        let properties = [
            ("MemoryMax", Variant::from(limits.memory)),
            ("CPUQuotaPerSecUSec", Variant::from(limits.cpu)),
            ("TasksMax", Variant::from(limits.tasks)),
        ];
        let set = self
            .manager
            .set_unit_properties(&names::unit(agent), true, &properties)
            .await;
        set.map_err(failed(&format!("the limits of {agent}")))
    }

    /// Starts the unit and waits until it is up or has failed. Returns systemd's word for how the job went.
    pub(super) async fn start(&self, agent: &AgentName) -> Result<String, HostError> {
        self.run(&names::unit(agent)).await
    }

    /// Starts a unit and waits until it is up, or, for one that runs once, until it is over.
    pub(super) async fn run(&self, unit: &str) -> Result<String, HostError> {
        self.job(unit, self.manager.start_unit(unit, "replace")).await
    }

    /// Runs a unit that runs once, to its end. A run that is under way, of whose end nobody knows any more, is ended first.
    pub(in crate::host) async fn once(&self, unit: &str) -> Result<Outcome, HostError> {
        let what = format!("the unit {unit}");
        let path = self.manager.load_unit(unit).await.map_err(failed(&what))?;
        let before = self.properties(&path, UNIT, &what).await?;
        let load = text(&before, "LoadState");
        if load != "loaded" {
            let why = format!("it is {load}: as root run hive units --install && systemctl daemon-reload");
            return Err(HostError::failed(what, why));
        }
        if !matches!(text(&before, "ActiveState").as_str(), "inactive" | "failed") {
            self.job(unit, self.manager.stop_unit(unit, "replace")).await?;
        }
        if self.run(unit).await? == "done" {
            return Ok(Outcome {
                result: "success".to_owned(),
                code: 0,
                status: 0,
            });
        }
        let ended = self.properties(&path, SERVICE, &what).await?;
        // Else it would stay listed as failed for ever.
        self.manager
            .reset_failed_unit(unit)
            .await
            .map_err(failed(&what))?;
        Ok(Outcome {
            result: text(&ended, "Result"),
            code: number(&ended, "ExecMainCode"),
            status: number(&ended, "ExecMainStatus"),
        })
    }

    /// Stops the unit and waits until it is gone.
    pub(super) async fn stop(&self, agent: &AgentName) -> Result<String, HostError> {
        let unit = names::unit(agent);
        self.job(&unit, self.manager.stop_unit(&unit, "replace")).await
    }

    async fn job(
        &self,
        unit: &str,
        asked: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<String, HostError> {
        let what = format!("the unit {unit}");
        // Before asking: the answer may come after the job's end.
        let mut removed = self.manager.receive_job_removed().await.map_err(failed(&what))?;
        let job = asked.await.map_err(failed(&what))?;
        while let Some(signal) = removed.next().await {
            let args = signal.args().map_err(failed(&what))?;
            if args.job == job {
                return Ok(args.result);
            }
        }
        Err(HostError::failed(
            what,
            "the system bus went away before the job's end",
        ))
    }

    /// Keeps what is known of a unit's end, until this connection ends.
    pub(super) async fn hold(&self, agent: &AgentName) -> Result<(), HostError> {
        let held = self.manager.ref_unit(&names::unit(agent)).await;
        held.map_err(failed(&format!("the unit of {agent}")))
    }

    /// Has systemd forget that the unit failed.
    pub(super) async fn forget_failure(&self, agent: &AgentName) -> Result<(), HostError> {
        match self.manager.reset_failed_unit(&names::unit(agent)).await {
            Err(zbus::Error::MethodError(name, ..))
                if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit" =>
            {
                Ok(())
            }
            other => other.map_err(failed(&format!("the unit of {agent}"))),
        }
    }
}

/// What a signal says.
fn heard(message: &zbus::Message) -> Option<Heard> {
    let header = message.header();
    let (path, member) = (header.path()?, header.member()?);
    match member.as_str() {
        "PropertiesChanged" => names::agent_of_object(path.as_str()).map(Heard::Unit),
        "UnitNew" | "UnitRemoved" => {
            let (unit, _): (String, OwnedObjectPath) = message.body().deserialize().ok()?;
            names::agent_of(&unit).map(Heard::Unit)
        }
        "JobRemoved" => {
            let (_, _, unit, _): (u32, OwnedObjectPath, String, String) =
                message.body().deserialize().ok()?;
            names::agent_of(&unit).map(Heard::Unit)
        }
        "Reloading" => Some(Heard::Everything),
        _ => None,
    }
}

fn text(properties: &HashMap<String, OwnedVariant>, name: &str) -> String {
    let value = properties
        .get(name)
        .and_then(|value| <&str>::try_from(&**value).ok());
    value.unwrap_or_default().to_owned()
}

fn number(properties: &HashMap<String, OwnedVariant>, name: &str) -> i32 {
    properties
        .get(name)
        .and_then(|value| i32::try_from(&**value).ok())
        .unwrap_or_default()
}

fn count(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<u64> {
    u64::try_from(&**properties.get(name)?).ok()
}

fn limits(service: &HashMap<String, OwnedVariant>) -> Option<Limits> {
    Some(Limits {
        memory: count(service, "MemoryMax")?,
        cpu: count(service, "CPUQuotaPerSecUSec")?,
        tasks: count(service, "TasksMax")?,
    })
}

/// Microseconds since 1970; 0 means never.
fn time(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<Timestamp> {
    let micros = count(properties, name)?;
    let micros = i64::try_from(micros).ok().filter(|micros| *micros > 0)?;
    Timestamp::from_microsecond(micros).ok()
}

/// When the unit became active in its present or last run; one that never got so far has the time of an earlier run.
fn during(unit: &HashMap<String, OwnedVariant>) -> Option<Timestamp> {
    let entered = time(unit, "ActiveEnterTimestamp")?;
    let began = time(unit, "InactiveExitTimestamp")?;
    (entered >= began).then_some(entered)
}

fn hex(properties: &HashMap<String, OwnedVariant>, name: &str) -> String {
    let Some(Variant::Array(bytes)) = properties.get(name).map(|value| &**value) else {
        return String::new();
    };
    let digits = bytes.iter().filter_map(|byte| u8::try_from(byte).ok());
    digits.map(|byte| format!("{byte:02x}")).collect()
}
