//! Is this machine, this state folder, this daemon as it should be? Facts in, findings out. Pure: the facts are gathered
//! by [`crate::host::checkup`] and the command line, and nothing is changed by either.

pub mod containers;
pub mod egress;
mod facts;
mod folders;
mod judgement;
pub mod nix;
#[cfg(test)]
mod tests;

use serde::Serialize;
use shared::AgentName;

pub use facts::{Entries, Facts, Folder, LedgerFacts};

use self::folders::room;
use self::judgement::{Judgement, fail, known, known_unit, ok, warn};
use crate::model::inventory::Known;

/// A ledger larger than this is unusual.
const LARGE_LEDGER: u64 = 4 << 30;
/// A daemon whose last pass is older than this, in seconds, does not look after anything.
const STALE_PASS_SECS: i64 = 900;
/// Rows may be this far ahead of the clock, in seconds.
const AHEAD_SECS: i64 = 60;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and should not stay like this.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Level,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// A check: what it is called, and how it judges.
type Check = (&'static str, fn(&Facts) -> Judgement);

/// All checks, in the order in which they are shown.
const CHECKS: [Check; 19] = [
    ("git", |facts| {
        known(
            &facts.git,
            "install git, or put it on the daemon's PATH (systemctl edit hyperhive)",
        )
    }),
    ("harness", harness),
    ("sandbox", sandbox),
    ("pidfd", |facts| {
        known_unit(
            &facts.pidfd,
            "the kernel has process handles",
            "run Linux 5.4 or newer",
        )
    }),
    ("inotify", |facts| {
        let todo = "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances with sysctl";
        known_unit(&facts.inotify, "folders can be watched", todo)
    }),
    ("state folder", folders::state),
    ("file system", folders::file_system),
    ("space", folders::space),
    ("run folder", folders::run),
    ("socket path", folders::socket_path),
    ("lock", lock),
    ("ledger", ledger),
    ("clock", clock),
    ("spec", spec),
    ("secrets", secrets),
    ("repos", repos),
    ("leftovers", leftovers),
    ("processes", processes),
    ("daemon", daemon),
];

/// Carries out every check that is about this host.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = CHECKS
        .iter()
        .map(|(check, judge)| finding(check, judge(facts)))
        .collect();
    let containers = facts.containers.iter().flat_map(|it| {
        let judged = |(check, judge): &containers::Check| finding(check, judge(it, facts));
        containers::CHECKS.iter().map(judged)
    });
    findings.extend(containers);
    let egress = facts.egress.iter().flat_map(|it| {
        let judged = |(check, judge): &egress::Check| finding(check, judge(it, facts));
        egress::CHECKS.iter().map(judged)
    });
    findings.extend(egress);
    let nix = facts.nix.iter().flat_map(|it| {
        let judged = |(check, judge): &nix::Check| finding(check, judge(it, facts));
        nix::CHECKS.iter().map(judged)
    });
    findings.extend(nix);
    findings
}

fn finding(check: &'static str, Judgement { verdict, found, todo }: Judgement) -> Finding {
    Finding {
        check,
        verdict,
        found,
        todo,
    }
}

fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// What is not looked at since the user who asks may not look into the state folder; [`state`] says that.
fn closed(facts: &Facts) -> Option<Judgement> {
    let owner = facts.state.as_ref().ok()?.owner?;
    (owner != facts.user && facts.user != 0).then(|| ok("not looked at: see state folder"))
}

fn harness(facts: &Facts) -> Judgement {
    match &facts.harness {
        Ok(version) if version.split_whitespace().any(|word| word == facts.version) => ok(version),
        Ok(version) => warn(
            format!("{version}, beside hive {}", facts.version),
            "install both programs from one release",
        ),
        Err(why) => fail(why, "put hive-harness beside hive, or name it with --harness"),
    }
}

