//! Programs of the nest.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::wait;

/// The longest that a program may run, in seconds.
const LIMIT: u32 = 60;

/// What `timeout` exits with when it had to end the program.
const TIMED_OUT: i32 = 124;

/// Runs a program; its standard output. Fails with what it said unless it succeeds.
pub(crate) fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let (line, output) = start(program, arguments)?;
    if !output.status.success() {
        bail!("`{line}` {}: {}", output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program whose exit status is part of its answer; its standard output.
pub(crate) fn any<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let (_, output) = start(program, arguments)?;
    let errors = if output.stdout.is_empty() {
        output.stderr
    } else {
        Vec::new()
    };
    Ok(String::from_utf8_lossy(&[output.stdout, errors].concat()).into_owned())
}

/// Runs a program that must fail; what it said.
pub(crate) fn fails<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let (line, output) = start(program, arguments)?;
    if output.status.success() {
        bail!("`{line}` succeeded, and must not: {}", said(&output));
    }
    Ok(said(&output))
}

/// Runs a line of shell; its standard output.
pub(crate) fn shell(line: &str) -> Result<String> {
    run("/bin/sh", ["-euc", line])
}

/// A text as one word of shell.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn start<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<(String, Output)> {
    let arguments: Vec<&str> = arguments.into_iter().collect();
    let line = format!("{program} {}", arguments.join(" "));
    let limit = (LIMIT * wait::slowness()).to_string();
    // What hangs is to be told from what fails, and by its name.
    let output = Command::new("timeout")
        .args(["--kill-after=5", &limit, program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{line}`"))?;
    ensure!(
        output.status.code() != Some(TIMED_OUT),
        "`{line}` did not end within {limit} s: {}",
        said(&output)
    );
    Ok((line, output))
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}
