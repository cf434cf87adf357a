//! `claude auth login` over pipes: it prints an address, and reads the code that is shown there.

use std::sync::Arc;

use shared::config::AgentConfig;
use shared::login::LoginCode;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::oneshot;

use super::{Setup, command, find};
use crate::driver::program::{RunError, Spawned, blocking};

/// How much of what it prints is read.
const MAX_OUTPUT: u64 = 64 * 1024;

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    /// There is no program.
    #[error("{0}")]
    Missing(String),
    /// It cannot be started, or spoken to.
    #[error("cannot speak to the driver's program")]
    Io(#[from] std::io::Error),
    /// The harness is ending.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Whoever wanted the login is gone.
    #[error("nobody waits for the login any more")]
    Nobody,
    /// It refused.
    #[error("the driver's program says: {0}")]
    Refused(String),
}

/// Runs the program until it has a login. Dropping it ends the program.
pub(super) async fn run(
    setup: Arc<Setup>,
    config: &AgentConfig,
    address: oneshot::Sender<String>,
    code: oneshot::Receiver<LoginCode>,
) -> Result<(), LoginError> {
    let found = Arc::clone(&setup);
    let program = blocking(move || {
        // The program makes its own folder, but not the one above it.
        std::fs::create_dir_all(command::home(&found.state))?;
        Ok::<_, std::io::Error>(find(&found.settings))
    })
    .await??
    .map_err(LoginError::Missing)?;
    let mut environment = command::environment(
        &setup.settings.environment,
        config,
        &setup.state,
        crate::ids::turn_id(),
    );
    environment.extend(setup.settings.ways.environment(config));
    // The login goes to the provider's own pages, never through the model gateway.
    environment.remove("ANTHROPIC_BASE_URL");
    environment.remove("ANTHROPIC_API_KEY");
    // There is none; without this it looks for one.
    environment.insert("BROWSER".to_owned(), "true".into());
    let Spawned {
        mut child,
        mut input,
        output,
        errors,
    } = setup.spawn(&program, &["auth", "login", "--claudeai"], environment)?;
    // Both are read at the same time, so that it cannot block on one of them.
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        let read = errors.take(MAX_OUTPUT).read_to_end(&mut said).await;
        read.map(|_| String::from_utf8_lossy(&said).into_owned())
    });
    let mut output = BufReader::new(output.take(MAX_OUTPUT));
    if let Some(url) = read_address(&mut output).await? {
        address.send(url).map_err(|_| LoginError::Nobody)?;
        let ended = async { output.read_to_end(&mut Vec::new()).await };
        tokio::select! {
            code = code => {
                let LoginCode(code) = code.map_err(|_| LoginError::Nobody)?;
                input.write_all(format!("{code}\n").as_bytes()).await?;
                input.flush().await?;
            }
            // It needs no code any more, or gave up.
            read = ended => drop(read?),
        }
    }
    let status = child.wait().await?;
    if status.success() {
        return Ok(());
    }
    let said = said.await.map_err(RunError::from)??;
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    Err(LoginError::Refused(last.map_or_else(
        || format!("nothing, and ended with {status}"),
        str::to_owned,
    )))
}

/// The first address that it prints; none when it ends before.
async fn read_address(
    output: &mut BufReader<tokio::io::Take<ChildStdout>>,
) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).await? > 0 {
        if let Some(address) = address_in(&String::from_utf8_lossy(&line)) {
            return Ok(Some(address));
        }
        line.clear();
    }
    Ok(None)
}

/// An address in a line for people.
fn address_in(line: &str) -> Option<String> {
    let found = line.split_whitespace().find(|word| word.starts_with("https://"));
    found.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_is_said_to_people() {
        let line =
            "If the browser didn't open, visit: https://claude.com/cai/oauth/authorize?code=true&state=x\n";
        assert_eq!(
            address_in(line).as_deref(),
            Some("https://claude.com/cai/oauth/authorize?code=true&state=x")
        );
        assert_eq!(address_in("Opening browser to sign in…"), None);
        assert_eq!(address_in("see http://example.org"), None);
    }
}
