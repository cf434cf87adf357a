//! `cargo xtask references`: the parts of the documentation that the program writes itself, and their linter.
//!
//! A test of the program fails when what is committed is not what it would write.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{npm, toolchain};

/// Where they are.
const FOLDER: &str = "docs/reference";

/// What lints the OpenAPI documents.
pub(crate) const LINT_COMMAND: &str =
    "node checks/openapi/lint.js docs/reference/admin-api.json docs/reference/agent-api.json";

/// Writes them anew.
pub(crate) fn run() -> Result<ExitCode> {
    let folder = toolchain::workspace_root()?.join(FOLDER);
    let mut cargo = toolchain::cargo()?;
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "reconciler",
        "--bin",
        "hive",
        "--",
    ]);
    toolchain::run(cargo.arg("references").arg(&folder))?;
    println!("{FOLDER} is up to date: look at the difference in git before you commit it");
    Ok(ExitCode::SUCCESS)
}

/// Lints the OpenAPI documents.
pub(crate) fn lint() -> Result<()> {
    let mut words = LINT_COMMAND.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(toolchain::workspace_root()?);
    npm::ensure(npm::OPENAPI, false)?;
    toolchain::run(&mut command)
}
