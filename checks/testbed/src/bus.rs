//! systemd and machined over D-Bus.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use zbus::proxy::CacheProperties;
use zbus::{Connection, DynamicType, OwnedObjectPath, Proxy, Type};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
const MACHINED: &str = "org.freedesktop.machine1";
const MACHINES: (&str, &str) = ("/org/freedesktop/machine1", "org.freedesktop.machine1.Manager");

/// The system bus, as root. One question at a time, each answered anew.
#[derive(Debug)]
pub(crate) struct Bus {
    runtime: Runtime,
    connection: Connection,
}

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`.
    pub(crate) active: String,
    /// `success`, `exit-code`, `signal`, `oom-kill`, `timeout`, `protocol`.
    pub(crate) result: String,
    /// The exit status of its latest main process, or the signal that ended it.
    pub(crate) status: i32,
    /// The identity of one start of it.
    pub(crate) invocation: String,
    /// Its main process; 0 for none.
    pub(crate) pid: u32,
    /// How often systemd has started it again by itself.
    pub(crate) restarts: u32,
    /// Its cgroup, from the root of the hierarchy.
    pub(crate) cgroup: String,
}

/// When the latest of these happened to a unit, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Times {
    /// It began to start.
    pub(crate) inactive_exit: f64,
    /// It was up.
    pub(crate) active_enter: f64,
    /// It was down.
    pub(crate) inactive_enter: f64,
}

impl Bus {
    /// Connects.
    pub(crate) fn connect() -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime of the bus")?;
        let connection = runtime
            .block_on(Connection::system())
            .context("connecting to the system bus")?;
        Ok(Self { runtime, connection })
    }

    async fn proxy<'a>(
        &'a self,
        service: &'a str,
        (path, interface): (&'a str, &'a str),
    ) -> zbus::Result<Proxy<'a>> {
        zbus::proxy::Builder::new(&self.connection)
            .destination(service)
            .path(path)
            .interface(interface)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    fn call<R>(
        &self,
        service: &str,
        object: (&str, &str),
        method: &str,
        body: &(impl Serialize + DynamicType + Debug),
    ) -> Result<R>
    where
        R: DeserializeOwned + Type,
    {
        self.runtime
            .block_on(async { self.proxy(service, object).await?.call(method, body).await })
            .with_context(|| format!("{method} {body:?}"))
    }

    fn property<T>(&self, service: &str, object: (&str, &str), name: &str) -> Result<T>
    where
        T: DeserializeOwned + Type,
    {
        self.runtime
            .block_on(async { self.proxy(service, object).await?.get_property(name).await })
            .with_context(|| format!("the property {name} of {}", object.0))
    }

    /// What systemd says of a unit, loaded for it if need be.
    pub(crate) fn unit(&self, name: &str) -> Result<Unit> {
        // Its properties are read one by one: two looks that agree are one that nothing changed under.
        let mut seen = self.look(name)?;
        loop {
            let again = self.look(name)?;
            if again == seen {
                return Ok(seen);
            }
            seen = again;
        }
    }

    fn look(&self, name: &str) -> Result<Unit> {
        let path: OwnedObjectPath = self.call(SYSTEMD, MANAGER, "LoadUnit", &(name,))?;
        let unit = (path.as_str(), "org.freedesktop.systemd1.Unit");
        let service = (path.as_str(), "org.freedesktop.systemd1.Service");
        let invocation: Vec<u8> = self.property(SYSTEMD, unit, "InvocationID")?;
        Ok(Unit {
            active: self.property(SYSTEMD, unit, "ActiveState")?,
            result: self.property(SYSTEMD, service, "Result")?,
            status: self.property(SYSTEMD, service, "ExecMainStatus")?,
            invocation: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
            pid: self.property(SYSTEMD, service, "MainPID")?,
            restarts: self.property(SYSTEMD, service, "NRestarts")?,
            cgroup: self.property(SYSTEMD, service, "ControlGroup")?,
        })
    }

    /// How long a unit was down before its latest start.
    pub(crate) fn rested(&self, name: &str) -> Result<Duration> {
        let times = self.times(name)?;
        let down = (times.inactive_exit - times.inactive_enter).max(0.0);
        Ok(Duration::from_secs_f64(down / 1e3))
    }

    /// What systemd noted about the latest run of a unit.
    pub(crate) fn times(&self, name: &str) -> Result<Times> {
        let path: OwnedObjectPath = self.call(SYSTEMD, MANAGER, "LoadUnit", &(name,))?;
        let unit = (path.as_str(), "org.freedesktop.systemd1.Unit");
        let at = |what: &str| -> Result<f64> {
            let micros: u64 = self.property(SYSTEMD, unit, &format!("{what}Timestamp"))?;
            Ok(Duration::from_micros(micros).as_secs_f64() * 1e3)
        };
        Ok(Times {
            inactive_exit: at("InactiveExit")?,
            active_enter: at("ActiveEnter")?,
            inactive_enter: at("InactiveEnter")?,
        })
    }

    /// A property of a service.
    pub(crate) fn service_property<T>(&self, name: &str, property: &str) -> Result<T>
    where
        T: DeserializeOwned + Type,
    {
        let path: OwnedObjectPath = self.call(SYSTEMD, MANAGER, "LoadUnit", &(name,))?;
        self.property(SYSTEMD, (&path, "org.freedesktop.systemd1.Service"), property)
    }

    /// Asks systemd to start a unit; waits for nothing.
    pub(crate) fn start(&self, unit: &str) -> Result<()> {
        let _job: OwnedObjectPath = self.call(SYSTEMD, MANAGER, "StartUnit", &(unit, "replace"))?;
        Ok(())
    }

    /// Asks systemd to stop a unit; waits for nothing.
    pub(crate) fn stop(&self, unit: &str) -> Result<()> {
        let _job: OwnedObjectPath = self.call(SYSTEMD, MANAGER, "StopUnit", &(unit, "replace"))?;
        Ok(())
    }

    /// Sends a signal to `main` or `all` processes of a unit.
    pub(crate) fn kill(&self, unit: &str, whom: &str, signal: i32) -> Result<()> {
        self.call(SYSTEMD, MANAGER, "KillUnit", &(unit, whom, signal))
    }

    /// Has systemd read its unit files again.
    pub(crate) fn reload(&self) -> Result<()> {
        self.call(SYSTEMD, MANAGER, "Reload", &())
    }

    /// The names of all machines that machined knows, but for the host.
    pub(crate) fn machines(&self) -> Result<Vec<String>> {
        let machines: Vec<(String, String, String, OwnedObjectPath)> =
            self.call(MACHINED, MACHINES, "ListMachines", &())?;
        let names = machines.into_iter().map(|(name, ..)| name);
        Ok(names.filter(|name| name != ".host").collect())
    }

    /// The process that is PID 1 of a machine.
    pub(crate) fn leader(&self, machine: &str) -> Result<u32> {
        let path: OwnedObjectPath = self.call(MACHINED, MACHINES, "GetMachine", &(machine,))?;
        self.property(MACHINED, (&path, "org.freedesktop.machine1.Machine"), "Leader")
    }
}
