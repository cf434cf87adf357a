//! `hive events AGENT`: what happens in an agent's turns, as the daemon remembers it or as it happens.

use shared::AgentName;
use shared::agent_event::{AgentEvent, AgentEventKind, AgentEventPage, StreamedEvent, UsedSoFar};

use super::error::CliError;
use super::exit::Exit;
use super::look::stamp;
use super::page::{Page, Span, Tone};
use super::text::shorten;
use super::{Session, sse};

/// From this length on a line of text is shown before its end has come, in bytes.
const LONG_LINE: usize = 400;
/// How much of what goes into a tool, or comes out of it, stands in a line, in characters.
const IN_A_LINE: usize = 160;

/// What is shown, and where the reader is.
#[derive(Debug, Default)]
struct Reader {
    epoch: String,
    position: u64,
    /// Text of the model whose line has not ended yet.
    text: String,
}

pub(super) async fn run(
    session: &mut Session<'_>,
    agent: &AgentName,
    lines: u64,
    follow: bool,
) -> Result<Exit, CliError> {
    let path = format!("/v1/agents/{agent}/events?limit={lines}");
    let page = session.client.get::<AgentEventPage>(&path).await?.view;
    let mut reader = Reader {
        epoch: page.epoch,
        position: page.last,
        text: String::new(),
    };
    for event in &page.events {
        show(session, &mut reader, event)?;
    }
    if !follow {
        flush(session, &mut reader)?;
        return Ok(Exit::Done);
    }
    tokio::select! {
        // Nothing is lost by dropping the follower in the middle: it only reads.
        stop = tokio::signal::ctrl_c() => stop.map(|()| Exit::Done).map_err(CliError::Output),
        end = go_on(session, agent, reader) => end,
    }
}

/// Shows events as they come, across restarts of the daemon.
async fn go_on(session: &mut Session<'_>, agent: &AgentName, mut reader: Reader) -> Result<Exit, CliError> {
    let path = format!("/v1/agents/{agent}/events?follow=true");
    loop {
        let seen = format!("{}.{}", reader.epoch, reader.position);
        let stream = sse::patiently(async || session.client.stream(&path, &seen).await).await?;
        if let Some(epoch) = stream.headers().get(shared::admin_api::EPOCH_HEADER) {
            epoch.to_str().unwrap_or_default().clone_into(&mut reader.epoch);
        }
        sse::read(stream, |event| show(session, &mut reader, &event)).await?;
        flush(session, &mut reader)?;
        session
            .ui
            .note("the connection to the daemon was lost; trying again")?;
        sse::pause().await;
    }
}

fn show(session: &mut Session<'_>, reader: &mut Reader, streamed: &StreamedEvent) -> Result<(), CliError> {
    reader.position = streamed.position;
    if session.ui.is_json() {
        return session.ui.show_line(streamed, Page::default);
    }
    let page = reader.page(&streamed.event);
    session.ui.page(&page)
}

fn flush(session: &mut Session<'_>, reader: &mut Reader) -> Result<(), CliError> {
    let mut page = Page::default();
    reader.flush(&mut page);
    session.ui.page(&page)
}

impl Reader {
    /// What an event adds to what is shown. Text is shown line by line, however it is cut into events.
    fn page(&mut self, event: &AgentEvent) -> Page {
        let mut page = Page::default();
        if event.kind != AgentEventKind::Text {
            self.flush(&mut page);
            page.line(spans(event));
            return page;
        }
        self.text.push_str(&event.text);
        while let Some(end) = self.text.find('\n') {
            let rest = self.text.split_off(end + 1);
            let line = std::mem::replace(&mut self.text, rest);
            page.line([INDENT.into(), line.trim_end().into()]);
        }
        if self.text.len() > LONG_LINE {
            self.flush(&mut page);
        }
        page
    }

    fn flush(&mut self, page: &mut Page) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            page.line([INDENT.into(), text.as_str().into()]);
        }
    }
}

/// Before a line of the model.
const INDENT: &str = "                        ";

