//! `propose_config`: offers a change of this agent's own configuration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::agent_api::{ProposalInfo, ProposalPhase};
use shared::draft::MAX_REASON_BYTES;

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};
use crate::repo::offer::{Author, Change, RepoPath};

/// The longest title, in characters.
const MAX_TITLE: usize = 200;
/// The most files of one change.
pub(super) const MAX_FILES: usize = 256;
/// The most bytes of all files of one change.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The tool.
pub(super) struct ProposeConfig;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// For which agent, yourself unless given. Only managers propose for others, and without head.
    agent: Option<AgentName>,
    /// Files to write on top of what is deployed: the whole new text of each by its path in the repo, as in agent.json.
    #[serde(default)]
    #[schemars(length(max = 256))]
    files: BTreeMap<RepoPath, String>,
    /// Files to delete.
    #[serde(default)]
    #[schemars(length(max = 256))]
    delete: Vec<RepoPath>,
    /// Instead of files and delete: offer the commit that is checked out in the `config` folder of your state folder, with its own
    /// message.
    #[serde(default)]
    head: bool,
    /// What the change does, in one line. Required with files and delete.
    #[schemars(length(min = 1, max = 200))]
    title: Option<String>,
    /// Why, for the operator who decides.
    #[schemars(length(max = 4096))]
    reason: Option<String>,
}

impl HiveTool for ProposeConfig {
    const NAME: &'static str = "propose_config";
    const ABOUT: &'static str = "Offer a change of your own configuration (prompt, model, MCP servers, tools, network, \
        packages) as one commit. It is built first; what goes beyond what you may do waits for the operator. You are told \
        the outcome by a message. `config_status` shows where it is, and fetches the repo for you to look at.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let mut arguments = arguments;
        let other = arguments.agent.take();
        let wanted = Wanted::from(arguments)?;
        let _turnstile = hive.committing.lock().await;
        if let Some(other) = other {
            return for_another(hive, &other, &wanted).await;
        }
        let author = author(hive).await?;
        let main = hive.patiently(Again::Looks, || hive.client.repo_bundle()).await?;
        let offer = match &wanted {
            Wanted::Files(change) => hive.repo.commit_files(main, &author, change).await?,
            Wanted::Head => hive.repo.take_head(main, &author).await?,
        };
        // The same commit again is the same proposal.
        let answer = hive
            .patiently(Again::Known, || hive.client.propose(offer.bundle.clone()))
            .await;
        let commit = crate::tame(&offer.commit, 40);
        let title = show::quoted(&offer.title, MAX_TITLE);
        let followed = match &wanted {
            Wanted::Files(_) if answer.is_ok() => hive.repo.follow_offer(offer, &author).await,
            Wanted::Files(_) | Wanted::Head => {
                hive.repo.done(offer).await;
                true
            }
        };
        let info = answer?;
        let work_tree = if followed {
            ""
        } else {
            " Your work tree has uncommitted work and was left as it is."
        };
        Ok(outcome(&info, &title, &commit, "config_status") + work_tree)
    }
}

/// Proposes a change of another agent.
async fn for_another(hive: &Hive, agent: &AgentName, wanted: &Wanted) -> Result<String, ToolError> {
    let Wanted::Files(change) = wanted else {
        let why =
            "head is a commit for your own config: give files or delete, and a title, for another agent's";
        return Err(ToolError::Refused(why.into()));
    };
    let author = author(hive).await?;
    let main = hive
        .patiently(Again::Looks, || hive.client.repo_bundle_of(agent))
        .await?;
    let offer = hive.repo.commit_files(main, &author, change).await?;
    // The same commit again is the same proposal.
    let answer = hive
        .patiently(Again::Known, || {
            hive.client.propose_for(agent, offer.bundle.clone())
        })
        .await;
    let (title, commit) = (
        show::quoted(&offer.title, MAX_TITLE),
        crate::tame(&offer.commit, 40),
    );
    hive.repo.done(offer).await;
    let said = outcome(&answer?, &title, &commit, "get_config");
    Ok(format!("For {agent}, which is told: {said}"))
}

