//! What containers cost: measurements on a real systemd, each beside the raw cost of what cannot be avoided.
//!
//! Times of units are systemd's own: it notes when a unit began to start, was up, began to stop and was down.

mod containers;
mod fleet;
mod guest;
mod live;
mod row;

use anyhow::{Result, ensure};

use crate::scenarios::Scenario;

pub(crate) use guest::init;

/// What `cargo xtask bench` can have measured. They are no tests: whatever comes out, they pass.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "bench_containers",
        summary: "a container's start and stop, its death, a change of its config",
        play: containers::play,
    },
    Scenario {
        name: "bench_fleet",
        summary: "a pass over 200 containers",
        play: fleet::play,
    },
];

/// The value in the middle.
fn median(values: &[f64]) -> Result<f64> {
    ensure!(!values.is_empty(), "nothing was measured");
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    Ok(values[values.len() / 2])
}
