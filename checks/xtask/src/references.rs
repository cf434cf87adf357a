//! `cargo xtask references`: the parts of the documentation that the program writes itself, and their linter.
//!
//! A test of the program fails when what is committed is not what it would write.

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{npm, toolchain};

/// Where they are.
const FOLDER: &str = "docs/reference";

/// What the harness writes of it.
const TOOLS: &str = "mcp-tools.json";

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
    let tools = harness(&["mcp", "--list-tools"])?;
    let path = folder.join(TOOLS);
    fs::write(&path, tools).with_context(|| format!("writing {path}"))?;
    println!("{FOLDER} is up to date: look at the difference in git before you commit it");
    Ok(ExitCode::SUCCESS)
}

/// What the harness writes when it is called like this.
fn harness(arguments: &[&str]) -> Result<Vec<u8>> {
    let mut cargo = toolchain::cargo()?;
    cargo.args(["run", "--quiet", "--locked", "--package", "harness", "--bin"]);
    cargo
        .args(["hive-harness", "--"])
        .args(arguments)
        .stderr(Stdio::inherit());
    let line = toolchain::command_line(&cargo);
    let output = cargo.output().with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` {}", toolchain::describe(output.status));
    }
    Ok(output.stdout)
}

/// Lints the OpenAPI documents.
pub(crate) fn lint() -> Result<()> {
    let mut words = LINT_COMMAND.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(toolchain::workspace_root()?);
    npm::ensure(npm::OPENAPI, false)?;
    toolchain::run(&mut command)
}
