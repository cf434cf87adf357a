//! What systemd, machined and polkit answer on the system bus. Nothing is asked to change.

use std::collections::HashMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, Proxy, Type, Variant};

use crate::doctor::containers::{Machine, Systemd, Unit};
use crate::host::nspawn::ManagerProxy;
use crate::model::inventory::Known;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MACHINED: &str = "org.freedesktop.machine1";
const POLKIT: &str = "org.freedesktop.PolicyKit1";

/// How long an answer may take: some of these are started when they are asked.
const PATIENCE: Duration = Duration::from_secs(20);
/// What an agent's unit would be: no agent has such a name, so the daemon takes no notice.
const SAMPLE: &str = "hyperhive-agent@Doctor.service";
/// A unit that polkit is to let the daemon start.
const ASKED_FOR: &str = "hyperhive-agent@doctor.service";
const DAEMON: &str = "hyperhive.service";
const EGRESS: &str = "hyperhive-egress.service";

/// Everything that is asked there.
pub(super) struct Answers {
    pub(super) systemd: Known<Systemd>,
    pub(super) machines: Known<Vec<Machine>>,
    pub(super) polkit: Known<Option<bool>>,
}

/// Asks all three; `daemon` is the daemon's process, if there is one.
pub(super) async fn ask(daemon: Option<u32>) -> Answers {
    let connection = match within(Connection::system()).await {
        Ok(connection) => connection,
        Err(why) => {
            let why = format!("there is no system bus: {why}");
            return Answers {
                systemd: Err(why.clone()),
                machines: Err(why.clone()),
                polkit: Err(why),
            };
        }
    };
    // polkit answers questions about others to root alone.
    let daemon = daemon.filter(|_| rustix::process::geteuid().is_root());
    Answers {
        systemd: within(systemd(&connection)).await,
        machines: within(machines(&connection)).await,
        polkit: within(polkit(&connection, daemon)).await,
    }
}

async fn within<T>(asked: impl Future<Output = zbus::Result<T>>) -> Known<T> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(zbus::Error::MethodError(name, message, _))) => {
            Err(message.clone().unwrap_or_else(|| name.to_string()))
        }
        Ok(Err(error)) => Err(crate::error_chain(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn proxy<'a>(
    connection: &Connection,
    service: &'a str,
    path: &'a str,
    interface: &'a str,
) -> zbus::Result<Proxy<'a>> {
    zbus::proxy::Builder::new(connection)
        .destination(service)
        .path(path)
        .interface(interface)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

async fn systemd(connection: &Connection) -> zbus::Result<Systemd> {
    let manager = ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let mut stale = Vec::new();
    for (name, .., object, _, _, _) in &manager.list_units_by_patterns(&[], &["hyperhive*"]).await? {
        if property(connection, object, "NeedDaemonReload")
            .await
            .unwrap_or(false)
        {
            stale.push(name.clone());
        }
    }
    Ok(Systemd {
        version: manager.version().await?,
        agent: unit(connection, &manager, SAMPLE).await?,
        daemon: unit(connection, &manager, DAEMON).await?,
        egress: unit(connection, &manager, EGRESS).await?,
        stale,
    })
}

async fn unit(connection: &Connection, manager: &ManagerProxy<'_>, name: &str) -> zbus::Result<Unit> {
    let object = manager.load_unit(name).await?;
    let (_, error): (String, String) = property(connection, &object, "LoadError").await?;
    Ok(Unit {
        load: property(connection, &object, "LoadState").await?,
        error,
        active: property(connection, &object, "ActiveState").await?,
        enabled: property(connection, &object, "UnitFileState").await?,
        drop_ins: property(connection, &object, "DropInPaths").await?,
    })
}

async fn property<T>(connection: &Connection, object: &str, name: &str) -> zbus::Result<T>
where
    T: DeserializeOwned + Type,
{
    let unit = proxy(connection, SYSTEMD, object, "org.freedesktop.systemd1.Unit").await?;
    unit.get_property(name).await
}

async fn machines(connection: &Connection) -> zbus::Result<Vec<Machine>> {
    let manager = proxy(
        connection,
        MACHINED,
        "/org/freedesktop/machine1",
        "org.freedesktop.machine1.Manager",
    )
    .await?;
    let listed: Vec<(String, String, String, OwnedObjectPath)> = manager.call("ListMachines", &()).await?;
    let mut machines = Vec::new();
    for (name, class, ..) in listed {
        if class != "container" {
            continue;
        }
        // One that has just ended, or whose ids are in pieces, has none.
        let shift: Option<u32> = manager.call("GetMachineUIDShift", &(name.as_str(),)).await.ok();
        machines.push(Machine { name, shift });
    }
    Ok(machines)
}

async fn polkit(connection: &Connection, daemon: Option<u32>) -> zbus::Result<Option<bool>> {
    let authority = proxy(
        connection,
        POLKIT,
        "/org/freedesktop/PolicyKit1/Authority",
        "org.freedesktop.PolicyKit1.Authority",
    )
    .await?;
    let _answers: String = authority.get_property("BackendVersion").await?;
    let Some(pid) = daemon else { return Ok(None) };
    // A start time of 0: polkit looks itself.
    let process: HashMap<&str, Variant<'_>> =
        HashMap::from([("pid", Variant::from(pid)), ("start-time", Variant::from(0_u64))]);
    let details = HashMap::from([("unit", ASKED_FOR), ("verb", "start")]);
    let question = (
        ("unix-process", process),
        "org.freedesktop.systemd1.manage-units",
        details,
        0_u32,
        "",
    );
    let (allowed, ..): (bool, bool, HashMap<String, String>) =
        authority.call("CheckAuthorization", &question).await?;
    Ok(Some(allowed))
}
