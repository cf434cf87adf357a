//! `hive events`: the durable stream of what happened, once or as it happens.

use reqwest::Response;
use shared::AgentName;
use shared::admin_api::{EPOCH_HEADER, EventPage};
use shared::event::{Event, Level};

use super::error::CliError;
use super::exit::Exit;
use super::look::stamp;
use super::page::{Page, Span, Tone};
use super::{Session, sse, watch, words};

/// Events asked for at once.
const PAGE: u64 = 500;
/// How wide the column of names is; most are shorter.
const NAME_WIDTH: usize = 8;

/// Arguments of `hive events`.
#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Show what happens in this agent's turns instead: the little of it that the daemon remembers
    #[arg(value_name = "AGENT", conflicts_with_all = ["after", "all"])]
    agent: Option<AgentName>,
    /// Follow: show new events as they happen, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Show routine, too: gates that the policy approved by itself
    #[arg(long)]
    all: bool,
    /// Begin after this event instead of showing the last few
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Begin with the last N events
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 20,
        conflicts_with = "after"
    )]
    lines: u64,
}

/// Where the reader is in the stream. Positions of different epochs have nothing to do with each other.
#[derive(Debug, Default)]
struct Cursor {
    epoch: Option<String>,
    after: u64,
    /// Whether routine is shown.
    all: bool,
    /// How many routine events were left out.
    left_out: usize,
}

impl Cursor {
    /// Notes the stream's epoch. Returns false, and goes back to the start, when it is another than before.
    fn stays_in(&mut self, epoch: &str) -> bool {
        match self.epoch.replace(epoch.to_owned()) {
            Some(before) if before != epoch => {
                self.after = 0;
                false
            }
            _ => true,
        }
    }
}

pub(super) async fn run(session: &mut Session<'_>, args: EventsArgs) -> Result<Exit, CliError> {
    if let Some(agent) = &args.agent {
        return watch::run(session, agent, args.lines, args.follow).await;
    }
    let mut cursor = Cursor {
        all: args.all || session.ui.is_json(),
        ..Cursor::default()
    };
    match args.after {
        Some(after) => cursor.after = after,
        None => {
            let page = page(session, 0, 1).await?;
            cursor.after = page.last.saturating_sub(args.lines);
            cursor.epoch = Some(page.epoch);
        }
    }
    if !args.follow {
        return once(session, cursor).await;
    }
    tokio::select! {
        // Nothing is lost by dropping the follower in the middle: it only reads.
        stop = tokio::signal::ctrl_c() => stop.map(|()| Exit::Done).map_err(CliError::Output),
        end = follow(session, cursor) => end,
    }
}

async fn page(session: &Session<'_>, after: u64, limit: u64) -> Result<EventPage, CliError> {
    let path = format!("/v1/events?after={after}&limit={limit}");
    Ok(session.client.get::<EventPage>(&path).await?.view)
}

/// Shows what there is and ends.
async fn once(session: &mut Session<'_>, mut cursor: Cursor) -> Result<Exit, CliError> {
    loop {
        let page = page(session, cursor.after, PAGE).await?;
        if !cursor.stays_in(&page.epoch) {
            another_epoch(session)?;
            continue;
        }
        let before = cursor.after;
        for event in &page.events {
            show(session, &mut cursor, event)?;
        }
        // Without progress there is nothing more to come, whatever `last` says.
        if cursor.after >= page.last || cursor.after == before {
            return left_out(session, cursor.left_out).map(|()| Exit::Done);
        }
    }
}

/// Shows events as they come, across restarts of the daemon.
async fn follow(session: &mut Session<'_>, mut cursor: Cursor) -> Result<Exit, CliError> {
    // A daemon that is not there to begin with is an error; one that goes away comes back.
    let mut stream = open(session, &cursor).await?;
    loop {
        let epoch = stream
            .headers()
            .get(EPOCH_HEADER)
            .and_then(|value| value.to_str().ok());
        if epoch.is_none_or(|epoch| cursor.stays_in(epoch)) {
            sse::read(stream, |event| show(session, &mut cursor, &event)).await?;
            session
                .ui
                .note("the connection to the daemon was lost; trying again")?;
        } else {
            another_epoch(session)?;
        }
        stream = sse::patiently(async || open(session, &cursor).await).await?;
    }
}

async fn open(session: &Session<'_>, cursor: &Cursor) -> Result<Response, CliError> {
    let path = format!("/v1/events?after={}&follow=true", cursor.after);
    session.client.stream(&path, &cursor.after.to_string()).await
}

/// Shows an event once, even when the stream repeats it.
fn show(session: &mut Session<'_>, cursor: &mut Cursor, event: &Event) -> Result<(), CliError> {
    if event.seq <= cursor.after {
        return Ok(());
    }
    cursor.after = event.seq;
    if is_routine(event) && !cursor.all {
        cursor.left_out += 1;
        return Ok(());
    }
    session.ui.show_line(event, || {
        let mut page = Page::default();
        page.line(spans(event, NAME_WIDTH));
        page
    })
}

/// Whether nobody but an auditor wants to see it: what the approval led to has an event of its own.
pub(super) fn is_routine(event: &Event) -> bool {
    event.kind == "gateAutoApproved"
}

fn left_out(session: &mut Session<'_>, count: usize) -> Result<(), CliError> {
    if count == 0 {
        return Ok(());
    }
    let mut page = Page::default();
    let gates = super::text::count(count, "gate");
    let text = format!("{gates} that the policy approved by itself: see them with --all");
    page.line([Tone::Faint.of(text)]);
    session.ui.page(&page)
}

fn another_epoch(session: &mut Session<'_>) -> Result<(), CliError> {
    session
        .ui
        .note("the daemon has another ledger now; its events are shown from the first one")
}

/// An event on one line; names are padded to `width`.
pub(super) fn spans(event: &Event, width: usize) -> [Span; 6] {
    let (tone, mark) = match (event.level, event.kind.as_str()) {
        (_, "gateOpened") => (Tone::Warn, "◆ "),
        (Level::Info, _) => (Tone::Plain, "  "),
        (Level::Warning, _) => (Tone::Warn, "! "),
        (Level::Alert, _) => (Tone::Bad, "✗ "),
    };
    let agent = event.agent.as_ref();
    let length = agent.map_or("(hive)".len(), |name| name.as_str().len());
    [
        Tone::Faint.of(format!("{:>6}  {}  ", event.seq, stamp(event.at))),
        tone.of(mark),
        words::agent(agent),
        " ".repeat(width.saturating_sub(length)).into(),
        "  ".into(),
        tone.of(words::without_name(&event.message, agent)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let mut event = fixtures::event(7);
        event.message = "two\nlines \x1b[1m".to_owned();
        let mut page = Page::default();
        page.line(spans(&event, 0));
        assert_eq!(
            fixtures::plain(&page),
            "     7  2026-01-02 11:57:00Z  ◆ alice  two␊lines ␛[1m\n"
        );
    }

    #[test]
    fn another_epoch_begins_at_its_first_event() {
        let mut cursor = Cursor {
            after: 5,
            ..Cursor::default()
        };
        assert!(cursor.stays_in("a"));
        assert!(cursor.stays_in("a"));
        assert_eq!(cursor.after, 5);
        assert!(!cursor.stays_in("b"));
        assert_eq!(cursor.after, 0);
        assert!(cursor.stays_in("b"));
    }
}
