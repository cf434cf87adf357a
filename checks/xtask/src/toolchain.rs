//! How cargo and the programs under test are started: the same way on every machine.
//!
//! A cargo that rustup installed looks for toolchains and crates below `HOME`, while tests must run with an empty
//! `HOME`. So both places are worked out once and named in the environment of every child.

use std::env;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The root of the workspace that `cargo xtask` was called in.
pub(crate) fn workspace_root() -> Result<Utf8PathBuf> {
    // Cargo says where xtask lies each time it runs it. What it said when it compiled xtask may be another worktree
    // that shares the target folder, so that is only for an xtask that is started without cargo.
    let manifest = env::var("CARGO_MANIFEST_DIR")
        .ok()
        .filter(|folder| folder.ends_with("/checks/xtask"));
    let manifest = Utf8PathBuf::from(manifest.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").to_owned()));
    // `checks/xtask` lies two levels below the root.
    let root = manifest
        .ancestors()
        .nth(2)
        .context("xtask lies in checks/xtask of the workspace")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("{root} holds no Cargo.toml any more: run `cargo xtask` inside the workspace");
    }
    Ok(root.to_owned())
}

/// A cargo command at the workspace root, with the toolchain and crate folders named explicitly.
pub(crate) fn cargo() -> Result<Command> {
    // Cargo tells its children which cargo it is.
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(workspace_root()?).stdin(Stdio::null());
    // What cargo says about xtask itself is no business of the crates built next: build scripts would see it change.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    // A missing HOME is looked up in the user database, as cargo and rustup do.
    if let Some(home) = env::home_dir() {
        for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if env::var_os(variable).is_none() && home.join(folder).is_dir() {
                command.env(variable, home.join(folder));
            }
        }
    }
    Ok(command)
}

/// How the crates under test are built: the simulation plays thousands of stories, which takes twice as long without.
/// A plain `cargo test` does without, because it is compiled much faster.
pub(crate) const OPTIMISED: [&str; 4] = [
    "--config",
    "profile.dev.package.reconciler.opt-level=1",
    "--config",
    "profile.dev.package.shared.opt-level=1",
];

/// What `cargo metadata` says, with these further arguments.
pub(crate) fn metadata<'a, T: DeserializeOwned>(arguments: impl IntoIterator<Item = &'a str>) -> Result<T> {
    let mut command = cargo()?;
    command
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(arguments);
    let line = command_line(&command);
    let output = command.output().with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!(
            "`{line}` failed:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("reading what `{line}` says"))
}

/// Where built programs are put.
pub(crate) fn target_folder() -> Result<Utf8PathBuf> {
    #[derive(Deserialize)]
    struct Folders {
        target_directory: Utf8PathBuf,
    }
    Ok(metadata::<Folders>(["--no-deps"])?.target_directory)
}

/// Gives a command an empty home and no git identity or settings.
pub(crate) fn isolate(command: &mut Command, home: &Utf8Path) {
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        let git = name_text.starts_with("GIT_")
            && name_text != "GIT_EXEC_PATH"
            && !name_text.starts_with("GIT_SSL_");
        if git || name_text.starts_with("XDG_") || name_text == "EMAIL" {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", home)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
}

/// A command as a person would type it.
pub(crate) fn command_line(command: &Command) -> String {
    let program = Utf8PathBuf::from(command.get_program().to_string_lossy().into_owned());
    let name = program.file_name().unwrap_or("?").to_owned();
    std::iter::once(name)
        .chain(
            command
                .get_args()
                .map(|argument| quote(&argument.to_string_lossy())),
        )
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prints a command, runs it with its output going where ours goes, and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    if !status.success() {
        bail!("`{line}` {}", describe(status));
    }
    Ok(())
}

/// How a program ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/usr/bin/printf");
        command.args(["%s", "it's here", "a=b"]);
        assert_eq!(command_line(&command), r"printf %s 'it'\''s here' a=b");
    }

    #[test]
    fn an_isolated_command_has_the_given_home_and_no_git_settings() {
        let mut command = Command::new("sh");
        command
            .env("GIT_AUTHOR_NAME", "somebody")
            .args(["-c", "echo $HOME $GIT_CONFIG_GLOBAL $GIT_CONFIG_NOSYSTEM"]);
        isolate(&mut command, Utf8Path::new("/nowhere"));
        let output = command.output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "/nowhere /dev/null 1\n");
    }

    #[test]
    fn a_failing_command_is_reported_with_its_line_and_status() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("it fails");
        assert_eq!(error.to_string(), "`sh -c 'exit 3'` exited with status 3");
    }
}