/// What became of a proposal. `shows` is the tool that shows it later.
fn outcome(info: &ProposalInfo, title: &str, commit: &str, shows: &str) -> String {
    let number = info.number;
    match info.phase {
        ProposalPhase::Denied => {
            let why = info.reason.as_ref().map_or_else(String::new, |why| {
                format!(" Why: {}.", show::quoted(why, MAX_REASON_BYTES))
            });
            format!(
                "This very commit was proposal {number}, which was denied: nothing new is proposed.{why} Change what \
                 stood against it, and propose that."
            )
        }
        ProposalPhase::Deployed => {
            format!("This very commit was deployed as proposal {number}: nothing new is proposed.")
        }
        _ => format!(
            "Proposal {number} is received: {title}, commit {commit}. It is built now; then it is deployed if policy \
             allows, or waits at a gate for the operator. You get a message when it is deployed, denied or has failed; \
             until then {shows} shows where it is. Do not propose it again."
        ),
    }
}

enum Wanted {
    Files(Change),
    Head,
}

impl Wanted {
    fn from(arguments: Arguments) -> Result<Self, ToolError> {
        let Arguments {
            agent: _,
            files,
            delete,
            head,
            title,
            reason,
        } = arguments;
        let refuse = |why: String| Err(ToolError::Refused(why));
        let any = !files.is_empty() || !delete.is_empty();
        if head {
            if any || title.is_some() || reason.is_some() {
                return refuse(
                    "with head, the commit says everything: leave files, delete, title and reason out".into(),
                );
            }
            return Ok(Self::Head);
        }
        if !any {
            return refuse("give files or delete, or head: true for the commit in your work tree".into());
        }
        let Some(title) = title.filter(|title| !title.trim().is_empty()) else {
            return refuse("a title is missing: say in one line what the change does".into());
        };
        let reason = reason.unwrap_or_default();
        check_reason(&reason)?;
        let files = changes(files, delete)?;
        Ok(Self::Files(Change { title, reason, files }))
    }
}

/// Refuses a reason that the daemon would refuse.
pub(super) fn check_reason(reason: &str) -> Result<(), ToolError> {
    if reason.len() > MAX_REASON_BYTES {
        return Err(ToolError::Refused(format!(
            "the reason has {} bytes, more than {MAX_REASON_BYTES}: shorten it",
            reason.len()
        )));
    }
    Ok(())
}

/// Files to write and to delete in one, within bounds.
pub(super) fn changes(
    files: BTreeMap<RepoPath, String>,
    delete: Vec<RepoPath>,
) -> Result<BTreeMap<RepoPath, Option<String>>, ToolError> {
    let bytes: usize = files.values().map(String::len).sum();
    if files.len() + delete.len() > MAX_FILES || bytes > MAX_BYTES {
        return Err(ToolError::Refused(format!(
            "a change has at most {MAX_FILES} files and {MAX_BYTES} bytes: commit it in your work tree and propose that with \
             head"
        )));
    }
    let mut changes: BTreeMap<_, _> = files.into_iter().map(|(path, text)| (path, Some(text))).collect();
    for path in delete {
        if changes
            .insert(path.clone(), None)
            .is_some_and(|text| text.is_some())
        {
            return Err(ToolError::Refused(format!(
                "{path} is both to be written and to be deleted"
            )));
        }
    }
    Ok(changes)
}

/// Who this agent is, for its commits. The time is the daemon's.
pub(super) async fn author(hive: &Hive) -> Result<Author, ToolError> {
    let me = hive.patiently(Again::Looks, || hive.client.whoami()).await?;
    Ok(Author {
        agent: me.name,
        at: me.now,
    })
}
