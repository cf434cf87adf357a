//! `hive login`: an agent's own program logs in, and the operator is its browser.

use std::time::Duration;

use serde_json::json;
use shared::AgentName;
use shared::login::{LoginAnswer, LoginCode, LoginPhase, LoginState, MAX_CODE_BYTES};
use tokio::time::Instant;

use super::Session;
use super::client::Reply;
use super::error::CliError;
use super::exit::Exit;
use super::page::{Page, Tone};

/// How often it is asked how the login stands.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the harness may take to say something new.
const NEWS_WITHIN: Duration = Duration::from_secs(90);

/// Arguments of `hive login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The code is read from standard input: it is on no command line and in no history.")]
pub(super) struct LoginArgs {
    /// The agent
    agent: AgentName,
}

pub(super) async fn run(session: &mut Session<'_>, args: LoginArgs) -> Result<Exit, CliError> {
    let LoginArgs { agent } = args;
    let begun = session
        .client
        .post::<LoginState>(&format!("/v1/agents/{agent}/login"), &json!({}))
        .await?;
    let path = format!("/v1/agents/{agent}/login");
    let waiting = until(session, &path, begun, |phase| {
        phase.is_over() || phase == LoginPhase::WaitingForCode
    })
    .await?;
    if waiting.view.phase.is_over() {
        return told(session, &agent, &waiting);
    }
    session
        .ui
        .show(&waiting.raw, || to_open(&agent, waiting.view.url.as_deref()))?;
    let code = tokio::task::spawn_blocking(read_code)
        .await
        .map_err(|error| CliError::Daemon(error.to_string()))?
        .map_err(|source| CliError::Unreadable {
            path: "standard input".to_owned(),
            source,
        })?;
    if code.is_empty() {
        return Err(CliError::BadMessage(format!(
            "no code was given: {agent} is not logged in; run `hive login {agent}` again"
        )));
    }
    let answer = LoginAnswer {
        id: waiting.view.id,
        code: LoginCode(code),
    };
    let tried = session
        .client
        .post::<LoginState>(&format!("{path}/code"), &answer)
        .await?;
    let ended = until(session, &path, tried, LoginPhase::is_over).await?;
    told(session, &agent, &ended)
}

/// Waits until the login is like this.
async fn until(
    session: &Session<'_>,
    path: &str,
    mut reply: Reply<LoginState>,
    like: impl Fn(LoginPhase) -> bool,
) -> Result<Reply<LoginState>, CliError> {
    let id = reply.view.id;
    let until = Instant::now() + NEWS_WITHIN;
    while !like(reply.view.phase) {
        if reply.view.id != id {
            return Err(CliError::BadMessage(
                "another login was begun meanwhile, which ends this one".to_owned(),
            ));
        }
        if Instant::now() > until {
            return Err(CliError::BadMessage(
                "the agent's harness says nothing of the login: restart the agent, and try again".to_owned(),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        reply = session.client.get::<LoginState>(path).await?;
    }
    Ok(reply)
}

/// One line of standard input.
fn read_code() -> std::io::Result<String> {
    use std::io::{BufRead as _, Read as _};
    let mut line = String::new();
    let longest = u64::try_from(MAX_CODE_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(2);
    std::io::stdin().lock().take(longest).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn to_open(agent: &AgentName, url: Option<&str>) -> Page {
    let mut page = Page::default();
    let Some(url) = url else {
        page.line([Tone::Warn.of(format!(
            "{agent} wants a code, and names no address where one is shown."
        ))]);
        return page;
    };
    page.line([format!(
        "Open this address, log in as whoever pays for {agent}, and paste the code that is shown:"
    )
    .into()]);
    page.line(["".into()]);
    page.line([Tone::Info.of(url)]);
    page.line(["".into()]);
    let host = url.trim_start_matches("https://");
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    page.line([Tone::Faint.of(format!(
        "The address comes from the agent's side: go on only if {host} is your provider's."
    ))]);
    page
}

fn told(session: &mut Session<'_>, agent: &AgentName, ended: &Reply<LoginState>) -> Result<Exit, CliError> {
    let LoginState { phase, error, .. } = &ended.view;
    if *phase == LoginPhase::Done {
        session.ui.show(&ended.raw, || {
            let mut page = Page::default();
            page.line([Tone::Good.of(format!("{agent} is logged in"))]);
            page
        })?;
        return Ok(Exit::Done);
    }
    let why = error.as_deref().unwrap_or("its program did not say why");
    Err(CliError::BadMessage(format!("{agent} is not logged in: {why}")))
}
