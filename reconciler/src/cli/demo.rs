//! `hive demo`: a manager and two agents that need no model, and a proposal that waits for you.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use shared::admin_api::{EventPage, OperatorMessage};
use shared::agent_api::SendResponse;
use shared::event::Event;
use tokio::sync::watch;

use super::client::Client;
use super::daemon::{DemoArgs, LogArgs, ServeArgs};
use super::error::CliError;
use super::exit::Exit;
use super::page::{Page, Tone};
use super::ui::Ui;
use crate::control::serve::{AtEnd, serve_until, wait_for_signal};
use crate::host::folders::write_atomic;

/// How long the daemon may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(15);
/// How often news is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the demo until Ctrl-C.
pub(super) async fn run(ui: &mut Ui, args: DemoArgs) -> Result<Exit, CliError> {
    if args.print_spec {
        return ui.raw_json(&demo_spec()).map(|()| Exit::Done);
    }
    let log = if args.logging.log == "info" {
        "warn".to_owned()
    } else {
        args.logging.log.clone()
    };
    LogArgs {
        log,
        ..args.logging.clone()
    }
    .init();
    let dir = camino::absolute_utf8(&args.dir).map_err(|source| unusable(&args.dir, &source))?;
    prepare(&dir, args.fresh)?;
    let serve = ServeArgs {
        spec: dir.join("hive.json"),
        state: dir.join("state"),
        run: dir.join("run"),
        harness: None,
        logging: args.logging,
    };
    let socket = serve.run.join("admin.sock");
    let (tell, shutdown) = watch::channel(false);
    let daemon = tokio::spawn(serve_until(serve, shutdown, AtEnd::StopAgents));
    let told = tokio::select! {
        ended = story(ui, &socket, &dir, &daemon) => ended,
        () = wait_for_signal() => {
            let mut page = Page::default();
            page.line([Tone::Faint.of("Stopping the agents and the daemon.")]);
            ui.page(&page).map(|_| ())
        }
    };
    // The receiver only goes away when the daemon has ended.
    let _ended = tell.send(true);
    match daemon.await {
        Ok(Ok(())) => told.map(|()| Exit::Done),
        Ok(Err(error)) => Err(CliError::Daemon(crate::error_chain(&error))),
        Err(error) => Err(CliError::Daemon(error.to_string())),
    }
}

fn unusable(dir: &Utf8Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::Daemon(format!(
        "the demo folder {dir} cannot be used: {error}; give another one with --dir"
    ))
}

