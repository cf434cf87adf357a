//! Facts about a host whose agents run in containers.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::spec::Spec;

use super::bus::{self, Answers};
use super::{PERMISSIONS, Subject, folder, look};
use crate::doctor::containers::{
    Accounts, Cgroups, Containers, FileState, Guarded, Installed, InstalledFile, Place, Taken,
};
use crate::host::nspawn::units::{self, Paths};
use crate::model::inventory::Known;

/// Groups that the units name besides those of the two users.
const GROUPS: [&str; 3] = ["hyperhive", "hive-egress", "systemd-journal"];
/// The largest file of users or ids that is read whole, in bytes.
const MAX_LIST: u64 = 64 * 1024 * 1024;

/// The unit that agents' units are made from, if it is installed.
pub(super) fn agents_unit() -> Option<String> {
    let file = units::File {
        place: units::AGENT_UNIT,
        text: String::new(),
    };
    let texts = file.places().into_iter().map(std::fs::read_to_string);
    texts.flatten().next()
}

/// Gathers what the checks of containers look at.
pub(super) async fn gather(subject: &Subject, spec: Option<&Spec>) -> Containers {
    let pid = subject
        .holder
        .as_ref()
        .ok()
        .and_then(|holder| holder.as_ref()?.parse().ok());
    let Answers {
        systemd,
        machines,
        polkit,
    } = bus::ask(pid).await;
    let roots = paths(subject).roots;
    let (installed, accounts, spec_file, taken, roots) = {
        let subject = subject.clone();
        let looked = super::blocking(move || {
            (
                installed(&subject),
                accounts(),
                guarded(&subject.spec),
                taken(),
                folder_or_parent(&roots),
            )
        });
        match looked.await {
            Ok(found) => found,
            Err(why) => (
                Err(why.clone()),
                Err(why.clone()),
                Err(why.clone()),
                Err(why.clone()),
                Err(why),
            ),
        }
    };
    Containers {
        agents: spec.map_or(0, |spec| spec.agents.len()),
        limited: spec.map(limited).unwrap_or_default(),
        installed,
        systemd,
        machines,
        polkit,
        accounts,
        spec_file,
        taken,
        inotify_instances: inotify_instances(),
        cgroups: cgroups(),
        roots,
    }
}

fn limited(spec: &Spec) -> Vec<(&'static str, AgentName)> {
    let agents = spec.agents.iter();
    let limits = agents.flat_map(|(name, agent)| {
        let limits = &agent.limits;
        let needs = [
            ("cpu", limits.cpu.is_some()),
            ("memory", limits.memory.is_some()),
            ("pids", limits.tasks.is_some()),
        ];
        let needs = needs.into_iter().filter(|(_, needed)| *needed);
        needs.map(|(controller, _)| (controller, name.clone()))
    });
    limits.collect()
}

/// Where everything lies, as the installed units have it; without any, as this program would have it.
pub(super) fn paths(subject: &Subject) -> Paths {
    let installed = agents_unit().and_then(|text| Paths::of_agents_unit(&text));
    installed.unwrap_or_else(|| Paths {
        spec: subject.spec.clone(),
        state: subject.layout.state().to_owned(),
        run: subject.layout.run().to_owned(),
        ..Paths::default()
    })
}

fn installed(subject: &Subject) -> Known<Installed> {
    let own = std::env::current_exe().map_err(|error| format!("this program is not found: {error}"))?;
    let own = Utf8PathBuf::from_path_buf(own).map_err(|path| format!("{} is no UTF-8", path.display()))?;
    let paths = paths(subject);
    let hive = paths.hive.clone().unwrap_or_else(|| own.clone());
    let rendered = units::files(hive.clone(), &paths).map_err(|error| error.to_string())?;
    let real = |path: &Utf8Path| path.canonicalize_utf8().unwrap_or_else(|_| path.to_owned());
    let here = [
        ("--spec", &paths.spec, subject.spec.as_path()),
        ("--state", &paths.state, subject.layout.state()),
        ("--run", &paths.run, subject.layout.run()),
    ];
    let elsewhere = here
        .into_iter()
        .filter(|(_, theirs, ours)| real(theirs) != real(ours))
        .map(|(flag, theirs, _)| format!("{flag} {theirs}"));
    let programs = [&hive, &paths.nspawn].into_iter();
    Ok(Installed {
        files: rendered.iter().map(compared).collect(),
        command: paths.install(),
        elsewhere: elsewhere.collect(),
        missing: programs.filter(|path| !path.is_file()).cloned().collect(),
        hive: real(&hive),
        own: real(&own),
    })
}

