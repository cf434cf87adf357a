//! Limits as systemd's unit properties. Pure.

use serde::{Deserialize, Serialize};
use shared::spec::LimitsSpec;

use crate::host::HostError;

/// What a unit's property holds where there is no limit.
const NO_LIMIT: u64 = u64::MAX;

/// The limits of a unit, in the units of systemd's properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// `MemoryMax`, in bytes.
    pub memory: u64,
    /// `CPUQuotaPerSecUSec`: microseconds of processor time a second.
    pub cpu: u64,
    /// `TasksMax`.
    pub tasks: u64,
}

/// What a container may have that nobody limits: what systemd gives its own containers.
const TASKS: u64 = 16_384;

impl Limits {
    /// What the operator declared.
    ///
    /// # Errors
    /// [`HostError::Refused`], which names the field, when a value cannot be understood.
    pub fn of(spec: &LimitsSpec) -> Result<Self, HostError> {
        let bad = |field: &str, text: &str, like: &str| {
            HostError::refused(
                format!("limits.{field}"),
                format!("{text:?} is not understood: write it like {like}"),
            )
        };
        let memory = spec
            .memory
            .as_deref()
            .map(|text| bytes(text).ok_or_else(|| bad("memory", text, "4G")));
        let cpu = spec
            .cpu
            .as_deref()
            .map(|text| quota(text).ok_or_else(|| bad("cpu", text, "200%")));
        Ok(Self {
            memory: memory.transpose()?.unwrap_or(NO_LIMIT),
            cpu: cpu.transpose()?.unwrap_or(NO_LIMIT),
            tasks: spec.tasks.map_or(TASKS, u64::from),
        })
    }

    /// What of these is not as wanted, in words; empty when all is.
    pub fn differences(&self, wanted: &Self) -> String {
        let of = |field: &str, is: u64, wanted: u64, text: fn(u64) -> String| {
            (is != wanted).then(|| format!("{field} is {} and not {}", text(is), text(wanted)))
        };
        let all = [
            of("memory", self.memory, wanted.memory, memory_text),
            of("cpu", self.cpu, wanted.cpu, cpu_text),
            of("tasks", self.tasks, wanted.tasks, tasks_text),
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

fn or_unlimited(value: u64, text: impl FnOnce(u64) -> String) -> String {
    if value == NO_LIMIT {
        "unlimited".to_owned()
    } else {
        text(value)
    }
}

fn memory_text(bytes: u64) -> String {
    or_unlimited(bytes, |bytes| match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ => bytes.to_string(),
    })
}

fn cpu_text(micros: u64) -> String {
    or_unlimited(micros, |micros| format!("{}%", micros / 10_000))
}

fn tasks_text(tasks: u64) -> String {
    or_unlimited(tasks, |tasks| tasks.to_string())
}

/// Bytes, with an optional suffix K, M, G or T to the base 1024.
fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: u64 = match suffix {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
}

/// Per cent of one processor as microseconds a second.
fn quota(text: &str) -> Option<u64> {
    let percent: u64 = text.strip_suffix('%')?.parse().ok()?;
    percent.checked_mul(10_000).filter(|micros| *micros > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> Result<Limits, HostError> {
        Limits::of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn limits_are_what_systemd_makes_of_them() {
        let declared = limits(r#"{ "memory": "4G", "cpu": "150%", "tasks": 100 }"#).unwrap();
        assert_eq!(
            (declared.memory, declared.cpu, declared.tasks),
            (4 << 30, 1_500_000, 100)
        );
        let none = limits("{}").unwrap();
        assert_eq!((none.memory, none.cpu, none.tasks), (u64::MAX, u64::MAX, 16_384));
    }

    #[test]
    fn what_differs_is_named_as_it_is_declared() {
        let wanted = limits(r#"{ "memory": "4G", "cpu": "150%" }"#).unwrap();
        assert_eq!(wanted.differences(&wanted), "");
        let is = Limits {
            memory: 300 << 20,
            cpu: NO_LIMIT,
            tasks: 7,
        };
        assert_eq!(
            is.differences(&wanted),
            "memory is 300M and not 4G, cpu is unlimited and not 150%, tasks is 7 and not 16384"
        );
    }

    #[test]
    fn a_limit_that_is_not_understood_is_refused_by_its_field() {
        for (json, field) in [
            (r#"{ "memory": "4 GB" }"#, "limits.memory"),
            (r#"{ "memory": "0" }"#, "limits.memory"),
            (r#"{ "memory": "99999999T" }"#, "limits.memory"),
            (r#"{ "cpu": "2" }"#, "limits.cpu"),
            (r#"{ "cpu": "-1%" }"#, "limits.cpu"),
        ] {
            let error = limits(json).unwrap_err();
            assert!(
                error.is_terminal() && error.chain().contains(field),
                "{json}: {}",
                error.chain()
            );
        }
    }
}
