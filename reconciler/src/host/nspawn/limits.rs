//! Limits as systemd's unit properties. Pure.

use shared::spec::LimitsSpec;

use crate::host::HostError;

/// What a unit's property holds where there is no limit.
const NO_LIMIT: u64 = u64::MAX;

/// The limits of a unit, in the units of systemd's properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// `MemoryMax`, in bytes.
    pub(super) memory: u64,
    /// `CPUQuotaPerSecUSec`: microseconds of processor time a second.
    pub(super) cpu: u64,
    /// `TasksMax`.
    pub(super) tasks: u64,
}

/// What a container may have that nobody limits: what systemd gives its own containers.
const TASKS: u64 = 16_384;

impl Limits {
    /// What the operator declared.
    ///
    /// # Errors
    /// [`HostError::Refused`], which names the field, when a value cannot be understood.
    pub(super) fn of(spec: &LimitsSpec) -> Result<Self, HostError> {
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
