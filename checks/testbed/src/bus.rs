//! systemd and machined over D-Bus.

use anyhow::{Context as _, Result};
use zbus::blocking::{Connection, Proxy};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MACHINED: &str = "org.freedesktop.machine1";

/// The system bus, as root.
#[derive(Debug)]
pub(crate) struct Bus {
    connection: Connection,
}

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`.
    pub(crate) active: String,
    /// `success`, `exit-code`, `signal`, `oom-kill`, `timeout`, `protocol`.
    pub(crate) result: String,
    /// The identity of one start of it.
    pub(crate) invocation: String,
    /// Its main process; 0 for none.
    pub(crate) pid: u32,
    /// How often systemd has started it again by itself.
    pub(crate) restarts: u32,
    /// Its cgroup, from the root of the hierarchy.
    pub(crate) cgroup: String,
}

impl Bus {
    /// Connects.
    pub(crate) fn connect() -> Result<Self> {
        Ok(Self {
            connection: Connection::system().context("connecting to the system bus")?,
        })
    }

    fn manager(&self) -> Result<Proxy<'_>> {
        let proxy = Proxy::new(
            &self.connection,
            SYSTEMD,
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
        );
        proxy.context("the manager of systemd")
    }

    /// What systemd says of a unit, loaded for it if need be.
    pub(crate) fn unit(&self, name: &str) -> Result<Unit> {
        let unit = self.property_of(name, "Unit")?;
        let service = self.property_of(name, "Service")?;
        let text = |name: &str| unit.get_property::<String>(name).with_context(|| name.to_owned());
        let invocation: Vec<u8> = unit.get_property("InvocationID")?;
        Ok(Unit {
            active: text("ActiveState")?,
            result: service.get_property("Result")?,
            invocation: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
            pid: service.get_property("MainPID")?,
            restarts: service.get_property("NRestarts")?,
            cgroup: service.get_property("ControlGroup")?,
        })
    }

    /// A property of a service.
    pub(crate) fn service_property<T>(&self, name: &str, property: &str) -> Result<T>
    where
        T: TryFrom<OwnedValue>,
        T::Error: Into<zbus::Error>,
    {
        self.property_of(name, "Service")?
            .get_property(property)
            .with_context(|| format!("{property} of {name}"))
    }

    fn property_of(&self, unit: &str, interface: &str) -> Result<Proxy<'_>> {
        let path: OwnedObjectPath = self
            .manager()?
            .call("LoadUnit", &(unit,))
            .with_context(|| format!("loading {unit}"))?;
        let interface = format!("org.freedesktop.systemd1.{interface}");
        let proxy = Proxy::new(&self.connection, SYSTEMD, path, interface);
        proxy.with_context(|| format!("the properties of {unit}"))
    }

    /// Asks systemd to start a unit; waits for nothing.
    pub(crate) fn start(&self, unit: &str) -> Result<()> {
        self.job("StartUnit", unit)
    }

    /// Asks systemd to stop a unit; waits for nothing.
    pub(crate) fn stop(&self, unit: &str) -> Result<()> {
        self.job("StopUnit", unit)
    }

    fn job(&self, method: &str, unit: &str) -> Result<()> {
        let _job: OwnedObjectPath = self
            .manager()?
            .call(method, &(unit, "replace"))
            .with_context(|| format!("{method} {unit}"))?;
        Ok(())
    }

    /// Sends a signal to `main` or `all` processes of a unit.
    pub(crate) fn kill(&self, unit: &str, whom: &str, signal: i32) -> Result<()> {
        self.manager()?
            .call("KillUnit", &(unit, whom, signal))
            .with_context(|| format!("sending signal {signal} to {unit}"))
    }

    /// Has systemd read its unit files again.
    pub(crate) fn reload(&self) -> Result<()> {
        self.manager()?.call("Reload", &()).context("reloading systemd")
    }

    /// The names of all machines that machined knows, but for the host.
    pub(crate) fn machines(&self) -> Result<Vec<String>> {
        let machined = Proxy::new(
            &self.connection,
            MACHINED,
            "/org/freedesktop/machine1",
            "org.freedesktop.machine1.Manager",
        )?;
        let machines: Vec<(String, String, String, OwnedObjectPath)> =
            machined.call("ListMachines", &()).context("listing machines")?;
        let names = machines.into_iter().map(|(name, ..)| name);
        Ok(names.filter(|name| name != ".host").collect())
    }

    /// The process that is PID 1 of a machine.
    pub(crate) fn leader(&self, machine: &str) -> Result<u32> {
        let machined = Proxy::new(
            &self.connection,
            MACHINED,
            "/org/freedesktop/machine1",
            "org.freedesktop.machine1.Manager",
        )?;
        let path: OwnedObjectPath = machined
            .call("GetMachine", &(machine,))
            .with_context(|| format!("the machine {machine}"))?;
        let proxy = Proxy::new(
            &self.connection,
            MACHINED,
            path,
            "org.freedesktop.machine1.Machine",
        )?;
        proxy.get_property("Leader").context("its leader")
    }
}
