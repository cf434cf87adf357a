//! `hive demo --driver claude`: alice is run by Claude Code.

use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use shared::status::{AgentStatus, TurnState};
use tokio::time::Instant;

use crate::cli::client::Client;
use crate::cli::daemon::DemoArgs;
use crate::cli::error::CliError;
use crate::cli::look::Look;
use crate::cli::page::{Page, Tone};
use crate::cli::ui::Ui;
use crate::control::serve::search_path;
use crate::host::process::Sandbox;

/// How often it is looked whether she can work.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// What runs alice.
#[derive(Debug, Clone)]
pub(super) struct Claude {
    program: Utf8PathBuf,
    model: String,
    provider: Option<String>,
}

impl Claude {
    /// What the arguments ask for.
    ///
    /// # Errors
    /// When the program, or a sandbox to run it in, is not there.
    pub(super) async fn chosen(args: &DemoArgs) -> Result<Self, CliError> {
        let path = search_path();
        if let Sandbox::None { why } = Sandbox::probe(&path).await {
            return Err(CliError::Daemon(format!(
                "the demo with Claude Code needs a sandbox, and there is none: {why}; without --driver claude it needs neither"
            )));
        }
        let program = match &args.claude {
            Some(named) => camino::absolute_utf8(named).unwrap_or_else(|_| named.clone()),
            None => std::env::split_paths(&path)
                .filter_map(|folder| Utf8PathBuf::from_path_buf(folder.join("claude")).ok())
                .find(|program| program.is_file())
                .ok_or_else(|| {
                    CliError::Daemon(
                        "there is no program `claude` in PATH: install Claude Code, or name it with --claude FILE; \
                         without --driver claude the demo needs no model"
                            .to_owned(),
                    )
                })?,
        };
        Ok(Self {
            program: native(&program)?,
            model: args.model.clone(),
            provider: args.model_url.clone(),
        })
    }

    /// Has alice run by the program instead of by rules.
    pub(super) fn declare(&self, spec: &mut Value) {
        spec["programs"] = json!({ "claude": self.program });
        if let Some(url) = &self.provider {
            spec["egress"] = json!({ "modelUrl": url });
        }
        let alice = &mut spec["agents"]["alice"];
        alice["driver"] = json!({ "kind": "claude", "model": self.model });
        alice["network"] = json!("host");
        alice["maxTurnMinutes"] = json!(10);
        alice["budget"] = json!({ "usdPerDay": 1.0 });
        spec["agents"]["queen"]["driver"]["script"][0]["do"][0]["send"]["body"] = json!(
            "please take over the garden: propose a change of your configuration whose prompt says that you look after the wiki \
             and the garden. Once you are told that it is deployed, send me exactly this: my new config is live"
        );
    }

    /// What somebody who watches should know first.
    pub(super) fn intro(&self, page: &mut Page, dir: &Utf8Path) {
        page.line([Tone::Strong.of(
            "A hive of three agents: alice is run by Claude Code, queen (the manager) and bob by rules.",
        )]);
        page.line([format!(
            "Everything is in {dir}, alice's own login too: yours is neither used nor copied."
        )
        .into()]);
        page.line([format!(
            "What alice reads and writes goes to her provider (model {}), at most about one dollar a day.",
            self.model
        )
        .into()]);
    }
}

/// The file itself, if it can run in a sandbox that shows nothing beside it.
fn native(named: &Utf8Path) -> Result<Utf8PathBuf, CliError> {
    let unusable = |why: &str| {
        CliError::Daemon(format!(
            "{named} cannot run alice: {why}; name another with --claude FILE"
        ))
    };
    let program = named
        .canonicalize_utf8()
        .map_err(|error| unusable(&error.to_string()))?;
    let visible = ["/usr", "/nix/store"]
        .iter()
        .any(|folder| program.starts_with(folder));
    let mut start = [0; 4];
    let read = std::fs::File::open(&program).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) if visible || start == *b"\x7fELF" => Ok(program),
        Ok(()) => Err(unusable(
            "it is a script, and the sandbox would show it no file beside it; Claude Code also comes as one native program",
        )),
        Err(error) => Err(unusable(&error.to_string())),
    }
}

/// Watches whether alice can work, and says what to do when she cannot.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looked: Option<Instant>,
    told: Option<TurnState>,
}

impl Watch {
    /// Looks, now and then.
    pub(super) async fn look(&mut self, ui: &mut Ui, client: &Client, look: &Look) -> Result<(), CliError> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let alice = client.get::<AgentStatus>("/v1/agents/alice").await?.view;
        let turn = alice.turn.filter(|turn| {
            matches!(
                turn,
                TurnState::NeedsLogin | TurnState::RateLimited | TurnState::OverBudget
            )
        });
        if turn.is_none() || turn == self.told {
            return Ok(());
        }
        self.told = turn;
        let mut page = Page::default();
        if turn == Some(TurnState::NeedsLogin) {
            page.line([
                Tone::Warn.of("◆ "),
                Tone::Strong
                    .of("alice has no login yet. Log her in, in another terminal; she goes on by herself:"),
            ]);
            page.line(["    ".into(), look.command("hive login alice")]);
        } else {
            page.line([Tone::Warn.of("◆ "), Tone::Strong.of(alice.health.message)]);
            page.line(["    ".into(), look.command("hive explain alice")]);
        }
        ui.page(&page).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_the_sandbox_cannot_show_whole_is_refused_before_anything_starts() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = Utf8Path::from_path(folder.path()).expect("UTF-8");
        let program = folder.join("claude");
        let error = native(&program).expect_err("it is not there").to_string();
        assert!(error.contains("name another with --claude FILE"), "{error}");
        let put = |bytes: &[u8]| crate::host::folders::write_atomic(&program, bytes, 0o755).expect("written");
        put(b"#!/usr/bin/env node\n");
        let error = native(&program).expect_err("a script").to_string();
        assert!(error.contains("it is a script"), "{error}");
        put(b"\x7fELF...");
        let link = folder.join("link");
        std::os::unix::fs::symlink(&program, &link).expect("a link");
        let real = program.canonicalize_utf8().expect("there");
        assert_eq!(native(&link).expect("the native program"), real);
    }

    #[test]
    fn the_spec_of_the_demo_with_claude_is_a_good_one() {
        let claude = Claude {
            program: "/opt/claude".into(),
            model: "haiku".to_owned(),
            provider: Some("http://127.0.0.1:1".to_owned()),
        };
        let spec = super::super::demo_spec(Some(&claude));
        let parsed = crate::spec::parse(spec.to_string().as_bytes());
        assert!(
            parsed.faults.is_empty() && parsed.bad_agents.is_empty(),
            "{parsed:?}"
        );
        let spec = parsed.spec.expect("a spec");
        assert_eq!(spec.programs.claude.as_deref(), Some("/opt/claude"));
        let queen = &spec.agents["queen"].driver.script;
        let body = format!("{:?}", queen[0]);
        assert!(
            body.contains(&queen[1].on),
            "she is told what queen waits for: {body}"
        );
    }
}
