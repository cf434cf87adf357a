//! When a reminder is due, and what is to be done then. Pure.

use std::ops::RangeInclusive;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use shared::reminder::{CronSchedule, Missed, Schedule};

/// The furthest a reminder may lie ahead, in seconds: ten years.
pub const MAX_AHEAD_SECS: u64 = 10 * 366 * 24 * 3600;
/// For how many years a cron expression is looked through. Any that ever fits, fits within these.
const YEARS: i16 = 40;
/// The longest cron expression, and the longest name of a time zone, in bytes.
const MAX_EXPRESSION: usize = 200;
/// What is later than this was missed. It has to be longer than a restart of the daemon takes.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// That is no time for a reminder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is over.
    #[error("the time {0} has passed: give one that is to come")]
    Past(Timestamp),
    /// It is now.
    #[error("a reminder needs at least 1 second: give afterSecs of 1 or more")]
    AtOnce,
    /// It is too far away.
    #[error("a reminder may lie ten years ahead at most")]
    TooFar,
    /// The expression is none.
    #[error(
        "{expression:?} is no cron expression: {why}; give minute, hour, day of the month, month and day of the week, as \
         in \"0 9 * * 1-5\""
    )]
    BadExpression {
        /// The beginning of it.
        expression: String,
        /// What is wrong.
        why: String,
    },
    /// The expression fits no time.
    #[error("the cron expression {0:?} fits no time in the next {YEARS} years: it would never come")]
    Never(String),
    /// There is no such time zone.
    #[error("there is no time zone {0:?}: give an IANA name, such as Europe/Berlin, or leave it out for UTC")]
    NoTimeZone(String),
}

/// What a due reminder comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is delivered.
    Give,
    /// It is delivered, later than it was due.
    GiveLate,
    /// A message says that it was missed.
    TellMissed,
    /// It was missed, and that is all.
    Skip,
}

/// When a reminder that is set now is due first, and its schedule as it is kept: a length of time is a point in time.
///
/// # Errors
/// When it would never be due, or too late.
pub fn first_due(schedule: &Schedule, now: Timestamp) -> Result<(Timestamp, Schedule), ScheduleError> {
    let far = SignedDuration::from_secs(i64::try_from(MAX_AHEAD_SECS).unwrap_or(i64::MAX));
    let furthest = now.checked_add(far).unwrap_or(Timestamp::MAX);
    let due = match schedule {
        Schedule::AfterSecs(0) => return Err(ScheduleError::AtOnce),
        Schedule::AfterSecs(secs) => {
            let span = i64::try_from(*secs).map_err(|_| ScheduleError::TooFar)?;
            now.checked_add(SignedDuration::from_secs(span))
                .map_err(|_| ScheduleError::TooFar)?
        }
        Schedule::At(at) if *at <= now => return Err(ScheduleError::Past(*at)),
        Schedule::At(at) => *at,
        Schedule::Cron(cron) => return Ok((next_fit(cron, now)?, schedule.clone())),
    };
    if due > furthest {
        return Err(ScheduleError::TooFar);
    }
    Ok((due, Schedule::At(due)))
}

/// When a reminder comes next after it was due at `due`; `None` when it is over. Never twice for one time, and never for
/// a time that has passed.
///
/// # Errors
/// When that cannot be said any more: time zones come and go with the machine's data about them.
pub(crate) fn next_due(
    schedule: &Schedule,
    due: Timestamp,
    now: Timestamp,
) -> Result<Option<Timestamp>, ScheduleError> {
    match schedule {
        Schedule::AfterSecs(_) | Schedule::At(_) => Ok(None),
        Schedule::Cron(cron) => next_fit(cron, now.max(due)).map(Some),
    }
}

/// What becomes of a reminder that was due at `due`, seen now. `tried` when it was on time, and could not be delivered.
pub(crate) fn delivery(missed: Missed, due: Timestamp, tried: bool, now: Timestamp) -> Delivery {
    if now.duration_since(due) <= GRACE {
        return Delivery::Give;
    }
    match missed {
        _ if tried => Delivery::GiveLate,
        Missed::Run => Delivery::GiveLate,
        Missed::Skip => Delivery::Skip,
        Missed::Notify => Delivery::TellMissed,
    }
}

/// When a reminder that could not be delivered is tried again: less and less often, at least once an hour.
pub(crate) fn try_again(due: Timestamp, now: Timestamp) -> Timestamp {
    let wait = now
        .duration_since(due)
        .clamp(SignedDuration::from_secs(60), SignedDuration::from_hours(1));
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// The first time after `after` that fits.
fn next_fit(cron: &CronSchedule, after: Timestamp) -> Result<Timestamp, ScheduleError> {
    let CronSchedule {
        expression,
        time_zone,
    } = cron;
    let shown = |text: &str| crate::ledger::bounded(text, 80);
    let bad = |why: String| ScheduleError::BadExpression {
        expression: shown(expression),
        why,
    };
    let zone = match time_zone {
        None => TimeZone::UTC,
        Some(name) if name.len() > MAX_EXPRESSION => return Err(ScheduleError::NoTimeZone(shown(name))),
        Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::NoTimeZone(shown(name)))?,
    };
    if expression.len() > MAX_EXPRESSION {
        return Err(bad(format!("it has more than {MAX_EXPRESSION} bytes")));
    }
    let fields = expression.split_whitespace().count();
    if fields != 5 || expression.contains('@') {
        return Err(bad(format!("it has {fields} fields")));
    }
    let from = after.to_zoned(zone);
    let years: RangeInclusive<i16> = from.year()..=from.year().saturating_add(YEARS);
    // With seconds and years, so that the search for what never fits has an end that is near.
    let pattern = format!("0 {expression} {}-{}", years.start(), years.end());
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Required)
        .build();
    let pattern = parser.parse(&pattern).map_err(|error| bad(error.to_string()))?;
    let fit = pattern
        .find_next_occurrence(&from, false)
        .map_err(|_| ScheduleError::Never(shown(expression)))?
        .timestamp();
    // A time that does not move on would be delivered again and again.
    if fit > after {
        Ok(fit)
    } else {
        Err(ScheduleError::Never(shown(expression)))
    }
}

#[cfg(test)]
mod tests;