fn compared(file: &units::File) -> InstalledFile {
    // Users may be declared in another way: whether they are there is looked at by itself.
    let needed = file.place != units::USERS;
    let places = file.places();
    let usual = places.first().cloned().unwrap_or_default();
    for path in places {
        let state = match std::fs::read_to_string(&path) {
            Ok(text) => Ok(file
                .first_difference(&text)
                .map_or(FileState::Same, FileState::Differs)),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => Err(format!("{path} ({error})")),
        };
        return InstalledFile { path, needed, state };
    }
    InstalledFile {
        path: usual,
        needed,
        state: Ok(FileState::Missing),
    }
}

/// The lines of a file of users or ids, each cut at its colons; none where there is no such file.
fn lines(path: &str) -> Known<Vec<Vec<String>>> {
    let read = crate::host::folders::read_bounded(Utf8Path::new(path), MAX_LIST);
    let Some(bytes) = read.map_err(|error| error.chain())? else {
        return Ok(Vec::new());
    };
    let text = String::from_utf8_lossy(&bytes);
    let cut = |line: &str| line.split(':').map(str::to_owned).collect();
    Ok(text.lines().map(cut).collect())
}

fn accounts() -> Known<Accounts> {
    let (users, groups) = (lines("/etc/passwd")?, lines("/etc/group")?);
    let user = |name: &str| {
        let line = users
            .iter()
            .find(|line| line.first().is_some_and(|it| it == name))?;
        line.get(2)?.parse().ok()
    };
    let missing = |name: &&str| {
        !groups
            .iter()
            .any(|line| line.first().is_some_and(|it| it == name))
    };
    Ok(Accounts {
        daemon: user("hyperhive"),
        egress: user("hive-egress"),
        missing_groups: GROUPS.into_iter().filter(missing).collect(),
    })
}

fn taken() -> Known<Vec<Taken>> {
    let mut taken = Vec::new();
    for (path, what) in [("/etc/passwd", "the user"), ("/etc/group", "the group")] {
        let ids = lines(path)?.into_iter().filter_map(|line| {
            Some(Taken {
                whose: format!("{what} {}", line.first()?),
                first: line.get(2)?.parse().ok()?,
                count: 1,
            })
        });
        taken.extend(ids);
    }
    for path in ["/etc/subuid", "/etc/subgid"] {
        let ranges = lines(path)?.into_iter().filter_map(|line| {
            Some(Taken {
                whose: format!("{} in {path}", line.first()?),
                first: line.get(1)?.parse().ok()?,
                count: line.get(2)?.trim().parse().ok()?,
            })
        });
        taken.extend(ranges);
    }
    Ok(taken)
}

fn guarded(spec: &Utf8Path) -> Known<Guarded> {
    let real = spec
        .canonicalize_utf8()
        .map_err(|error| format!("{spec} cannot be found: {error}"))?;
    let mut folders = Vec::new();
    for folder in [spec.parent(), real.parent()].into_iter().flatten() {
        let place = place(folder)?;
        if !folders.contains(&place) {
            folders.push(place);
        }
    }
    Ok(Guarded {
        file: place(&real)?,
        folders,
    })
}

fn place(path: &Utf8Path) -> Known<Place> {
    let metadata = path
        .metadata()
        .map_err(|error| format!("{path} cannot be looked at: {error}"))?;
    Ok(Place {
        path: path.to_owned(),
        owner: metadata.uid(),
        mode: metadata.mode() & PERMISSIONS,
    })
}

/// A folder, or, while it is not made yet, where it will be.
fn folder_or_parent(path: &Utf8Path) -> Known<crate::doctor::Folder> {
    let found = folder(path)?;
    match path.parent() {
        Some(parent) if found.owner.is_none() => {
            let above = folder(parent)?;
            Ok(crate::doctor::Folder {
                path: path.to_owned(),
                owner: None,
                mode: 0,
                ..above
            })
        }
        _ => Ok(found),
    }
}

fn inotify_instances() -> Known<u64> {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let text = look(Utf8Path::new(path))?;
    text.trim().parse().map_err(|_| format!("{path} is no number"))
}

fn cgroups() -> Known<Cgroups> {
    let base = Utf8Path::new("/sys/fs/cgroup");
    let unified = base.join("cgroup.controllers");
    match std::fs::read_to_string(&unified) {
        Ok(text) => Ok(Cgroups {
            version: 2,
            controllers: text.split_whitespace().map(str::to_owned).collect(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let listed = base.read_dir_utf8().and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
                    .collect::<io::Result<Vec<_>>>()
            });
            let listed = listed.map_err(|error| format!("{base} cannot be listed: {error}"))?;
            // A folder may be for several: `cpu,cpuacct`.
            let controllers: BTreeSet<String> = listed
                .iter()
                .flat_map(|name| name.split(','))
                .map(str::to_owned)
                .collect();
            Ok(Cgroups {
                version: 1,
                controllers,
            })
        }
        Err(error) => Err(format!("{unified} cannot be read: {error}")),
    }
}
