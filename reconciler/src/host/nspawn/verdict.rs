//! What a unit's properties and the launcher's record say about an agent. Pure.

use jiff::{SignedDuration, Timestamp};

use super::limits::Limits;
use super::names::TEMPLATE;
use super::record::{EndRecord, LaunchRecord};
use crate::host::{ExitCause, Resources, UnitState};

/// The exit status of systemd-nspawn when the system inside rebooted itself.
const REBOOTED: i32 = 133;

/// The properties of a unit that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// `LoadState`.
    pub(super) load: String,
    /// `ActiveState`.
    pub(super) active: String,
    /// `FragmentPath`: the unit file.
    pub(super) fragment: String,
    /// `InvocationID`, as hex; empty before the first run.
    pub(super) invocation: String,
    /// When it became active, if it did in this run.
    pub(super) active_since: Option<Timestamp>,
    /// When it began to be started.
    pub(super) began: Option<Timestamp>,
    /// When it ended.
    pub(super) ended: Option<Timestamp>,
    /// `Result`.
    pub(super) result: String,
    /// `ExecMainCode`: `CLD_EXITED` (1), `CLD_KILLED` (2), `CLD_DUMPED` (3).
    pub(super) exit_code: i32,
    /// `ExecMainStatus`: exit status or signal.
    pub(super) exit_status: i32,
    /// What systemd holds it to.
    pub(super) limits: Option<Limits>,
    /// `ControlGroup`: its cgroup, from the root of the hierarchy; empty when it has none.
    pub(super) cgroup: String,
}

impl Unit {
    /// Whether there is no unit file for it.
    pub(super) fn is_missing(&self) -> bool {
        self.load == "not-found"
    }

    /// What of the unit is not ours; `None`: it is our template.
    pub(super) fn foreign(&self) -> Option<String> {
        let file = self.fragment.rsplit('/').next().unwrap_or_default();
        if self.is_missing() || file == TEMPLATE {
            return None;
        }
        let at = if self.fragment.is_empty() {
            "without a file".to_owned()
        } else {
            format!("of {}", self.fragment)
        };
        Some(format!(
            "a unit of the agent's name, {at}, is not made from {TEMPLATE}"
        ))
    }

    /// Whether the container is there, or comes or goes.
    pub(super) fn is_up(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed" | "")
    }

    /// Whether systemd remembers that it failed.
    pub(super) fn has_failed(&self) -> bool {
        self.active == "failed"
    }

    fn cause(&self) -> ExitCause {
        match (self.result.as_str(), self.exit_code) {
            ("oom-kill", _) => ExitCause::OutOfMemory,
            ("timeout", _) if self.active_since.is_none() => ExitCause::StartTimeout,
            (_, 2 | 3) => ExitCause::Signal(self.exit_status),
            (_, 1) if self.exit_status == REBOOTED => ExitCause::Reboot,
            ("success", 1) if self.exit_status == 0 => ExitCause::PowerOff,
            (_, 1) => ExitCause::Code(self.exit_status),
            _ => ExitCause::Unseen,
        }
    }
}

/// What else is known about an agent that does not run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Around<'a> {
    /// What the launcher noted.
    pub(super) record: Option<&'a LaunchRecord>,
    /// The run that this hive told to end.
    pub(super) told: Option<&'a str>,
    /// What was noted when a run was over.
    pub(super) end: Option<&'a EndRecord>,
    /// The kills for want of memory that were seen while it ran.
    pub(super) kills: Option<&'a Kills>,
    /// When a run whose end nobody saw was first seen to be over.
    pub(super) first_seen: Timestamp,
}

/// A run that ends so soon after a kill for want of memory ended because of it.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(5);

/// How many processes of a run the kernel has killed for want of memory, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kills {
    run: String,
    count: u64,
    /// When it was seen to be more than before; `None`: it was so when it was first looked at.
    rose_at: Option<Timestamp>,
}

