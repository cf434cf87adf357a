//! Reminders: messages that come to an agent at a later time, once or again and again. It sets them itself, or the
//! operator does.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::Address;

/// The longest text of a reminder, in bytes. What is longer belongs in a file that the text names.
pub const MAX_REMINDER_BYTES: usize = 4 * 1024;

/// When a reminder is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Schedule {
    /// Once, after this many seconds.
    AfterSecs(u64),
    /// Once, at this time.
    At(Timestamp),
    /// Whenever this expression fits: minute, hour, day of the month, month, day of the week, as in `0 9 * * 1-5`.
    Cron(CronSchedule),
}

/// A schedule in cron's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CronSchedule {
    /// The expression: five fields.
    pub expression: String,
    /// The time zone, by its IANA name; UTC when absent.
    #[serde(default)]
    pub time_zone: Option<String>,
}

/// What becomes of a reminder that was due while the daemon was not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Missed {
    /// It comes as soon as possible, once however often it was missed.
    #[default]
    Run,
    /// It does not come; a cron-like one comes at its next time.
    Skip,
    /// It does not come, and a message says that it was missed.
    Notify,
}

/// Sets a reminder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReminderRequest {
    /// When.
    pub schedule: Schedule,
    /// What, at most [`MAX_REMINDER_BYTES`].
    #[cfg_attr(feature = "schema", schemars(length(max = 4096)))]
    pub body: String,
    /// What becomes of it when it was missed.
    #[serde(default)]
    pub missed: Missed,
    /// The same id sent twice by the same agent, or about it by the operator, is one reminder. At most 64 characters.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub dedupe: Option<String>,
}

/// A reminder as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReminderInfo {
    /// Its number, per hive.
    pub id: u64,
    /// To whom it comes.
    pub owner: Address,
    /// Who set it, and may take it back; absent: whoever it comes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<Address>,
    /// What. Untrusted.
    pub body: String,
    /// Its schedule as it was set; a length of time has become a point in time.
    pub schedule: Schedule,
    /// What becomes of it when it was missed.
    pub missed: Missed,
    /// When it was set.
    pub set_at: Timestamp,
    /// When it is due next; absent when it is over.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// Why it could not be delivered the last time. It stays a loose end until it could, or is cancelled.
    #[serde(default)]
    pub error: Option<String>,
}

impl ReminderInfo {
    /// Who may take it back besides managers and the operator.
    pub fn author(&self) -> &Address {
        self.set_by.as_ref().unwrap_or(&self.owner)
    }
}