fn sandbox(facts: &Facts) -> Judgement {
    match (&facts.sandbox, &facts.containers, &facts.nix) {
        (Err(why), Some(_), Some(_)) => {
            return fail(
                format!("nothing can be evaluated: {why}"),
                "mend it, or agents with an agent.nix are not built",
            );
        }
        (_, Some(_), None) => return ok("not needed: agents run in containers"),
        _ => {}
    }
    let todo =
        "mend it, or only the scripted driver runs; runtime.unsafeNoSandbox is for throw-away machines";
    known(&facts.sandbox, todo)
}

fn lock(facts: &Facts) -> Judgement {
    if let Some(closed) = closed(facts) {
        return closed;
    }
    match (&facts.holder, &facts.daemon) {
        (Err(why), _) => warn(why, "run hive doctor as the daemon's user"),
        (Ok(Some(holder)), Err(_)) => warn(
            format!("{holder} has the state folder, and no daemon answers"),
            "look at that process; a daemon that hangs is restarted with systemctl restart hyperhive",
        ),
        (Ok(Some(holder)), Ok(_)) => ok(format!("{holder} has the state folder")),
        (Ok(None), Ok(_)) => warn(
            "a daemon answers, and nobody has the lock of this state folder",
            "name the state folder of that daemon with --state",
        ),
        (Ok(None), Err(_)) => ok("nobody has the state folder"),
    }
}

fn ledger(facts: &Facts) -> Judgement {
    if let Some(closed) = closed(facts) {
        return closed;
    }
    let recover = "stop the daemon, then: hive recover --dry-run";
    match &facts.ledger {
        Err(why) => fail(
            why,
            "run hive doctor as the daemon's user, or with a newer hyperhive",
        ),
        Ok(LedgerFacts {
            interrupted: true, ..
        }) => fail("a recovery was interrupted", "hive recover"),
        Ok(LedgerFacts {
            damage: Some(what), ..
        }) => fail(format!("it is damaged: {what}"), recover),
        Ok(LedgerFacts { missing: true, .. }) => {
            let left = facts
                .entries
                .as_ref()
                .is_ok_and(|entries| !entries.agents.is_empty() || !entries.repos.is_empty());
            if left {
                fail("there is none, but agents are left", recover)
            } else {
                ok("there is none yet")
            }
        }
        Ok(LedgerFacts { size, .. }) if *size > LARGE_LEDGER => warn(
            format!("it has {} MiB", size >> 20),
            "that is unusual: report it with `hive export`",
        ),
        Ok(LedgerFacts { size, .. }) => ok(format!("whole, {} KiB", size >> 10)),
    }
}

fn clock(facts: &Facts) -> Judgement {
    let newest = facts.ledger.as_ref().ok().and_then(|ledger| ledger.newest);
    match newest {
        Some(newest) if newest.duration_since(facts.now).as_secs() > AHEAD_SECS => warn(
            format!("the newest event is from {newest}, and it is {} now", facts.now),
            "set the clock; what waits for a time waits longer until then",
        ),
        _ => ok("no event is from the future"),
    }
}

fn spec(facts: &Facts) -> Judgement {
    match &facts.spec {
        Err(why) => fail(why, "hive spec check FILE"),
        Ok((agents, faults)) => match faults.first() {
            None => ok(format!("{agents} agents declared, no faults")),
            Some(first) => fail(
                format!("{} faults, the first: {first}", faults.len()),
                "hive spec check FILE",
            ),
        },
    }
}

fn secrets(facts: &Facts) -> Judgement {
    if facts.containers.is_some() && facts.user != 0 && !facts.secrets.is_empty() {
        return ok("not looked at: root hands them over, and may read what this user may not");
    }
    if let Some(closed) = closed(facts) {
        return closed;
    }
    let told = |what: fn(&Known<u32>) -> Option<String>| {
        let ill = facts.secrets.iter();
        let ill = ill.filter_map(|(secret, mode)| Some(format!("{secret}: {}", what(mode)?)));
        ill.collect::<Vec<_>>().join("; ")
    };
    let unusable = told(|mode| mode.as_ref().err().cloned());
    if !unusable.is_empty() {
        return fail(
            unusable,
            "put the file right; its agent cannot be started until then",
        );
    }
    let open = told(|mode| {
        let mode = mode.as_ref().ok()? & 0o7777;
        (mode & 0o007 != 0).then(|| format!("open to everybody (mode {mode:o})"))
    });
    if !open.is_empty() {
        let whose = if facts.containers.is_some() {
            "root"
        } else {
            "the daemon's user"
        };
        return warn(open, format!("chmod 400 each of them, as a file of {whose}"));
    }
    ok(format!("{} files of secrets can be read", facts.secrets.len()))
}

