//! `hive explain`: why something is as it is.

use std::fmt;
use std::str::FromStr;

use shared::admin_api::{Cause, Explanation};
use shared::{AgentName, GateId};

use super::client::segment;
use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Tone};
use super::{Session, events, words};

/// Something that can be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    Hive,
    Gate(GateId),
    Agent(AgentName),
}

impl FromStr for Object {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "hive" {
            return Ok(Self::Hive);
        }
        if let Some(number) = text.strip_prefix("gate/") {
            return number.parse().map(Self::Gate).map_err(|error| error.to_string());
        }
        text.parse()
            .map(Self::Agent)
            .map_err(|error| format!("{error}; an object is an agent's name, gate/N or hive"))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hive => f.write_str("hive"),
            Self::Gate(id) => write!(f, "gate/{id}"),
            Self::Agent(name) => name.fmt(f),
        }
    }
}

/// Arguments of `hive explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// An agent's name, gate/N, or hive
    #[arg(value_name = "OBJ")]
    object: Object,
}

pub(super) async fn run(session: &mut Session<'_>, args: ExplainArgs) -> Result<Exit, CliError> {
    let path = format!("/v1/explain/{}", segment(&args.object.to_string()));
    let reply = session.client.get::<Explanation>(&path).await?;
    let look = session.look();
    session.ui.show(&reply.raw, || render(&reply.view, &look))?;
    Ok(Exit::Done)
}

fn render(explanation: &Explanation, look: &Look) -> Page {
    let mut page = Page::default();
    page.line([Tone::Strong.of(&explanation.object)]);
    for (depth, cause) in explanation.chain.iter().enumerate() {
        // A hostile or broken chain must not push the text off the screen.
        let indent = "  ".repeat(depth.min(8) + 1);
        let why = if depth == 0 { "" } else { "because " };
        page.line([
            indent.into(),
            Tone::Faint.of(why),
            cause.text.as_str().into(),
            Tone::Faint.of(when(cause, look)),
        ]);
    }
    // The chain follows the first wait.
    if let [_, others @ ..] = explanation.waiting.as_slice()
        && !others.is_empty()
    {
        page.heading("It also waits");
        let agent: Option<AgentName> = explanation.object.parse().ok();
        for waiting in others {
            words::own_wait(&mut page, waiting, agent.as_ref(), look);
        }
    }
    let mut recent = explanation
        .recent
        .iter()
        .filter(|event| !events::is_routine(event))
        .peekable();
    if recent.peek().is_some() {
        page.heading("Recent events");
        for event in recent {
            page.line(events::spans(event, 0));
        }
    }
    if !explanation.next.is_empty() {
        page.heading("Next");
        for command in &explanation.next {
            page.line(["  ".into(), look.command(command)]);
        }
    }
    page
}

/// How old a cause is, and when it passes.
fn when(cause: &Cause, look: &Look) -> String {
    let since = cause.since.map(|at| look.relative(at));
    let until = cause
        .until
        .map(|at| format!("at the latest {}", look.relative(at)));
    let times: Vec<String> = since.into_iter().chain(until).collect();
    if times.is_empty() {
        String::new()
    } else {
        format!(" ({})", times.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn an_object_is_a_valid_name_or_nothing() {
        assert_eq!("hive".parse(), Ok(Object::Hive));
        assert_eq!("gate/3".parse(), Ok(Object::Gate(GateId(3))));
        for bad in ["", "..", "gate/", "gate/x", "a/b", "Alice"] {
            assert!(bad.parse::<Object>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_chain_leads_to_the_root_cause() {
        let page = render(&fixtures::explanation(), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        alice
          alice is out of sync: deploy proposal 2 (3 m ago)
            because deploy proposal 2 waits on gate 3 (deployWidens)
              because gate 3 is open: nobody has decided yet (3 m ago)

        Recent events
            41  2026-01-02 11:57:00Z  ◆ alice  gate 41 is open

        Next
          hive gate show 3
        ");
    }
}
