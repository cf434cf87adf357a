//! `hive serve` as a child process that can be killed and started again.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};

use super::leftovers;
use crate::interrupt;
use crate::poll::{Look, eventually};
use crate::toolchain;

/// A cold start on a busy machine takes no longer.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Steps that run are let come to their end; none takes longer.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// How much of the log an error shows.
const LOG_TAIL: usize = 4000;

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub(crate) struct DaemonConfig {
    /// The program `hive`.
    pub(crate) program: Utf8PathBuf,
    /// The spec file.
    pub(crate) spec: Utf8PathBuf,
    /// What survives it.
    pub(crate) state: Utf8PathBuf,
    /// Its sockets.
    pub(crate) run: Utf8PathBuf,
    /// `HOME` of the daemon and of the command line.
    pub(crate) home: Utf8PathBuf,
    /// Where its output goes, over all starts.
    pub(crate) log: Utf8PathBuf,
}

impl DaemonConfig {
    /// Everything below one folder.
    pub(crate) fn below(folder: &Utf8Path, program: &Utf8Path, spec: &Utf8Path) -> Self {
        Self {
            program: program.to_owned(),
            spec: spec.to_owned(),
            state: folder.join("state"),
            run: folder.join("run"),
            home: folder.join("home"),
            log: folder.join("daemon.log"),
        }
    }

    /// The admin API's socket.
    pub(crate) fn admin_socket(&self) -> Utf8PathBuf {
        self.run.join("admin.sock")
    }
}

/// A running daemon. Dropped, it is killed, and so are the agents it leaves behind.
#[derive(Debug)]
pub(crate) struct Daemon {
    config: DaemonConfig,
    child: Option<Child>,
}

impl Daemon {
    /// Starts it and waits until it answers.
    pub(crate) fn start(config: DaemonConfig) -> Result<Self> {
        let mut daemon = Self { config, child: None };
        daemon
            .start_again()
            .map_err(|error| match daemon.last_words().as_str() {
                "" => anyhow!("{error:#}; it said nothing"),
                said => anyhow!("{error:#}; its log ends with:\n{said}"),
            })?;
        Ok(daemon)
    }

