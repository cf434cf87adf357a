//! `hive start`, `stop`, `restart`, `suspend`, `resume`, `retry` and `send`: commands to one agent.

use std::io::Read as _;

use jiff::SignedDuration;
use serde::Serialize;
use shared::admin_api::{Acknowledged, ModelRequest, OperatorMessage, OverrideRequest, RollbackRequest};
use shared::agent_api::{MAX_BODY_BYTES, SendResponse};
use shared::{AgentName, ProposalNumber};

use super::Session;
use super::error::CliError;
use super::exit::Exit;
use super::look::parse_duration;
use super::page::{Page, Tone};

/// An override that holds until it is taken back.
#[derive(Debug, clap::Args)]
pub(super) struct OverrideArgs {
    /// The agent
    pub(super) agent: AgentName,
    /// Say why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) reason: String,
}

/// An override that may end by itself.
#[derive(Debug, clap::Args)]
pub(super) struct TimedOverrideArgs {
    #[command(flatten)]
    pub(super) of: OverrideArgs,
    /// End it by itself after this time, such as 30m, 2h or 1d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub(super) lasts: Option<SignedDuration>,
}

impl From<OverrideArgs> for TimedOverrideArgs {
    fn from(of: OverrideArgs) -> Self {
        Self { of, lasts: None }
    }
}

/// Arguments of `hive model`.
#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    #[command(flatten)]
    timed: TimedOverrideArgs,
    /// The model, in the driver's own words
    #[arg(required_unless_present = "declared")]
    model: Option<String>,
    /// Go back to the model of its config
    #[arg(long, conflicts_with_all = ["model", "lasts"])]
    declared: bool,
}

pub(super) async fn model(session: &mut Session<'_>, args: ModelArgs) -> Result<Exit, CliError> {
    let TimedOverrideArgs { of, lasts } = args.timed;
    let request = ModelRequest {
        model: args.model,
        reason: of.reason,
        until: lasts.map(|lasts| session.clock.now() + lasts),
    };
    post(session, &format!("/v1/agents/{}/model", of.agent), &request).await
}

/// Arguments of `hive rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    of: OverrideArgs,
    /// Go back to this proposal, 0 for the seed; without it, to the deployment before this one
    #[arg(long, value_name = "N")]
    to: Option<u64>,
}

pub(super) async fn rollback(session: &mut Session<'_>, args: RollbackArgs) -> Result<Exit, CliError> {
    let RollbackArgs { of, to } = args;
    let request = RollbackRequest {
        reason: of.reason,
        to: to.map(ProposalNumber),
    };
    post(session, &format!("/v1/agents/{}/rollback", of.agent), &request).await
}

/// Records an override. The daemon carries it out.
pub(super) async fn command(
    session: &mut Session<'_>,
    verb: &str,
    args: TimedOverrideArgs,
) -> Result<Exit, CliError> {
    let TimedOverrideArgs { of, lasts } = args;
    let request = OverrideRequest {
        reason: of.reason,
        until: lasts.map(|lasts| session.clock.now() + lasts),
    };
    post(session, &format!("/v1/agents/{}/{verb}", of.agent), &request).await
}

/// Sends a command and shows what the daemon says to it.
pub(super) async fn post(
    session: &mut Session<'_>,
    path: &str,
    request: &impl Serialize,
) -> Result<Exit, CliError> {
    let reply = session.client.post::<Acknowledged>(path, request).await?;
    session.ui.show(&reply.raw, || acknowledged(&reply.view))?;
    Ok(Exit::Done)
}

pub(super) fn acknowledged(answer: &Acknowledged) -> Page {
    let mut page = Page::default();
    let symbol = if answer.changed {
        Tone::Good.of("✓ ")
    } else {
        Tone::Faint.of("· ")
    };
    page.line([symbol, answer.message.as_str().into()]);
    page
}

/// Arguments of `hive send`.
#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {
    /// The agent
    agent: AgentName,
    /// The message; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Send the message once however often this command is run with the same id
    #[arg(long, value_name = "ID")]
    dedupe: Option<String>,
}

pub(super) async fn send(session: &mut Session<'_>, args: SendArgs) -> Result<Exit, CliError> {
    let SendArgs { agent, text, dedupe } = args;
    let body = text_of(text, &format!("the message to {agent}")).await?;
    let path = format!("/v1/agents/{agent}/messages");
    let message = OperatorMessage { body, dedupe };
    let reply = session.client.post::<SendResponse>(&path, &message).await?;
    session.ui.show(&reply.raw, || {
        let SendResponse { id, duplicate } = reply.view;
        let done = if duplicate { "was sent before" } else { "is stored" };
        acknowledged(&Acknowledged {
            message: format!("message {id} to {agent} {done}"),
            changed: !duplicate,
        })
    })?;
    Ok(Exit::Done)
}

/// A text as given, or as standard input has it; neither empty nor too long.
pub(super) async fn text_of(text: String, what: &str) -> Result<String, CliError> {
    let body = if text == "-" { from_stdin().await? } else { text };
    if body.trim().is_empty() {
        return Err(CliError::BadMessage(format!("{what} is empty")));
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(CliError::BadMessage(format!(
            "{what} is longer than {MAX_BODY_BYTES} bytes"
        )));
    }
    Ok(body)
}

async fn from_stdin() -> Result<String, CliError> {
    let unreadable = |source| CliError::Unreadable {
        path: "standard input".to_owned(),
        source,
    };
    let read = tokio::task::spawn_blocking(|| {
        let mut body = String::new();
        // One byte more than allowed, so that too long a message is noticed.
        let limit = u64::try_from(MAX_BODY_BYTES + 1).unwrap_or(u64::MAX);
        std::io::stdin().lock().take(limit).read_to_string(&mut body)?;
        Ok(body)
    });
    read.await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(unreadable)
}
