//! `hive inbox`, `ask`, `questions`, `answer` and `loose-ends`: talking with agents, and what is still open.

use clap::ValueEnum;
use jiff::SignedDuration;
use serde_json::Value;
use shared::admin_api::Acknowledged;
use shared::agent_api::{DeliveryState, MessageKind, SentMessage};
use shared::loose_end::{LooseEnd, LooseEndId};
use shared::question::{AnswerRequest, AskRequest, QuestionInfo, QuestionState};
use shared::topic::Topic;
use shared::{Address, AgentName};

use super::Session;
use super::agent::{acknowledged, text_of};
use super::client::segment;
use super::error::CliError;
use super::exit::Exit;
use super::look::{Look, parse_duration};
use super::page::{Page, Span, Table, Tone};
use super::text::shorten;

/// How much of a text stands in a table, in characters.
const IN_A_LINE: usize = 80;

/// Where a message is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum State {
    /// Waits for a turn
    Queued,
    /// A turn has it
    Leased,
    /// A turn had it and ended well
    Delivered,
    /// It is not delivered any more
    Dead,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// Arguments of `hive inbox`.
#[derive(Debug, clap::Args)]
pub(super) struct InboxArgs {
    /// The agent; without it, you
    agent: Option<AgentName>,
    /// Show everybody's messages
    #[arg(long, conflicts_with = "agent")]
    all: bool,
    /// Show only messages whose text has this in it
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Show only messages in this state
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Show only messages with a lower number
    #[arg(long, value_name = "N")]
    before: Option<u64>,
    /// Show at most this many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Queue this message again, which is dead
    #[arg(long, value_name = "N", conflicts_with_all = ["agent", "all", "search", "state", "before", "limit"])]
    requeue: Option<u64>,
}

/// Arguments of `hive ask`.
#[derive(Debug, clap::Args)]
pub(super) struct AskArgs {
    /// The agent
    agent: AgentName,
    /// The question; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Wait for an answer no longer than this, such as 30m, 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<SignedDuration>,
    /// What holds when no answer came in time
    #[arg(long, value_name = "TEXT", requires = "ttl", allow_hyphen_values = true)]
    default: Option<String>,
    /// Ask once however often this command is run with the same id
    #[arg(long, value_name = "ID")]
    dedupe: Option<String>,
}

/// Arguments of `hive questions`.
#[derive(Debug, clap::Args)]
pub(super) struct QuestionsArgs {
    /// Show those that have ended, too, with their answers
    #[arg(long)]
    all: bool,
}

/// Arguments of `hive answer`.
#[derive(Debug, clap::Args)]
pub(super) struct AnswerArgs {
    /// The question's number
    #[arg(value_name = "N")]
    id: u64,
    /// The answer; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
}

/// Arguments of `hive loose-ends`.
#[derive(Debug, clap::Args)]
pub(super) struct LooseEndsArgs {
    /// Take this one back: question/N, reminder/N or message/N
    #[arg(long, value_name = "ID")]
    drop: Option<LooseEndId>,
}

pub(super) async fn inbox(session: &mut Session<'_>, args: InboxArgs) -> Result<Exit, CliError> {
    if let Some(id) = args.requeue {
        let path = format!("/v1/messages/{id}/requeue");
        let reply = session.client.post::<SentMessage>(&path, &Value::Null).await?;
        session.ui.show(&reply.raw, || {
            said(format!("message {id} to {} is queued again", reply.view.to))
        })?;
        return Ok(Exit::Done);
    }
    let mut path = format!("/v1/messages?limit={}", args.limit);
    if !args.all {
        let to = args.agent.map_or(Address::Operator, Address::Agent);
        path.push_str(&format!("&to={to}"));
    }
    if let Some(state) = args.state {
        path.push_str(&format!("&state={}", state.word()));
    }
    if let Some(text) = &args.search {
        path.push_str(&format!("&text={}", segment(text)));
    }
    if let Some(before) = args.before {
        path.push_str(&format!("&before={before}"));
    }
    let reply = session.client.get::<Vec<SentMessage>>(&path).await?;
    let look = session.look();
    session
        .ui
        .show(&reply.raw, || render_messages(&reply.view, &look))?;
    Ok(Exit::Done)
}

