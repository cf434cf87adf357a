use clap::Parser as _;

use super::*;
use crate::cli::Cli;

/// The names of all verbs that are not for people.
const HIDDEN: [&str; 5] = ["launch-process", "evaluate", "launch", "wipe", "references"];

#[test]
fn the_committed_references_are_those_of_this_program() {
    let folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    let made = references();
    for (name, text) in &made {
        let path = folder.join(name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        // Not assert_eq: nobody wants to read both on a terminal.
        assert!(
            committed == *text,
            "docs/reference/{name} is stale: run `cargo xtask references`, read the difference and commit it"
        );
    }
    let mut known: Vec<&str> = made.iter().map(|(name, _)| name.as_str()).collect();
    // The harness writes the second one, and a test of its own looks after it.
    known.extend(["README.md", "mcp-tools.json"]);
    for entry in folder.read_dir_utf8().expect("a folder") {
        let entry = entry.expect("an entry");
        assert!(
            known.contains(&entry.file_name()),
            "docs/reference/{} is made by nothing",
            entry.file_name()
        );
    }
}

#[test]
fn the_command_line_that_is_described_is_the_one_that_is_read() {
    let describe = |command: &clap::Command| -> Vec<String> {
        command
            .get_subcommands()
            .filter(|one| !one.is_hide_set())
            .map(|one| one.get_name().to_owned())
            .collect()
    };
    let (real, shown) = (Cli::command(), Visible::command());
    assert_eq!(describe(&real), describe(&shown));
    assert_eq!(
        real.get_about().map(ToString::to_string),
        shown.get_about().map(ToString::to_string)
    );
    let hidden = real.get_subcommands().filter(|one| one.is_hide_set());
    assert_eq!(hidden.map(clap::Command::get_name).collect::<Vec<_>>(), HIDDEN);
}

#[test]
fn completions_know_every_verb_and_no_hidden_one() {
    for shell in Shell::value_variants() {
        let script = completion_script(*shell);
        for verb in visible().get_subcommands() {
            assert!(
                script.contains(verb.get_name()),
                "{shell} does not know {}",
                verb.get_name()
            );
        }
        for verb in HIDDEN {
            assert!(!script.contains(verb), "{shell} shows {verb}");
        }
    }
}

#[test]
fn every_verb_has_a_manual_page_and_hidden_ones_are_in_none() {
    let pages = pages(&visible()).expect("pages");
    let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    for expected in [
        "hive.1",
        "hive-status.1",
        "hive-gate.1",
        "hive-gate-approve.1",
        "hive-serve.1",
    ] {
        assert!(names.contains(&expected), "{names:?}");
    }
    for (name, page) in &pages {
        assert!(
            page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"),
            "{name}: {page}"
        );
        for verb in HIDDEN {
            assert!(!page.replace('\\', "").contains(verb), "{name} shows {verb}");
        }
    }
}

#[test]
fn the_page_names_every_verb_and_explains_every_argument() {
    let page = markdown::render(&visible());
    for verb in [
        "## `hive status`",
        "## `hive gate approve`",
        "## `hive completions`",
    ] {
        assert!(page.contains(verb), "{verb}: {page}");
    }
    assert!(page.contains("| `SHELL` | The shell; one of `bash`"), "{page}");
    assert!(page.contains("| `--socket PATH` |"), "{page}");
    assert_eq!(
        page.matches("--socket").count(),
        1,
        "options of every verb are said once"
    );
    assert!(page.ends_with("\n") && !page.ends_with("\n\n"));
    for verb in HIDDEN {
        assert!(!page.contains(&format!("hive {verb}")), "{verb}");
    }
    let unexplained = page
        .lines()
        .find(|line| line.ends_with("|  |") || line.ends_with("| |"));
    assert_eq!(unexplained, None, "every verb and argument says what it does");
}

#[tokio::test]
async fn manual_pages_are_written_to_a_folder_that_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = Utf8Path::from_path(folder.path())
        .expect("UTF-8")
        .join("share/man1");
    let mut ui = Ui::of(
        crate::cli::ui::Form::Human,
        Box::new(std::io::sink()),
        Box::new(std::io::sink()),
    );
    let args = ManArgs {
        dir: Some(folder.clone()),
    };
    assert_eq!(man(&mut ui, args).await.expect("written"), Exit::Done);
    let page = std::fs::read_to_string(folder.join("hive-status.1")).expect("a page");
    assert!(page.contains("hive"), "{page}");
}

#[test]
fn an_api_must_be_named() {
    let read = |args: &[&str]| Cli::try_parse_from(args).is_ok();
    assert!(read(&["hive", "api", "admin"]) && read(&["hive", "api", "agent"]));
    assert!(!read(&["hive", "api"]) && !read(&["hive", "api", "web"]));
}
