//! A server that is a program.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use shared::spec::McpServerSpec;

use super::Means;
use super::list::{ProbeError, Tools, list_tools};
use crate::children;
use crate::secrets::Variables;

/// How long it may take to end once its input is closed.
const END_TIME: Duration = Duration::from_millis(500);

/// Starts it with these variables, asks for its tools, and ends it. The error is for a person, and holds no secret.
pub(super) async fn probe(
    means: &Means,
    program: &str,
    server: &McpServerSpec,
    secrets: &Variables,
    ways: &[(String, OsString)],
    time: Duration,
) -> Result<Tools, String> {
    let mut command = children::command(program);
    command
        .args(&server.args)
        .envs(ways.iter().map(|(name, value)| (name, value)))
        .envs(secrets.environment())
        .envs(&server.env)
        .current_dir(&means.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let spawned = means.children.spawn(&mut command).and_then(|mut child| {
        let (input, output, errors) = (child.stdin(), child.stdout(), child.stderr());
        let lost = || std::io::Error::other("a pipe is missing");
        Ok((
            child,
            input.ok_or_else(lost)?,
            output.ok_or_else(lost)?,
            errors.ok_or_else(lost)?,
        ))
    });
    let (mut child, input, output, errors) = spawned.map_err(|source| {
        let program = crate::tame(program, 200);
        crate::error_chain(&ProbeError::Start { program, source })
    })?;
    let errors = tokio::spawn(children::last_words(errors));

    let result = tokio::time::timeout(time, list_tools(input, output))
        .await
        .unwrap_or(Err(ProbeError::TimedOut(time)));
    // A working server ends when its input closes; whatever is left of it then does not get a choice.
    if result.is_ok() {
        child.linger(END_TIME).await;
    }
    if let Err(error) = child.end().await {
        tracing::debug!(%error, "MCP server's exit status not collected");
    }
    match result {
        Ok(tools) => {
            errors.abort();
            Ok(tools)
        }
        Err(error) => {
            let mut text = crate::tame(&crate::error_chain(&error), 1000);
            // A process outside the group may still hold the pipe open.
            if let Ok(Ok(tail)) = tokio::time::timeout(END_TIME, errors).await
                && !tail.is_empty()
            {
                text.push_str("; it wrote: ");
                text.push_str(&tail);
            }
            Err(secrets.without(&text))
        }
    }
}