fn repos(facts: &Facts) -> Judgement {
    if let Some(closed) = closed(facts) {
        return closed;
    }
    let repos = match &facts.repos {
        Ok(repos) => repos,
        Err(why) => return ok(format!("not looked at: {why}")),
    };
    let broken: Vec<String> = repos
        .iter()
        .filter_map(|(agent, known)| Some(format!("{agent}: {}", known.as_ref().err()?)))
        .collect();
    if broken.is_empty() {
        return ok(format!("{} config repos are whole", repos.len()));
    }
    fail(
        broken.join("; "),
        "put the repo back from a copy of the state folder, with the daemon stopped",
    )
}

fn leftovers(facts: &Facts) -> Judgement {
    if let Some(closed) = closed(facts) {
        return closed;
    }
    let (Ok(entries), Ok(ledger)) = (&facts.entries, &facts.ledger) else {
        return ok("not looked at");
    };
    if ledger.missing || ledger.damage.is_some() {
        return ok("not looked at: the ledger cannot say who is known");
    }
    let live = |name: Option<AgentName>| name.is_some_and(|name| ledger.live.contains(&name));
    let mut left = Vec::new();
    for entry in &entries.agents {
        if !live(entry.parse().ok()) {
            left.push(format!("agents/{entry}"));
        }
    }
    for entry in &entries.repos {
        if !live(crate::host::remains::repo_name(entry)) {
            left.push(format!("repos/{entry}"));
        }
    }
    for entry in &entries.archive {
        let uid = crate::host::remains::archive_name(entry).map(|(_, uid)| uid);
        if !uid.is_some_and(|uid| ledger.known.contains(&uid)) {
            left.push(format!("archive/{entry}"));
        }
    }
    if facts.daemon.is_err() {
        left.extend(entries.incoming.iter().map(|entry| format!("incoming/{entry}")));
    }
    if left.is_empty() {
        return ok(format!("nothing is left over; {} built systems", entries.systems));
    }
    warn(
        format!("no row of the ledger knows {}", left.join(", ")),
        "look at them, and move them away when they are nobody's",
    )
}

fn processes(facts: &Facts) -> Judgement {
    if let Some(closed) = closed(facts) {
        return closed;
    }
    let (Ok(entries), Ok(ledger)) = (&facts.entries, &facts.ledger) else {
        return ok("not looked at");
    };
    let strays: Vec<String> = entries
        .running
        .iter()
        .filter(|(name, _)| !ledger.live.contains(name))
        .map(|(name, pid)| format!("{name} (process {pid})"))
        .collect();
    if strays.is_empty() {
        return ok(format!("{} agents run as processes", entries.running.len()));
    }
    fail(
        format!("no row of the ledger knows {}, which run", strays.join(", ")),
        "if the ledger is lost: hive recover; else end these processes",
    )
}

fn daemon(facts: &Facts) -> Judgement {
    let status = match &facts.daemon {
        Err(why) => return warn(why, "start it: systemctl start hyperhive"),
        Ok(status) => status,
    };
    if status.version != facts.version {
        return warn(
            format!("it is version {}, and this is {}", status.version, facts.version),
            "restart the daemon after an upgrade",
        );
    }
    let age = status
        .last_pass_at
        .map(|at| facts.now.duration_since(at).as_secs());
    if age.is_some_and(|age| age > STALE_PASS_SECS) {
        let found = format!("its last pass ended {} s ago", age.unwrap_or_default());
        return fail(found, "look at journalctl -u hyperhive, and restart it");
    }
    let notices = status.notices.join("; ");
    if notices.is_empty() {
        ok(format!(
            "it answers, {} agents, nothing to report",
            status.agents.len()
        ))
    } else {
        warn(notices, "hive explain hive")
    }
}
