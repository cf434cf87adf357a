//! Whether systemd knows of a hive what this program wants it to know.

use super::{Containers, FileState};
use crate::doctor::Facts;
use crate::doctor::judgement::{Judgement, fail, ok, warn};

/// The oldest systemd that runs them.
const OLDEST_SYSTEMD: u32 = 252;
/// The end of the command that makes systemd and polkit read what was installed.
const RELOAD: &str = "systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload";

pub(super) fn unit_files(containers: &Containers, _: &Facts) -> Judgement {
    let installed = match &containers.installed {
        Ok(installed) => installed,
        Err(why) => return fail(why, "hive units --help"),
    };
    if let [first, ..] = &installed.elsewhere[..] {
        let flags = installed.elsewhere.join(" ");
        return warn(
            format!("they are for {first}, which is not what is looked at here"),
            format!("hive doctor {flags}; or install them for these folders: hive units --install --help"),
        );
    }
    let mut missing = Vec::new();
    let mut other = Vec::new();
    let mut unread = Vec::new();
    for file in &installed.files {
        match &file.state {
            Ok(FileState::Missing) if file.needed => missing.push(file.path.to_string()),
            Ok(FileState::Same | FileState::Missing) => {}
            Ok(FileState::Differs(line)) => other.push(format!("{} ({line})", file.path)),
            Err(why) => unread.push(why.clone()),
        }
    }
    if !missing.is_empty() {
        let todo = format!("as root: {} && {RELOAD}", installed.command);
        return fail(format!("there is no {}", missing.join(", no ")), todo);
    }
    if !other.is_empty() {
        let todo = format!(
            "as root: {} && {RELOAD}; changes of your own belong into drop-ins (systemctl edit UNIT)",
            installed.command
        );
        return warn(
            format!("not what this program installs: {}", other.join(", ")),
            todo,
        );
    }
    let unread = match &unread[..] {
        [] => String::new(),
        unread => format!(", but for what root alone can read: {}", unread.join(", ")),
    };
    ok(format!("they are what this program installs{unread}"))
}

pub(super) fn unit_programs(containers: &Containers, _: &Facts) -> Judgement {
    let Ok(installed) = &containers.installed else {
        return not_looked_at("unit files");
    };
    if let Some(missing) = installed.missing.first() {
        let todo = format!(
            "install it, or name the right place: {} --help, then daemon-reload",
            installed.command
        );
        return fail(format!("there is no {missing}, which the units start"), todo);
    }
    if installed.hive != installed.own {
        return warn(
            format!(
                "the units start {}, and this is {}",
                installed.hive, installed.own
            ),
            "run the hive that they start; or as root: hive units --install && systemctl daemon-reload && systemctl restart \
             hyperhive",
        );
    }
    ok(format!("the units start {}", installed.hive))
}

pub(super) fn systemd(containers: &Containers, _: &Facts) -> Judgement {
    let version = match &containers.systemd {
        Ok(systemd) => &systemd.version,
        Err(why) => {
            return fail(
                why,
                "containers need systemd and the system bus: systemctl start dbus, or runtime.kind \"process\"",
            );
        }
    };
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<u32>() {
        Ok(number) if number >= OLDEST_SYSTEMD => ok(format!("it answers, version {version}")),
        Ok(_) => fail(
            format!("version {version} is too old for containers"),
            format!("install systemd {OLDEST_SYSTEMD} or newer, or use runtime.kind \"process\""),
        ),
        Err(_) => warn(
            format!("{version:?} is no version that is known"),
            format!("make sure that it is {OLDEST_SYSTEMD} or newer"),
        ),
    }
}

pub(super) fn loaded_units(containers: &Containers, _: &Facts) -> Judgement {
    let Ok(systemd) = &containers.systemd else {
        return not_looked_at("systemd");
    };
    for (name, unit) in [
        ("hyperhive-agent@.service", &systemd.agent),
        ("hyperhive.service", &systemd.daemon),
    ] {
        if unit.load == "masked" {
            return fail(format!("{name} is masked"), format!("systemctl unmask {name}"));
        }
        if unit.load != "loaded" {
            let why = match unit.error.as_str() {
                "" => unit.load.clone(),
                error => format!("{}: {error}", unit.load),
            };
            return fail(
                format!("systemd cannot use {name} ({why})"),
                format!("systemctl daemon-reload; then systemd-analyze verify {name}"),
            );
        }
    }
    if !systemd.stale.is_empty() {
        return warn(
            format!(
                "their files changed since systemd read them: {}",
                systemd.stale.join(", ")
            ),
            "systemctl daemon-reload; what runs has the new files after its next start",
        );
    }
    let drop_ins: Vec<&str> = [&systemd.agent, &systemd.daemon, &systemd.egress]
        .into_iter()
        .flat_map(|unit| unit.drop_ins.iter().map(String::as_str))
        .collect();
    if drop_ins.is_empty() {
        ok("systemd has read them")
    } else {
        ok(format!("systemd has read them, with {}", drop_ins.join(", ")))
    }
}

/// Whether the services come back by themselves.
pub(super) fn start_of_the_host(containers: &Containers, facts: &Facts) -> Judgement {
    let Ok(systemd) = &containers.systemd else {
        return not_looked_at("systemd");
    };
    let mut off = Vec::new();
    if systemd.daemon.enabled == "disabled" {
        off.push("hyperhive");
    }
    if systemd.egress.enabled == "disabled" && facts.egress.is_some() {
        off.push("hyperhive-egress");
    }
    if off.is_empty() {
        return ok("the services start with the host");
    }
    let off = off.join(" ");
    warn(
        format!("{off} will not start with the host"),
        format!("systemctl enable --now {off}"),
    )
}

fn not_looked_at(because: &str) -> Judgement {
    ok(format!("not looked at: see {because}"))
}
