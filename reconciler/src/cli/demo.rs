//! `hive demo`: a manager and two agents that need no model, and a proposal that waits for you.

mod claude;

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use shared::admin_api::{EventPage, OperatorMessage};
use shared::agent_api::SendResponse;
use shared::event::Event;
use shared::gate::{Gate, GateState};
use tokio::sync::watch;

use self::claude::{Claude, Watch};
use super::client::Client;
use super::daemon::{DemoArgs, DemoDriver, LogArgs, ServeArgs};
use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Tone};
use super::ui::Ui;

use crate::control::lock::LockError;
use crate::control::serve::{AtEnd, ServeError, check_free, clear, serve_until, wait_for_signal};
use crate::host::Clock as _;
use crate::host::clock::SystemClock;
use crate::host::folders::write_atomic;
use crate::host::layout::MAX_SOCKET_PATH;

/// How long the daemon may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(15);
/// How often news is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What happens all the time; `hive events` has it.
const QUIET: [&str; 6] = [
    "specAccepted",
    "gateAutoApproved",
    "built",
    "spawned",
    "started",
    "passedProbation",
];

/// Runs the demo until Ctrl-C.
pub(super) async fn run(ui: &mut Ui, args: DemoArgs) -> Result<Exit, CliError> {
    let claude = match args.driver {
        DemoDriver::Scripted => None,
        DemoDriver::Claude => Some(Claude::chosen(&args).await?),
    };
    if args.print_spec {
        return ui.raw_json(&demo_spec(claude.as_ref())).map(|()| Exit::Done);
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
    let serve = ServeArgs {
        spec: dir.join("hive.json"),
        state: dir.join("state"),
        run: dir.join("run"),
        harness: None,
        logging: args.logging,
    };
    prepare(&dir, &serve, args.fresh, claude.as_ref()).await?;
    let socket = serve.run.join("admin.sock");
    let (tell, shutdown) = watch::channel(false);
    let daemon = tokio::spawn(serve_until(serve, shutdown, AtEnd::StopAgents));
    let told = tokio::select! {
        ended = story(ui, &socket, &dir, &daemon, claude.as_ref()) => ended,
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

/// Makes the folder ready. Nothing in it is touched while another demo runs there.
async fn prepare(
    dir: &Utf8Path,
    serve: &ServeArgs,
    fresh: bool,
    claude: Option<&Claude>,
) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |error: std::io::Error| unusable(dir, &error);
    let socket = serve.run.join("agents/queen/sock/hive.sock~");
    if socket.as_str().len() > MAX_SOCKET_PATH {
        let why = format!(
            "a socket in it would have a path of {} bytes, and {MAX_SOCKET_PATH} are possible",
            socket.as_str().len()
        );
        return Err(unusable(dir, &why));
    }
    if fresh && dir.exists() && !serve.spec.exists() {
        // Only what an earlier demo made is removed.
        return Err(unusable(
            dir,
            &"it holds no earlier demo, so nothing in it is removed",
        ));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let free = if fresh {
        clear(serve).await
    } else {
        check_free(serve).await
    };
    free.map_err(|error| taken(dir, serve, &error))?;
    let spec = demo_spec(claude);
    if !fresh && other_driver(&serve.spec, &spec) {
        let why = "alice has another driver in the demo that it holds (--fresh begins anew there)";
        return Err(unusable(dir, &why));
    }
    if fresh || !serve.spec.exists() {
        let text = format!("{spec:#}\n");
        write_atomic(&serve.spec, text.as_bytes(), 0o644).map_err(|error| unusable(dir, &error.chain()))?;
    }
    Ok(())
}

/// Whether alice is run by something else in the spec of an earlier demo. What else was changed in it is respected.
fn other_driver(file: &Utf8Path, wanted: &serde_json::Value) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let earlier: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let kind = "/agents/alice/driver/kind";
    earlier
        .pointer(kind)
        .is_some_and(|earlier| Some(earlier) != wanted.pointer(kind))
}

fn taken(dir: &Utf8Path, serve: &ServeArgs, error: &ServeError) -> CliError {
    let ServeError::Lock(LockError::Taken { pid, .. }) = error else {
        return unusable(dir, &crate::error_chain(error));
    };
    let pid = pid
        .as_ref()
        .map_or_else(String::new, |pid| format!(" (process {pid})"));
    let socket = super::text::shell_word(serve.run.join("admin.sock").as_str());
    CliError::Daemon(format!(
        "a demo runs in {dir} already{pid}: look at it with `hive --socket {socket} status`, \
         end it with Ctrl-C there, or give this one another folder with --dir"
    ))
}

/// The spec of the demo, as a user would write one.
fn demo_spec(claude: Option<&Claude>) -> serde_json::Value {
    let propose = json!({
        "title": "Look after the garden too",
        "reason": "The garden has no keeper, and I have time for it.",
        "set": { "prompt": "You look after the wiki and the garden." }
    });
    let mut spec = json!({
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
    });
    if let Some(claude) = claude {
        claude.declare(&mut spec);
    }
    spec
}

type DaemonTask = tokio::task::JoinHandle<Result<(), ServeError>>;

async fn story(
    ui: &mut Ui,
    socket: &Utf8PathBuf,
    dir: &Utf8Path,
    daemon: &DaemonTask,
    claude: Option<&Claude>,
) -> Result<(), CliError> {
    let client = Client::new(socket)?;
    let Some(mut after) = up(&client, daemon).await? else {
        return Ok(());
    };
    let look = Look {
        now: SystemClock.now(),
        socket: Some(socket.to_string()),
    };
    let message = OperatorMessage {
        body: "begin".to_owned(),
        dedupe: Some("demo-begin".to_owned()),
    };
    let again = begin(&client, &message, daemon).await?;
    ui.page(&intro(&look, dir, again, claude))?;
    remind(ui, &client, &look).await?;
    let mut watch = Watch::default();
    while !daemon.is_finished() {
        let page = client
            .get::<EventPage>(&format!("/v1/events?after={after}"))
            .await?
            .view;
        for event in page.events {
            after = event.seq;
            let page = told(&event, &look);
            if !page.as_ansi().is_empty() {
                ui.page(&page)?;
            }
        }
        if claude.is_some() {
            watch.look(ui, &client, &look).await?;
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

/// Sends the first message, as soon as its recipient is registered. Says whether an earlier run has sent it.
async fn begin(client: &Client, message: &OperatorMessage, daemon: &DaemonTask) -> Result<bool, CliError> {
    let began = tokio::time::Instant::now();
    loop {
        match client
            .post::<SendResponse>("/v1/agents/queen/messages", message)
            .await
        {
            Ok(reply) => return Ok(reply.view.duplicate),
            Err(error) if began.elapsed() > UP_WITHIN || daemon.is_finished() => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Says what an earlier run of the demo left to decide.
async fn remind(ui: &mut Ui, client: &Client, look: &Look) -> Result<(), CliError> {
    let gates = client.get::<Vec<Gate>>("/v1/gates").await?.view;
    for gate in gates.iter().filter(|gate| gate.state == GateState::Open) {
        let mut page = Page::default();
        let what = format!("gate {} ({}) still waits for you:", gate.id, gate.view.summary);
        page.line([Tone::Warn.of("◆ "), Tone::Strong.of(what)]);
        for verb in ["show", "approve", "deny"] {
            let command = format!("hive gate {verb} {}", gate.id);
            page.line(["    ".into(), look.command(&command)]);
        }
        ui.page(&page)?;
    }
    Ok(())
}

fn intro(look: &Look, dir: &Utf8Path, again: bool, claude: Option<&Claude>) -> Page {
    let mut page = Page::default();
    if let Some(claude) = claude {
        claude.intro(&mut page, dir);
    } else {
        page.line([Tone::Strong.of("A hive of three scripted agents: queen (the manager), alice and bob.")]);
        page.line([
            format!("Everything is in {dir}; no model is called, nothing leaves this machine.").into(),
        ]);
    }
    page.line(["In another terminal: ".into(), look.command("hive status")]);
    page.line([if again {
        "Ctrl-C ends it. It goes on where an earlier run ended; --fresh begins anew."
    } else {
        "Ctrl-C ends it. Now queen asks alice to take over the garden."
    }
    .into()]);
    page.line(["".into()]);
    page
}

/// What an event is to somebody who watches.
fn told(event: &Event, look: &Look) -> Page {
    let mut page = Page::default();
    let tone = match event.level {
        shared::event::Level::Info => Tone::Plain,
        shared::event::Level::Warning => Tone::Warn,
        shared::event::Level::Alert => Tone::Strong,
    };
    if QUIET.contains(&event.kind.as_str()) {
        return page;
    }
    let mark = match event.kind.as_str() {
        "gateOpened" => Tone::Warn.of("◆ "),
        "messageToOperator" => Tone::Info.of("» "),
        _ => Tone::Good.of("• "),
    };
    page.line([mark, tone.of(&event.message)]);
    if event.kind == "gateOpened" {
        let gate = event
            .data
            .get("gate")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default();
        page.line(["".into()]);
        page.line([Tone::Strong.of("  It is your turn. Look at what would happen, then decide:")]);
        for verb in ["show", "approve", "deny"] {
            page.line(["    ".into(), look.command(&format!("hive gate {verb} {gate}"))]);
        }
        page.line(["".into()]);
    }
    page
}