pub(super) async fn ask(session: &mut Session<'_>, args: AskArgs) -> Result<Exit, CliError> {
    let AskArgs {
        agent,
        text,
        ttl,
        default,
        dedupe,
    } = args;
    let body = text_of(text, &format!("the question to {agent}")).await?;
    let request = AskRequest {
        to: Address::Agent(agent.clone()),
        body,
        ttl_secs: ttl.map(|ttl| ttl.unsigned_abs().as_secs().max(1)),
        default,
        dedupe,
    };
    let reply = session
        .client
        .post::<QuestionInfo>("/v1/questions", &request)
        .await?;
    session.ui.show(&reply.raw, || {
        said(format!("question {} to {agent} is asked", reply.view.id))
    })?;
    Ok(Exit::Done)
}

pub(super) async fn questions(session: &mut Session<'_>, args: QuestionsArgs) -> Result<Exit, CliError> {
    let path = if args.all {
        "/v1/questions?all=true"
    } else {
        "/v1/questions"
    };
    let reply = session.client.get::<Vec<QuestionInfo>>(path).await?;
    let look = session.look();
    session
        .ui
        .show(&reply.raw, || render_questions(&reply.view, &look))?;
    Ok(Exit::Done)
}

pub(super) async fn answer(session: &mut Session<'_>, args: AnswerArgs) -> Result<Exit, CliError> {
    let AnswerArgs { id, text } = args;
    let body = text_of(text, &format!("the answer to question {id}")).await?;
    let path = format!("/v1/questions/{id}/answer");
    let reply = session
        .client
        .post::<QuestionInfo>(&path, &AnswerRequest { body })
        .await?;
    session.ui.show(&reply.raw, || {
        said(format!("question {id} of {} is answered", reply.view.from))
    })?;
    Ok(Exit::Done)
}

pub(super) async fn loose_ends(session: &mut Session<'_>, args: LooseEndsArgs) -> Result<Exit, CliError> {
    if let Some(end) = args.drop {
        session.client.delete(&format!("/v1/loose-ends/{end}")).await?;
        let done = Acknowledged {
            message: format!("{end} is taken back"),
            changed: true,
        };
        let document = serde_json::json!({ "message": done.message, "changed": done.changed });
        session.ui.show(&document, || acknowledged(&done))?;
        return Ok(Exit::Done);
    }
    let reply = session.client.get::<Vec<LooseEnd>>("/v1/loose-ends").await?;
    let look = session.look();
    session
        .ui
        .show(&reply.raw, || render_loose_ends(&reply.view, &look))?;
    Ok(Exit::Done)
}

pub(super) fn said(message: String) -> Page {
    acknowledged(&Acknowledged {
        message,
        changed: true,
    })
}

/// The beginning of a text, for a line of a table.
fn in_a_line(text: &str) -> Span {
    let words: Vec<&str> = text.split_whitespace().take(IN_A_LINE).collect();
    Tone::Plain.of(shorten(&words.join(" "), IN_A_LINE))
}

fn kind(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Message => "message",
        MessageKind::Question => "question",
        MessageKind::Answer => "answer",
        MessageKind::System => "system",
        MessageKind::Unknown => "?",
    }
}

fn delivery(state: DeliveryState) -> Span {
    match state {
        DeliveryState::Queued => Tone::Info.of("… queued"),
        DeliveryState::Leased => Tone::Info.of("→ leased"),
        DeliveryState::Delivered => Tone::Good.of("✓ delivered"),
        DeliveryState::Dead => Tone::Bad.of("✗ dead"),
        DeliveryState::Unknown => Tone::Warn.of("?"),
    }
}

fn render_messages(messages: &[SentMessage], look: &Look) -> Page {
    let mut page = Page::default();
    if messages.is_empty() {
        page.line(["there are no such messages".into()]);
        return page;
    }
    let mut table = Table::with_header(&["N", "WHEN", "FROM", "TO", "KIND", "STATE", "TEXT"]);
    for message in messages {
        table.row([
            Tone::Strong.of(message.id.to_string()),
            Tone::Faint.of(look.relative(message.at)),
            message.from.to_string().into(),
            message.to.to_string().into(),
            message.topic.map_or(kind(message.kind), Topic::as_str).into(),
            delivery(message.state),
            in_a_line(&message.body),
        ]);
    }
    page.table(&table);
    page
}