fn prepare(dir: &Utf8Path, fresh: bool) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |error: std::io::Error| unusable(dir, &error);
    let spec = dir.join("hive.json");
    if fresh && dir.exists() {
        // Only what an earlier demo made is removed.
        if !spec.exists() {
            return Err(unusable(
                dir,
                &"it holds no earlier demo, so nothing in it is removed",
            ));
        }
        for folder in ["state", "run"] {
            match std::fs::remove_dir_all(dir.join(folder)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        std::fs::remove_file(&spec).map_err(failed)?;
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    if !spec.exists() {
        let text = format!("{:#}\n", demo_spec());
        write_atomic(&spec, text.as_bytes(), 0o644).map_err(|error| unusable(dir, &error.chain()))?;
    }
    Ok(())
}

/// The spec of the demo, as a user would write one.
pub(super) fn demo_spec() -> serde_json::Value {
    let propose = json!({
        "title": "Look after the garden too",
        "reason": "The garden has no keeper, and I have time for it.",
        "set": { "prompt": "You look after the wiki and the garden." }
    });
    json!({
        "version": 1,
        "hive": { "name": "demo" },
        "agents": {
            "queen": {
                "role": "manager",
                "prompt": "You lead the hive.",
                "driver": { "kind": "scripted", "script": [
                    { "on": "begin", "do": [
                        { "send": { "to": "alice", "body": "please take over the garden" } },
                        { "send": { "to": "bob", "body": "please say hello" } }
                    ] },
                    { "on": "my new config is live", "do": [
                        { "send": { "to": "operator", "body": "alice looks after the garden now. That is the whole story." } }
                    ] }
                ] }
            },
            "alice": {
                "prompt": "You look after the wiki.",
                "driver": { "kind": "scripted", "script": [
                    { "on": "take over the garden", "do": [ { "propose": propose } ] },
                    { "on": "is deployed", "do": [ { "send": { "to": "queen", "body": "my new config is live" } } ] }
                ] }
            },
            "bob": {
                "prompt": "You greet.",
                "driver": { "kind": "scripted", "script": [
                    { "on": "hello", "do": [ { "send": { "to": "operator", "body": "hello, I am bob" } } ] }
                ] }
            }
        }
    })
}

type DaemonTask = tokio::task::JoinHandle<Result<(), crate::control::serve::ServeError>>;

async fn story(
    ui: &mut Ui,
    socket: &Utf8PathBuf,
    dir: &Utf8Path,
    daemon: &DaemonTask,
) -> Result<(), CliError> {
    let client = Client::new(socket)?;
    let Some(mut after) = up(&client, daemon).await? else {
        return Ok(());
    };
    ui.page(&intro(socket, dir))?;
    let message = OperatorMessage {
        body: "begin".to_owned(),
        dedupe: Some("demo-begin".to_owned()),
    };
    begin(&client, &message, daemon).await?;
    while !daemon.is_finished() {
        let page = client
            .get::<EventPage>(&format!("/v1/events?after={after}"))
            .await?
            .view;
        for event in page.events {
            after = event.seq;
            let page = told(&event, socket);
            if !page.as_ansi().is_empty() {
                ui.page(&page)?;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits until the daemon answers; `None` when it ended first, with an error of its own.
async fn up(client: &Client, daemon: &DaemonTask) -> Result<Option<u64>, CliError> {
    let began = tokio::time::Instant::now();
    loop {
        if daemon.is_finished() {
            return Ok(None);
        }
        match client.get::<EventPage>("/v1/events?limit=1").await {
            Ok(page) => return Ok(Some(page.view.last)),
            Err(error) if began.elapsed() > UP_WITHIN => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// The first message can only be sent once its recipient is registered.
async fn begin(client: &Client, message: &OperatorMessage, daemon: &DaemonTask) -> Result<(), CliError> {
    let began = tokio::time::Instant::now();
    loop {
        match client
            .post::<SendResponse>("/v1/agents/queen/messages", message)
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > UP_WITHIN || daemon.is_finished() => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn intro(socket: &Utf8Path, dir: &Utf8Path) -> Page {
    let mut page = Page::default();
    page.line([Tone::Strong.of("A hive of three scripted agents: queen (the manager), alice and bob.")]);
    page.line([format!("Everything is in {dir}; no model is called, nothing leaves this machine.").into()]);
    page.line([format!("In another terminal: hive --socket {socket} status").into()]);
    page.line(["Ctrl-C ends it. Now queen asks alice to take over the garden.".into()]);
    page.line(["".into()]);
    page
}

/// What an event is to somebody who watches.
fn told(event: &Event, socket: &Utf8Path) -> Page {
    let mut page = Page::default();
    let tone = match event.level {
        shared::event::Level::Info => Tone::Plain,
        shared::event::Level::Warning => Tone::Warn,
        shared::event::Level::Alert => Tone::Strong,
    };
    let quiet = ["gateAutoApproved", "built", "spawned", "gateApproved"];
    if quiet.contains(&event.kind.as_str()) {
        return page;
    }
    page.line([Tone::Good.of("• "), tone.of(&event.message)]);
    if event.kind == "gateOpened" {
        let gate = event
            .data
            .get("gate")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default();
        page.line(["".into()]);
        page.line([Tone::Strong.of("  It is your turn. Look at what would happen, then decide:")]);
        page.line([format!("    hive --socket {socket} gate show {gate}").into()]);
        page.line([format!("    hive --socket {socket} gate approve {gate}").into()]);
        page.line(["".into()]);
    }
    page
}