    /// Starts it on the same folders after [`Daemon::kill`] and waits until it answers.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("the daemon runs already: kill it first");
        }
        let config = &self.config;
        for folder in [&config.state, &config.run, &config.home] {
            fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        }
        let log = fs::File::options().create(true).append(true).open(&config.log);
        let log = log.with_context(|| format!("opening {}", config.log))?;
        let mut command = serve(config);
        command
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log);
        let line = toolchain::command_line(&command);
        self.child = Some(command.spawn().with_context(|| format!("starting `{line}`"))?);
        self.wait_until_it_answers()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child
            .as_ref()
            .map(Child::id)
            .context("the daemon does not run")
    }

    /// What it was started with.
    pub(crate) fn config(&self) -> &DaemonConfig {
        &self.config
    }

    /// Kills it with SIGKILL, as a crash would. Its agents stay.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("killing the daemon")?;
            child.wait().context("collecting the daemon")?;
        }
        Ok(())
    }

    /// Tells it to end and waits until it has; how it ended.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus> {
        let Some(child) = &mut self.child else {
            bail!("the daemon does not run")
        };
        // Not collected yet, so the id is still its own.
        kill_process(Pid::from_child(child), Signal::TERM).context("sending SIGTERM to the daemon")?;
        let status = eventually(END_DEADLINE, "the daemon ends after SIGTERM", || {
            let status = child.try_wait().context("looking after the daemon")?;
            Ok(status.map_or_else(|| Look::NotYet("it runs".to_owned()), Look::Done))
        })?;
        self.child = None;
        Ok(status)
    }

    /// Starts a second daemon on this one's state folder, which has to end by itself; how it ended and what it said.
    pub(crate) fn start_second(&self) -> Result<(ExitStatus, String)> {
        let config = DaemonConfig {
            run: self.config.run.with_file_name("run2"),
            log: self.config.log.with_file_name("second.log"),
            ..self.config.clone()
        };
        let log = fs::File::create(&config.log).with_context(|| format!("making {}", config.log))?;
        let mut command = serve(&config);
        command
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log);
        // No `Daemon`: that would end the first one's agents when it is dropped.
        let mut child = command.spawn().context("starting a second daemon")?;
        let ended = eventually(END_DEADLINE, "the second daemon ends", || {
            let status = child.try_wait().context("looking after the second daemon")?;
            Ok(status.map_or_else(|| Look::NotYet("it runs".to_owned()), Look::Done))
        });
        if ended.is_err() {
            child
                .kill()
                .and_then(|()| child.wait())
                .context("ending the second daemon")?;
        }
        Ok((ended?, tail(&config.log)))
    }

    /// Kills it and all of its agents; nothing is left running.
    pub(crate) fn clean_up(&mut self) -> Result<()> {
        // The daemon first: it would start its agents again.
        self.kill()?;
        leftovers::kill_agents(&self.config.state)
    }

    /// How its log ends.
    pub(crate) fn last_words(&self) -> String {
        tail(&self.config.log)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let socket = self.config.admin_socket();
        let Some(child) = &mut self.child else {
            bail!("the daemon does not run")
        };
        eventually(START_DEADLINE, &format!("the daemon answers on {socket}"), || {
            interrupt::check()?;
            if let Some(status) = child.try_wait().context("looking after the daemon")? {
                bail!("the daemon {}", toolchain::describe(status));
            }
            Ok(match http_status(&socket, "GET /v1/status", "") {
                Ok(_) => Look::Done(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }
}

/// `hive serve` with this config.
fn serve(config: &DaemonConfig) -> Command {
    let mut command = Command::new(&config.program);
    command
        .arg("serve")
        .args(["--spec", config.spec.as_str()])
        .args(["--state", config.state.as_str()])
        .args(["--run", config.run.as_str()])
        .stdin(Stdio::null());
    toolchain::isolate(&mut command, &config.home);
    command
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            println!("error: cleaning up after the daemon: {error:#}");
        }
    }
}

/// Sends a request such as `GET /v1/status` past the command line; the status of the answer.
pub(crate) fn http_status(socket: &Utf8Path, request: &str, body: &str) -> Result<u16> {
    let mut stream = UnixStream::connect(socket).context("connecting")?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .context("limiting the wait")?;
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: hive\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .context("asking")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).context("reading the answer")?;
    let status = start
        .strip_prefix(b"HTTP/1.1 ")
        .context("the answer is not HTTP/1.1")?;
    String::from_utf8_lossy(status)
        .parse()
        .context("reading the answer's status")
}

fn tail(log: &Utf8Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL)..]).into_owned();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::super::folder::ShortFolder;
    use super::*;

    /// A daemon whose program is a shell script.
    fn config(folder: &ShortFolder, script: &str) -> DaemonConfig {
        let program = folder.program(script);
        DaemonConfig::below(folder.path(), &program, &folder.path().join("hive.json"))
    }

    /// Answers as many requests as given on the admin socket.
    fn answer(config: &DaemonConfig, requests: usize) -> thread::JoinHandle<()> {
        fs::create_dir_all(&config.run).expect("made");
        let listener = UnixListener::bind(config.admin_socket()).expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming().take(requests) {
                let mut stream = stream.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    request.extend(byte);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("answered");
            }
        })
    }

    /// The socket is not the script's, so its start and what it logs come in any order.
    fn wait_for_log(config: &DaemonConfig, wanted: &str) {
        eventually(START_DEADLINE, "the daemon has logged its arguments", || {
            let log = fs::read_to_string(&config.log)?;
            Ok(if log == wanted {
                Look::Done(())
            } else {
                Look::NotYet(log)
            })
        })
        .expect("logged");
    }

    #[test]
    fn a_daemon_is_started_killed_and_started_again_with_its_folders() {
        let folder = ShortFolder::new().expect("made");
        let config = config(&folder, "echo \"$@\" HOME=$HOME\nexec tail -f /dev/null");
        let server = answer(&config, 2);
        let base = folder.path();
        let line =
            format!("serve --spec {base}/hive.json --state {base}/state --run {base}/run HOME={base}/home\n");

        let mut daemon = Daemon::start(config.clone()).expect("started");
        wait_for_log(&config, &line);
        let first = daemon.child.as_ref().expect("running").id();
        assert!(daemon.start_again().is_err(), "it runs already");
        daemon.kill().expect("killed");
        assert!(!Utf8Path::new(&format!("/proc/{first}")).exists());

        daemon.start_again().expect("started again");
        wait_for_log(&config, &line.repeat(2));
        server.join().expect("served");
    }

    #[test]
    fn a_daemon_that_exits_fails_the_start_at_once_with_its_last_words() {
        let folder = ShortFolder::new().expect("made");
        let config = config(&folder, "echo 'the spec is bad' >&2; exit 3");
        let error = format!("{:#}", Daemon::start(config).expect_err("it exits"));
        assert!(
            error.contains("the spec is bad") && error.contains("exited with status 3"),
            "{error}"
        );
    }

    #[test]
    fn a_terminated_daemon_says_how_it_ended() {
        let folder = ShortFolder::new().expect("made");
        let config = config(
            &folder,
            "trap 'exit 7' TERM\necho up\nwhile :; do read line </dev/null; done",
        );
        let server = answer(&config, 1);
        let mut daemon = Daemon::start(config.clone()).expect("started");
        wait_for_log(&config, "up\n");
        assert_eq!(daemon.terminate().expect("ended").code(), Some(7));
        assert!(daemon.pid().is_err(), "it does not run any more");
        server.join().expect("served");
    }

    #[test]
    fn a_dropped_daemon_does_not_run_any_more() {
        let folder = ShortFolder::new().expect("made");
        let config = config(&folder, "exec tail -f /dev/null");
        let server = answer(&config, 1);
        let daemon = Daemon::start(config).expect("started");
        let pid = daemon.child.as_ref().expect("running").id();
        drop(daemon);
        assert!(!Utf8Path::new(&format!("/proc/{pid}")).exists());
        server.join().expect("served");
    }
}
