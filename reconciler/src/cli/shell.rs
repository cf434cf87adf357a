//! `hive shell`: a shell, or one command, in an agent's container.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use shared::AgentName;

use super::error::CliError;
use crate::host::nspawn::machine;

/// Arguments of `hive shell`.
#[derive(Debug, clap::Args)]
pub(super) struct ShellArgs {
    /// Be root in the container, not the agent; on this machine you are still nobody
    #[arg(long)]
    root: bool,
    /// The agent
    agent: AgentName,
    /// A command, and its words, instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Becomes the shell. Both programs enter the user namespace too, which `nixos-container` does not.
pub(super) fn run(args: &ShellArgs) -> Result<std::convert::Infallible, CliError> {
    let Some(machine) = machine(&args.agent) else {
        return Err(CliError::Daemon(format!(
            "no container of {0} runs here: see hive status {0}; agents of the runtime \"process\" have none",
            args.agent
        )));
    };
    let words = words(args, &machine, std::io::stdin().is_terminal());
    let error = program(&words[0]).args(&words[1..]).exec();
    Err(CliError::Daemon(format!("cannot start {}: {error}", words[0])))
}

fn words(args: &ShellArgs, machine: &str, terminal: bool) -> Vec<String> {
    let user = if args.root { "root" } else { "agent" };
    let mut words: Vec<String> = if args.command.is_empty() && terminal {
        ["machinectl", "--quiet", "shell"].map(str::to_owned).to_vec()
    } else {
        [
            "systemd-run",
            "--quiet",
            "--wait",
            "--collect",
            "--service-type=exec",
        ]
        .map(str::to_owned)
        .to_vec()
    };
    if words[0] == "machinectl" {
        words.push(format!("{user}@{machine}"));
        return words;
    }
    words.push(format!("--machine={machine}"));
    words.push(format!("--uid={user}"));
    words.push(if terminal { "--pty" } else { "--pipe" }.to_owned());
    words.push("--".to_owned());
    if args.command.is_empty() {
        words.push("/bin/sh".to_owned());
    }
    words.extend(args.command.iter().cloned());
    words
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own shell, with the operator's environment"
)]
fn program(name: &str) -> Command {
    Command::new(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(root: bool, command: &[&str]) -> ShellArgs {
        ShellArgs {
            root,
            agent: "alice".parse().unwrap(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn a_shell_is_the_agents_unless_root_is_asked_for() {
        let shell = |root| words(&args(root, &[]), "hive-alice", true).join(" ");
        assert_eq!(shell(false), "machinectl --quiet shell agent@hive-alice");
        assert_eq!(shell(true), "machinectl --quiet shell root@hive-alice");
    }

    #[test]
    fn a_command_keeps_its_words_and_its_exit_status() {
        insta::assert_snapshot!(
            words(&args(false, &["ls", "--", "a b"]), "hive-alice", false).join("|"),
            @"systemd-run|--quiet|--wait|--collect|--service-type=exec|--machine=hive-alice|--uid=agent|--pipe|--|ls|--|a b"
        );
    }
}
