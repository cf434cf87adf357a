//! `hive archive`, `destroy` and `restore`: what is kept of removed agents.

use shared::admin_api::{ArchivedAgent, DestroyRequest, RestoreRequest};
use shared::{AgentName, AgentUid};

use super::Session;
use super::agent::post;
use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Table, Tone};

/// Arguments of `hive destroy`.
#[derive(Debug, clap::Args)]
pub(super) struct DestroyArgs {
    /// The agent; one that the spec declares is taken out there
    agent: AgentName,
    /// Keep nothing of it; a gate asks before anything is deleted
    #[arg(long)]
    purge: bool,
    /// Mean the one in the archive that has this uid
    #[arg(long, value_name = "UID", requires = "purge")]
    uid: Option<AgentUid>,
    /// Say why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Arguments of `hive restore`.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The agent
    agent: AgentName,
    /// Mean the one in the archive that has this uid
    #[arg(long, value_name = "UID")]
    uid: Option<AgentUid>,
    /// Say why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub(super) async fn destroy(session: &mut Session<'_>, args: DestroyArgs) -> Result<Exit, CliError> {
    let DestroyArgs {
        agent,
        purge,
        uid,
        reason,
    } = args;
    let request = DestroyRequest { reason, purge, uid };
    post(session, &format!("/v1/agents/{agent}/destroy"), &request).await
}

pub(super) async fn restore(session: &mut Session<'_>, args: RestoreArgs) -> Result<Exit, CliError> {
    let RestoreArgs { agent, uid, reason } = args;
    let request = RestoreRequest { reason, uid };
    post(session, &format!("/v1/agents/{agent}/restore"), &request).await
}

pub(super) async fn list(session: &mut Session<'_>) -> Result<Exit, CliError> {
    let reply = session.client.get::<Vec<ArchivedAgent>>("/v1/archive").await?;
    let look = session.look();
    session.ui.show(&reply.raw, || render(&reply.view, &look))?;
    Ok(Exit::Done)
}

fn render(archived: &[ArchivedAgent], look: &Look) -> Page {
    let mut page = Page::default();
    if archived.is_empty() {
        page.line(["the archive is empty".into()]);
        return page;
    }
    let mut table = Table::with_header(&["AGENT", "ARCHIVED", "UID", "PURGE"]);
    for agent in archived {
        let purge = match (&agent.purge_ordered_by, agent.gate) {
            (Some(_), Some(gate)) => Tone::Warn.of(format!("◆ gate {gate}")),
            (Some(by), None) => Tone::Warn.of(format!("ordered by {by}")),
            (None, _) => "".into(),
        };
        table.row([
            Tone::Strong.of(agent.name.as_str()),
            Tone::Faint.of(look.relative(agent.since)),
            agent.uid.to_string().into(),
            purge,
        ]);
    }
    page.table(&table);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn the_archive_says_what_is_kept_and_what_a_gate_asks_about() {
        let archived: Result<Vec<ArchivedAgent>, _> = serde_json::from_value(serde_json::json!([
            { "name": "alice", "uid": "00000000-0000-0000-0000-000000000001", "since": "2025-12-01T12:00:00Z" },
            { "name": "bob", "uid": "00000000-0000-0000-0000-000000000002", "since": "2025-12-01T12:00:00Z",
              "purgeOrderedBy": "unix:root", "gate": 4 },
        ]));
        let page = render(&archived.expect("archived agents"), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        AGENT  ARCHIVED  UID                                   PURGE
        alice  32 d ago  00000000-0000-0000-0000-000000000001
        bob    32 d ago  00000000-0000-0000-0000-000000000002  ◆ gate 4
        ");
    }

    #[test]
    fn an_empty_archive_says_so() {
        assert_eq!(
            fixtures::plain(&render(&[], &fixtures::look())).trim(),
            "the archive is empty"
        );
    }
}