fn render_questions(questions: &[QuestionInfo], look: &Look) -> Page {
    let mut page = Page::default();
    if questions.is_empty() {
        page.line(["there are no open questions".into()]);
    }
    for question in questions {
        page.gap();
        let (tone, how) = match question.state {
            QuestionState::Open => (Tone::Warn, "open"),
            QuestionState::Answered => (Tone::Good, "answered"),
            QuestionState::Cancelled => (Tone::Faint, "taken back"),
            QuestionState::Expired => (Tone::Faint, "out of time"),
            QuestionState::Unknown => (Tone::Warn, "?"),
        };
        let mut line = vec![
            Tone::Strong.of(format!("question {}", question.id)),
            Tone::Plain.of(format!(" of {} to {} · ", question.from, question.to)),
            tone.of(how),
            Tone::Faint.of(format!(" · asked {}", look.relative(question.asked_at))),
        ];
        let is_open = question.state == QuestionState::Open;
        if let Some(expires) = question.expires_at.filter(|_| is_open) {
            line.push(Tone::Faint.of(format!(" · ends {}", look.relative(expires))));
        }
        page.line(line);
        page.quote(&question.body);
        if let Some(default) = question.default.as_ref().filter(|_| is_open) {
            page.line([Tone::Faint.of("  without an answer: "), in_a_line(default)]);
        }
        if let (Some(by), Some(answer)) = (&question.ended_by, &question.answer) {
            let at = question.ended_at.map_or_else(String::new, |at| look.relative(at));
            page.line([Tone::Faint.of(format!("  {by}, {at}:"))]);
            page.quote(answer);
        }
        if is_open && question.to == Address::Operator {
            let command = format!("hive answer {} TEXT", question.id);
            page.line([Tone::Faint.of("  → "), look.command(&command)]);
        }
    }
    page
}

fn render_loose_ends(ends: &[LooseEnd], look: &Look) -> Page {
    let mut page = Page::default();
    if ends.is_empty() {
        page.line(["nothing is open".into()]);
        return page;
    }
    let mut table = Table::with_header(&["ID", "SINCE", "OWNER", "WAITS FOR", "DUE", "ABOUT"]);
    for end in ends {
        let waits = end
            .waits_for
            .as_ref()
            .map_or_else(|| "time".to_owned(), ToString::to_string);
        let about = match &end.error {
            Some(error) => Tone::Bad.of(format!("{} ({error})", end.about)),
            None => end.about.as_str().into(),
        };
        table.row([
            Tone::Strong.of(&end.id),
            Tone::Faint.of(look.relative(end.since)),
            end.owner.to_string().into(),
            waits.into(),
            Tone::Faint.of(end.due.map_or_else(String::new, |due| look.relative(due))),
            about,
        ]);
    }
    page.table(&table);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    fn read<T: serde::de::DeserializeOwned>(document: Value) -> Vec<T> {
        vec![serde_json::from_value(document).expect("a wire document")]
    }

    #[test]
    fn messages_are_one_line_each_and_cannot_act_on_a_terminal() {
        let page = render_messages(&read(fixtures::message_json()), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        N  WHEN     FROM   TO        KIND     STATE        TEXT
        7  3 m ago  alice  operator  message  ✓ delivered  the wiki ␛[2Jis ready see /wiki
        ");
    }

    #[test]
    fn a_question_is_shown_with_what_can_be_done_about_it() {
        let page = render_questions(&read(fixtures::question_json("open")), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        question 41 of alice to operator · open · asked 3 m ago · ends in 1 h
          │ red or blue?
          without an answer: blue
          → hive answer 41 TEXT
        ");
    }

    #[test]
    fn a_question_that_has_ended_is_shown_with_who_ended_it() {
        let page = render_questions(&read(fixtures::question_json("answered")), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        question 41 of alice to operator · answered · asked 3 m ago
          │ red or blue?
          operator, 1 m ago:
          │ red
          │ ␛[31mreally
        ");
    }

    #[test]
    fn a_loose_end_says_whom_it_waits_for_and_what_is_wrong() {
        let page = render_loose_ends(&read(fixtures::loose_end_json()), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        ID          SINCE    OWNER  WAITS FOR  DUE      ABOUT
        reminder/3  1 h ago  alice  time       in 30 m  water the plants (the inbox of alice is full)
        ");
    }
}
