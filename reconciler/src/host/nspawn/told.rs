//! Which run of an agent this hive told to end: noted before it is told, so that its end is known for what it is even when
//! the daemon does not live to see it.

use camino::Utf8Path;

use crate::host::HostError;
use crate::host::folders::{read_bounded, write_atomic};

const FILE: &str = "told";

/// Notes that this run is told to end.
pub(super) fn write(launch: &Utf8Path, run: &str) -> Result<(), HostError> {
    write_atomic(&launch.join(FILE), run.as_bytes(), 0o600)
}

/// The run that was told to end last.
pub(super) fn read(launch: &Utf8Path) -> Result<Option<String>, HostError> {
    let bytes = read_bounded(&launch.join(FILE), 64)?;
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
}