fn spans(event: &AgentEvent) -> Vec<Span> {
    let AgentEvent {
        at,
        kind,
        text,
        tool,
        ok,
        used,
        ..
    } = event;
    let failed = *ok == Some(false);
    let tone = match kind {
        AgentEventKind::Started => Tone::Strong,
        AgentEventKind::Ended if failed => Tone::Bad,
        AgentEventKind::Ended => Tone::Good,
        AgentEventKind::ToolCall => Tone::Info,
        AgentEventKind::ToolResult if failed => Tone::Warn,
        AgentEventKind::Alarm => Tone::Bad,
        AgentEventKind::Lost | AgentEventKind::Unreadable => Tone::Warn,
        AgentEventKind::Text
        | AgentEventKind::ToolResult
        | AgentEventKind::Notice
        | AgentEventKind::Used
        | AgentEventKind::Raw
        | AgentEventKind::Unknown => Tone::Faint,
    };
    let mut line = vec![
        Tone::Faint.of(format!("{}  ", stamp(*at))),
        tone.of(format!("{:<10}", kind.as_str())),
    ];
    if let Some(tool) = tool {
        line.extend([" ".into(), tool.as_str().into()]);
    }
    let said = match kind {
        AgentEventKind::ToolCall | AgentEventKind::ToolResult => shorten(text, IN_A_LINE),
        _ => text.clone(),
    };
    if !said.is_empty() {
        line.extend([" ".into(), tone.of(said)]);
    }
    if let Some(used) = used {
        line.extend([" ".into(), Tone::Faint.of(usage(used))]);
    }
    line
}

fn usage(used: &UsedSoFar) -> String {
    let mut text = format!("{} tokens", used.tokens.total());
    if let Some(usd) = used.cost_usd {
        text.push_str(&format!(", ${usd:.4}"));
    }
    match (used.context, used.window) {
        (Some(context), Some(window)) if window > 0 => {
            let percent = context.saturating_mul(100) / window;
            text.push_str(&format!(", {percent} % of the window"));
        }
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use shared::turn::Tokens;

    use super::*;
    use crate::cli::fixtures;

    fn event(kind: AgentEventKind, text: &str) -> AgentEvent {
        AgentEvent {
            seq: 1,
            at: fixtures::now(),
            turn: None,
            kind,
            text: text.to_owned(),
            tool: None,
            ok: None,
            used: None,
        }
    }

    #[test]
    fn a_turn_reads_like_a_conversation_and_cannot_act_on_a_terminal() {
        let events = [
            event(AgentEventKind::Started, "operator"),
            event(AgentEventKind::Text, "I will lo"),
            event(AgentEventKind::Text, "ok\nat \x1b[2Jit"),
            AgentEvent {
                tool: Some("Read".to_owned()),
                ..event(AgentEventKind::ToolCall, "{\"path\":\"a\"}")
            },
            AgentEvent {
                tool: Some("Read".to_owned()),
                ok: Some(false),
                ..event(AgentEventKind::ToolResult, "no such\nfile")
            },
            AgentEvent {
                used: Some(UsedSoFar {
                    tokens: Tokens {
                        output: 1200,
                        ..Tokens::default()
                    },
                    cost_usd: Some(0.25),
                    context: Some(50),
                    window: Some(200),
                }),
                ..event(AgentEventKind::Used, "")
            },
            AgentEvent {
                ok: Some(true),
                ..event(AgentEventKind::Ended, "ok")
            },
        ];
        let mut reader = Reader::default();
        let shown: String = events
            .iter()
            .map(|event| fixtures::plain(&reader.page(event)))
            .collect();
        insta::assert_snapshot!(shown, @r#"
        2026-01-02 12:00:00Z  turn begins operator
                                I will look
                                at ␛[2Jit
        2026-01-02 12:00:00Z  calls      Read {"path":"a"}
        2026-01-02 12:00:00Z  answer     Read no such␊file
        2026-01-02 12:00:00Z  used       1200 tokens, $0.2500, 25 % of the window
        2026-01-02 12:00:00Z  turn ends  ok
        "#);
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        let mut reader = Reader::default();
        let long = "x".repeat(LONG_LINE);
        assert_eq!(
            fixtures::plain(&reader.page(&event(AgentEventKind::Text, &long))),
            ""
        );
        let shown = fixtures::plain(&reader.page(&event(AgentEventKind::Text, "y")));
        assert_eq!(shown.trim(), format!("{long}y"));
        assert!(reader.text.is_empty());
    }
}