impl Kills {
    /// After another look; `before`: after the look before it.
    pub(super) fn seen(before: Option<&Self>, run: &str, count: u64, now: Timestamp) -> Self {
        let before = before.filter(|before| before.run == run);
        let rose_at = match before {
            Some(before) if before.count == count => before.rose_at,
            Some(_) => Some(now),
            None => None,
        };
        Self {
            run: run.to_owned(),
            count,
            rose_at,
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// Whether a run that ended at this time did so for want of memory: there was a kill that is not long ago.
fn out_of_memory(run: &str, at: Timestamp, around: Around<'_>) -> bool {
    let noted = around.end.filter(|end| end.invocation == run);
    let seen = around.kills.filter(|kills| kills.run == run);
    let before = seen.map_or(0, |seen| seen.count);
    let just_now = seen
        .and_then(|seen| seen.rose_at)
        .is_some_and(|rose| at.duration_since(rose) < AFTERMATH);
    just_now || noted.is_some_and(|end| end.oom_kills > before)
}

/// The state of an agent. `unit`: its properties; `None`: systemd has not loaded it, so it does not run.
pub(super) fn state(unit: Option<&Unit>, around: Around<'_>) -> UnitState {
    let Some(unit) = unit.filter(|unit| !unit.is_missing()) else {
        return ended(None, around);
    };
    if let Some(what) = unit.foreign() {
        return UnitState::Foreign { what };
    }
    if !unit.is_up() {
        return ended(Some(unit), around);
    }
    let noted = around
        .record
        .filter(|record| record.invocation == unit.invocation);
    match noted {
        Some(record) => UnitState::Running {
            toplevel: record.toplevel.clone(),
            since: unit.active_since.or(unit.began).unwrap_or(around.first_seen),
            run: unit.invocation.clone(),
            resources: Resources {
                limits: unit.limits,
                oom_kills: around
                    .kills
                    .filter(|kills| kills.run == unit.invocation)
                    .map(Kills::count),
            },
        },
        // The launcher has not come so far, or it is not the launcher that runs.
        None => UnitState::Foreign {
            what: format!(
                "the unit is {}, and the launcher did not note what it runs",
                unit.active
            ),
        },
    }
}

fn ended(unit: Option<&Unit>, around: Around<'_>) -> UnitState {
    let Some(record) = around.record else {
        return UnitState::Absent;
    };
    // systemd forgets a unit that ended well once nobody looks at it.
    let unit = unit.filter(|unit| unit.invocation == record.invocation);
    let told = around.told == Some(record.invocation.as_str());
    let at = unit.and_then(|unit| unit.ended).unwrap_or(around.first_seen);
    let cause = match unit.map_or(ExitCause::Unseen, Unit::cause) {
        _ if told => ExitCause::Clean,
        ExitCause::Code(_) | ExitCause::Signal(_) | ExitCause::Unseen
            if out_of_memory(&record.invocation, at, around) =>
        {
            ExitCause::OutOfMemory
        }
        other => other,
    };
    UnitState::Exited {
        toplevel: Some(record.toplevel.clone()),
        at,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::user_range::UserRange;

    const SEEN: i64 = 900;
    const LIMITS: Limits = Limits {
        memory: 1,
        cpu: 2,
        tasks: 3,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record() -> LaunchRecord {
        LaunchRecord {
            invocation: "aa".to_owned(),
            toplevel: shared::canonical::digest_value(shared::canonical::Encoding::Toplevel, &"x".into()),
            range: UserRange::of_slot(0).unwrap(),
        }
    }

    fn unit(active: &str, result: &str, exit: (i32, i32)) -> Unit {
        Unit {
            load: "loaded".to_owned(),
            active: active.to_owned(),
            fragment: "/etc/systemd/system/hyperhive-agent@.service".to_owned(),
            invocation: "aa".to_owned(),
            active_since: Some(at(100)),
            began: Some(at(99)),
            ended: Some(at(200)),
            result: result.to_owned(),
            exit_code: exit.0,
            exit_status: exit.1,
            limits: Some(LIMITS),
            cgroup: "/hyperhive.slice/x".to_owned(),
        }
    }

    fn look(unit: Option<&Unit>, record: Option<&LaunchRecord>, told: Option<&str>) -> UnitState {
        let first_seen = at(SEEN);
        state(
            unit,
            Around {
                record,
                told,
                first_seen,
                ..Around::default()
            },
        )
    }

    fn cause(unit: &Unit) -> ExitCause {
        match look(Some(unit), Some(&record()), None) {
            UnitState::Exited { cause, at: when, .. } => {
                assert_eq!(when, at(200));
                cause
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ways_to_end_are_told_apart() {
        for (unit, expected) in [
            (unit("inactive", "success", (1, 0)), ExitCause::PowerOff),
            (unit("inactive", "success", (1, 133)), ExitCause::Reboot),
            (unit("failed", "exit-code", (1, 1)), ExitCause::Code(1)),
            (unit("failed", "signal", (2, 9)), ExitCause::Signal(9)),
            (unit("failed", "core-dump", (3, 11)), ExitCause::Signal(11)),
            (unit("failed", "oom-kill", (2, 9)), ExitCause::OutOfMemory),
            (
                Unit {
                    active_since: None,
                    ..unit("failed", "timeout", (2, 15))
                },
                ExitCause::StartTimeout,
            ),
            (unit("failed", "timeout", (2, 9)), ExitCause::Signal(9)),
        ] {
            assert_eq!(cause(&unit), expected, "{unit:?}");
        }
    }

    /// Why a run ended that did so at second 200, when these many kills were noted at its end.
    fn cause_after(ended: &Unit, noted: Option<(&str, u64)>, kills: Option<&Kills>) -> ExitCause {
        let end = noted.map(|(run, oom_kills)| EndRecord {
            invocation: run.to_owned(),
            oom_kills,
        });
        let record = record();
        let around = Around {
            record: Some(&record),
            end: end.as_ref(),
            kills,
            ..Around::default()
        };
        match state(Some(ended), around) {
            UnitState::Exited { cause, .. } => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_that_ends_with_a_kill_that_was_not_there_before_ran_out_of_memory() {
        let died = unit("failed", "exit-code", (1, 1));
        let one = Kills::seen(None, "aa", 1, at(100));
        let of_another_run = Kills::seen(None, "bb", 9, at(100));
        for (noted, kills, expected) in [
            (None, None, ExitCause::Code(1)),
            (Some(("aa", 0)), None, ExitCause::Code(1)),
            (Some(("aa", 1)), None, ExitCause::OutOfMemory),
            (Some(("bb", 1)), None, ExitCause::Code(1)),
            (Some(("aa", 1)), Some(&one), ExitCause::Code(1)),
            (Some(("aa", 2)), Some(&one), ExitCause::OutOfMemory),
            (Some(("aa", 1)), Some(&of_another_run), ExitCause::OutOfMemory),
        ] {
            assert_eq!(cause_after(&died, noted, kills), expected, "{noted:?} {kills:?}");
        }
        let killed = unit("failed", "signal", (2, 9));
        assert_eq!(
            cause_after(&killed, Some(("aa", 1)), None),
            ExitCause::OutOfMemory
        );
    }

    #[test]
    fn a_kill_that_was_seen_right_before_the_end_is_its_cause_and_an_older_one_is_not() {
        let died = unit("failed", "exit-code", (1, 1));
        let none = Kills::seen(None, "aa", 0, at(100));
        for (rose, expected) in [(196, ExitCause::OutOfMemory), (195, ExitCause::Code(1))] {
            let rose = Kills::seen(Some(&none), "aa", 1, at(rose));
            let same = Kills::seen(Some(&rose), "aa", 1, at(199));
            assert_eq!(cause_after(&died, Some(("aa", 1)), Some(&same)), expected);
        }
    }

    #[test]
    fn whoever_switched_itself_off_did_not_run_out_of_memory() {
        for (exit, expected) in [(0, ExitCause::PowerOff), (133, ExitCause::Reboot)] {
            let off = unit("inactive", "success", (1, exit));
            assert_eq!(cause_after(&off, Some(("aa", 1)), None), expected);
        }
    }

    #[test]
    fn only_the_run_that_was_told_to_end_ended_cleanly() {
        let ended = unit("inactive", "success", (1, 0));
        let with = |told| match look(Some(&ended), Some(&record()), told) {
            UnitState::Exited { cause, .. } => cause,
            other => panic!("{other:?}"),
        };
        assert_eq!(with(Some("aa")), ExitCause::Clean);
        assert_eq!(with(Some("bb")), ExitCause::PowerOff);
    }

    #[test]
    fn a_unit_that_systemd_forgot_ended_unseen_unless_it_was_told_to() {
        let expect = |cause| UnitState::Exited {
            toplevel: Some(record().toplevel),
            at: at(SEEN),
            cause,
        };
        assert_eq!(look(None, Some(&record()), None), expect(ExitCause::Unseen));
        assert_eq!(look(None, Some(&record()), Some("aa")), expect(ExitCause::Clean));
        assert_eq!(look(None, None, None), UnitState::Absent);
    }

    #[test]
    fn the_end_of_another_run_says_nothing_about_the_noted_one() {
        let other = Unit {
            invocation: "bb".to_owned(),
            ..unit("failed", "signal", (2, 9))
        };
        assert!(matches!(
            look(Some(&other), Some(&record()), None),
            UnitState::Exited {
                cause: ExitCause::Unseen,
                ..
            }
        ));
    }

    #[test]
    fn what_runs_is_what_the_launcher_noted() {
        let running = UnitState::Running {
            toplevel: record().toplevel,
            since: at(100),
            run: "aa".to_owned(),
            resources: Resources {
                limits: Some(LIMITS),
                oom_kills: None,
            },
        };
        assert_eq!(
            look(Some(&unit("active", "success", (0, 0))), Some(&record()), None),
            running
        );
        for active in [
            "activating",
            "deactivating",
            "reloading",
            "maintenance",
            "refreshing",
        ] {
            let up = unit(active, "success", (0, 0));
            assert_eq!(look(Some(&up), Some(&record()), Some("aa")), running, "{active}");
        }
    }

    #[test]
    fn a_run_that_the_launcher_did_not_note_is_foreign() {
        let other = Unit {
            invocation: "bb".to_owned(),
            ..unit("active", "success", (0, 0))
        };
        for record in [None, Some(&record())] {
            assert!(matches!(
                look(Some(&other), record, None),
                UnitState::Foreign { .. }
            ));
        }
    }

    #[test]
    fn a_unit_file_of_somebody_else_is_foreign_and_none_at_all_is_not() {
        for fragment in ["/etc/systemd/system/hyperhive-agent@alice.service", ""] {
            let theirs = Unit {
                fragment: fragment.to_owned(),
                ..unit("active", "success", (0, 0))
            };
            match look(Some(&theirs), Some(&record()), None) {
                UnitState::Foreign { what } => assert!(what.contains(TEMPLATE), "{what}"),
                other => panic!("{other:?}"),
            }
        }
        let missing = Unit {
            load: "not-found".to_owned(),
            ..Unit::default()
        };
        assert_eq!(look(Some(&missing), None, None), UnitState::Absent);
    }
}
