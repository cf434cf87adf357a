//! The command line as a page of the documentation.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::cli::exit;

/// Renders a command that is built, and all below it.
pub(super) fn render(command: &Command) -> String {
    let mut page = Text::default();
    page.line("# Command line");
    page.line("");
    page.line("<!-- Made by `cargo xtask references`: do not edit. -->");
    page.line("");
    page.line(&format!(
        "{}. Verbs that are not about a file or this program talk to the daemon.",
        about(command)
    ));
    page.line("");
    page.line("| Verb | What it does |");
    page.line("| --- | --- |");
    for verb in verbs(command) {
        let path = path(verb);
        page.row(&[&format!("[`{path}`](#{})", path.replace(' ', "-")), &about(verb)]);
    }
    page.line("");
    page.line("## Options of every verb");
    page.line("");
    page.arguments(command.get_arguments(), |_| true);
    page.line("## Exit status");
    page.line("");
    page.line("```text");
    page.line(exit::HELP.trim_start_matches("Exit status:\n"));
    page.line("```");
    for verb in verbs(command) {
        page.verb(verb);
    }
    page.0
}

/// The verbs that do something: those below a verb stand for it.
fn verbs(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|one| !one.is_hide_set());
    below
        .flat_map(|one| match verbs(one) {
            none if none.is_empty() => vec![one],
            verbs => verbs,
        })
        .collect()
}

fn path(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn row(&mut self, cells: &[&str]) {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', r"\|")).collect();
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    fn verb(&mut self, verb: &Command) {
        self.line("");
        self.line(&format!("## `{}`", path(verb)));
        self.line("");
        self.line(&format!("{}.", about(verb)));
        self.line("");
        self.line("```text");
        let usage = verb.clone().render_usage().to_string();
        self.line(usage.trim_start_matches("Usage: ").trim());
        self.line("```");
        self.line("");
        self.arguments(verb.get_arguments(), |argument| !argument.is_global_set());
        while self.0.ends_with("\n\n") {
            self.0.pop();
        }
    }

    /// A table of those arguments that are for people, and a line after it.
    fn arguments<'a>(&mut self, all: impl Iterator<Item = &'a Arg>, wanted: impl Fn(&Arg) -> bool) {
        let standard = |argument: &Arg| matches!(argument.get_id().as_str(), "help" | "version");
        let shown: Vec<&Arg> = all
            .filter(|argument| !argument.is_hide_set() && !standard(argument) && wanted(argument))
            .collect();
        if shown.is_empty() {
            return;
        }
        self.line("| Argument | What it does |");
        self.line("| --- | --- |");
        for argument in shown {
            self.row(&[&format!("`{}`", spelled(argument)), &meaning(argument)]);
        }
        self.line("");
    }
}

/// An argument as it is typed.
fn spelled(argument: &Arg) -> String {
    let value = || {
        let names = argument.get_value_names().into_iter().flatten();
        names.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let takes_value = argument.get_action().takes_values();
    if argument.is_positional() {
        let name = value();
        return if argument.is_required_set() {
            name
        } else {
            format!("[{name}]")
        };
    }
    let mut text = String::new();
    if let Some(short) = argument.get_short() {
        // Writing to a String cannot fail.
        write!(text, "-{short}, ").unwrap_or_default();
    }
    write!(text, "--{}", argument.get_long().unwrap_or_default()).unwrap_or_default();
    if takes_value {
        write!(text, " {}", value()).unwrap_or_default();
    }
    text
}

fn meaning(argument: &Arg) -> String {
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() && argument.get_action().takes_values() {
        write!(text, "; one of {}", values.join(", ")).unwrap_or_default();
    }
    let defaults = argument.get_default_values();
    if !defaults.is_empty() && !argument.is_hide_default_value_set() && argument.get_action().takes_values() {
        let defaults: Vec<String> = defaults
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        write!(text, " (default: `{}`)", defaults.join(" ")).unwrap_or_default();
    }
    text
}
