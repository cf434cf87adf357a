//! Tools that come from npm: each lies in a folder of `checks/` with a lock file, and is installed beside it.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;

use crate::toolchain;

/// The linter of the OpenAPI documents.
pub(crate) const OPENAPI: &str = "checks/openapi";

/// The real Claude Code, which tests of the harness drive.
pub(crate) const CLAUDE: &str = "checks/claude";

/// An agent program that speaks the Agent Client Protocol, for tests of the harness; it runs the real Claude Code.
pub(crate) const ACP: &str = "checks/acp";

/// The MCP inspector, and a Node that runs it.
pub(crate) const MCP: &str = "checks/mcp";

/// The lock file, and the copy of it that says what is installed.
const LOCK: &str = "package-lock.json";
const INSTALLED: &str = "node_modules/.installed.json";

/// Makes sure that exactly what the lock file of `folder` names is installed.
pub(crate) fn ensure(folder: &str, install: bool) -> Result<()> {
    let path = toolchain::workspace_root()?.join(folder);
    if is_installed(&path)? {
        println!("all there: {folder}");
        return Ok(());
    }
    if !install {
        bail!("what {folder}/{LOCK} names is not installed: run `cargo xtask test` without --no-install");
    }
    // Nothing that is installed runs a script of its own.
    toolchain::run(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&path),
    )?;
    fs::copy(path.join(LOCK), path.join(INSTALLED)).with_context(|| format!("noting what is in {folder}"))?;
    Ok(())
}

/// Whether the last installation that came to its end was of this lock file.
fn is_installed(path: &Utf8Path) -> Result<bool> {
    let lock = fs::read(path.join(LOCK)).with_context(|| format!("reading {path}/{LOCK}"))?;
    Ok(fs::read(path.join(INSTALLED)).is_ok_and(|installed| installed == lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_lock_file_is_another_installation() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("UTF-8");
        assert!(is_installed(path).is_err(), "there is no lock file");
        fs::write(path.join(LOCK), "one").expect("written");
        assert!(!is_installed(path).expect("read"), "nothing is installed");
        fs::create_dir(path.join("node_modules")).expect("made");
        fs::write(path.join(INSTALLED), "one").expect("written");
        assert!(is_installed(path).expect("read"));
        fs::write(path.join(LOCK), "two").expect("written");
        assert!(!is_installed(path).expect("read"));
    }
}
