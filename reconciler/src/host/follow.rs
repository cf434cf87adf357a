//! What an agent prints, line by line as it comes: the output of a program that follows a log.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::HostError;

/// The longest line, in bytes; a longer one is cut into several.
const MAX_LINE: u64 = 64 * 1024;

/// Lines as they are printed. Dropping it ends the program that follows the log.
#[derive(Debug)]
pub struct Lines {
    /// Without, nothing is ever printed.
    source: Option<(Child, BufReader<ChildStdout>)>,
}

impl Lines {
    /// No lines, now or later.
    pub fn none() -> Self {
        Self { source: None }
    }

    /// What this program prints. It is ended with this value.
    pub(super) fn of(program: &'static str, args: &[&str]) -> Result<Self, HostError> {
        let (child, out) = start(program, args)?;
        Ok(Self {
            source: Some((child, BufReader::new(out))),
        })
    }

    /// The next line without its end; `None` once there will be no more. Untrusted.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let (_, out) = self.source.as_mut()?;
        let mut line = Vec::new();
        match out.take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => {
                line.pop_if(|last| *last == b'\n');
                Some(line)
            }
        }
    }
}

/// Starts a program whose output is read. It is ended with what is returned.
pub(super) fn start(program: &'static str, args: &[&str]) -> Result<(Child, ChildStdout), HostError> {
    let mut child = command(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(HostError::io("start", program))?;
    let out = child
        .stdout
        .take()
        .ok_or_else(|| HostError::failed(program, "its output cannot be read"))?;
    Ok((child, out))
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
fn command(program: &str) -> Command {
    Command::new(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_and_a_long_one_is_cut() {
        let long = "x".repeat(usize::try_from(MAX_LINE).unwrap() + 1);
        let mut lines = Lines::of("printf", &[&format!("one\n\n{long}\nend")]).unwrap();
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await {
            seen.push(line.len());
        }
        assert_eq!(seen, [3, 0, long.len() - 1, 1, 3]);
        assert_eq!(Lines::none().next().await, None);
    }
}
