//! The `hive` command line, with its output taken in.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
use serde_json::Value;

use super::daemon::DaemonConfig;
use crate::interrupt;
use crate::poll::{Look, eventually};
use crate::toolchain;

/// No command that a story runs takes longer; one that does is stuck.
const DEADLINE: Duration = Duration::from_secs(60);

/// `hive` talking to one daemon.
#[derive(Debug)]
pub(crate) struct Cli {
    program: Utf8PathBuf,
    socket: Utf8PathBuf,
    home: Utf8PathBuf,
    deadline: Duration,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The command, as typed.
    pub(crate) line: String,
    /// Its exit code.
    pub(crate) code: i32,
    /// The documents it printed: none, one, or for `events` one for each event.
    pub(crate) documents: Vec<Value>,
    /// What it complained about.
    pub(crate) stderr: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` exited with status {} and said {}",
            self.line,
            self.code,
            Value::from(self.documents.clone())
        )?;
        if !self.stderr.is_empty() {
            write!(f, "; stderr: {}", self.stderr.trim_end())?;
        }
        Ok(())
    }
}

impl Answer {
    /// The first document; null when it printed nothing.
    pub(crate) fn json(&self) -> &Value {
        self.documents.first().unwrap_or(&Value::Null)
    }
}

impl Cli {
    /// A command line for the daemon with this config.
    pub(crate) fn new(config: &DaemonConfig) -> Self {
        Self {
            program: config.program.clone(),
            socket: config.admin_socket(),
            home: config.home.clone(),
            deadline: DEADLINE,
        }
    }

    /// Runs `hive --socket … --json ARGUMENTS`. An exit code is an answer, not an error.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(&self.program);
        command
            .args(["--socket", self.socket.as_str(), "--json"])
            .args(arguments);
        toolchain::isolate(&mut command, &self.home);
        let line = toolchain::command_line(&command);
        interrupt::check()?;

        // Files, not pipes: nobody has to read while we wait.
        let mut stdout = tempfile::tempfile().context("making a file for the output")?;
        let mut stderr = tempfile::tempfile().context("making a file for the errors")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().context("sharing the output file")?)
            .stderr(stderr.try_clone().context("sharing the error file")?)
            .spawn()
            .with_context(|| format!("starting `{line}`"))?;
        let ended = eventually(self.deadline, &format!("`{line}` ends"), || {
            let status = child.try_wait().context("looking after the command")?;
            Ok(status.map_or_else(|| Look::NotYet("it runs".to_owned()), Look::Done))
        });
        if ended.is_err() {
            // It may have ended in between; then there is nothing to kill.
            child
                .kill()
                .and_then(|()| child.wait())
                .context("ending a stuck command")?;
        }
        let (output, stderr) = (contents(&mut stdout)?, contents(&mut stderr)?);
        let status = ended.with_context(|| format!("it said {output:?} and complained {stderr:?}"))?;
        let code = status
            .code()
            .with_context(|| format!("`{line}` {}", toolchain::describe(status)))?;
        let documents = serde_json::Deserializer::from_str(&output)
            .into_iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("`{line}` printed {output:?}, not JSON"))?;
        Ok(Answer {
            line,
            code,
            documents,
            stderr,
        })
    }
}

fn contents(file: &mut File) -> Result<String> {
    file.rewind().context("rewinding a command's output")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .context("reading a command's output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::folder::ShortFolder;
    use super::*;

    fn cli(folder: &ShortFolder, script: &str) -> Cli {
        let program = folder.program(script);
        Cli::new(&DaemonConfig::below(
            folder.path(),
            &program,
            &folder.path().join("hive.json"),
        ))
    }

    #[test]
    fn the_answer_holds_the_json_the_complaint_and_the_exit_code() {
        let folder = ShortFolder::new().expect("made");
        let cli = cli(
            &folder,
            r#"echo "{ \"args\": \"$*\" }"; echo waiting >&2; exit 3"#,
        );
        let answer = cli.run(&["gate", "list"]).expect("an answer");
        let socket = folder.path().join("run/admin.sock");
        assert_eq!(answer.code, 3);
        assert_eq!(
            answer.json()["args"],
            format!("--socket {socket} --json gate list")
        );
        assert_eq!(answer.stderr, "waiting\n");
        assert!(answer.to_string().contains("exited with status 3"), "{answer}");
    }

    #[test]
    fn a_stream_of_documents_is_taken_in_whole() {
        let folder = ShortFolder::new().expect("made");
        let answer = cli(&folder, r#"echo '{ "seq": 1 }'; echo '{ "seq": 2 }'"#)
            .run(&["events"])
            .expect("an answer");
        assert_eq!(answer.documents.len(), 2);
        assert_eq!(answer.json()["seq"], 1);
    }

    #[test]
    fn silence_is_null_and_text_is_an_error() {
        let folder = ShortFolder::new().expect("made");
        assert_eq!(
            cli(&folder, "exit 0")
                .run(&["start", "a"])
                .expect("an answer")
                .json(),
            &Value::Null
        );
        let error = cli(&folder, "echo oops").run(&["status"]).expect_err("no JSON");
        assert!(error.to_string().contains("oops"), "{error}");
    }

    #[test]
    fn a_stuck_command_is_ended_and_reported() {
        let folder = ShortFolder::new().expect("made");
        let mut cli = cli(&folder, "exec tail -f /dev/null");
        cli.deadline = Duration::from_millis(100);
        let error = format!("{:#}", cli.run(&["status"]).expect_err("stuck"));
        assert!(error.contains("last seen: it runs"), "{error}");
    }
}
