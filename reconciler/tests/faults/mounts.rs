//! A hive whose state folder is a small file system of its own, which only it and the test can see.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use camino::Utf8PathBuf;
use rustix::process::Signal;
use serde_json::Value;

use super::processes::census;
use super::world::{World, handle, program};

/// The hive, and the process that holds its mounts.
pub(crate) struct Mounted {
    pub(crate) world: World,
    holder: Child,
    namespaces: &'static [&'static str],
}

impl Mounted {
    /// A hive that is not started yet, with so much room for its state.
    pub(crate) fn new(spec: &Value, size: &str) -> Self {
        let world = World::new();
        world.spec(spec);
        let state = world.layout.state();
        fs::create_dir(state).unwrap();
        let root = rustix::process::geteuid().is_root();
        let own_users: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
        let script = r#"mount -t tmpfs -o "size=$1,mode=700" hive "$2" && echo mounted && exec cat"#;
        let mut holder = program("unshare")
            .args(own_users)
            .args([
                "--mount",
                "--propagation",
                "private",
                "--",
                "sh",
                "-c",
                script,
                "sh",
                size,
            ])
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert_eq!(
            said, "mounted\n",
            "no file system can be mounted here: run the tests as root, or allow user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
        );
        Self {
            world,
            holder,
            namespaces: if root {
                &["--mount"]
            } else {
                &["--user", "--preserve-credentials", "--mount"]
            },
        }
    }

    /// A command that sees the mounts.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = program("nsenter");
        command.args(["--target", &self.holder.id().to_string()]);
        command.args(self.namespaces).arg("--").args(words);
        command
    }

    /// `hive serve`, where the mounts are.
    pub(crate) fn serve(&self) -> Command {
        let mut command = self.inside(&[env!("CARGO_BIN_EXE_hive"), "serve"]);
        command.args(self.world.serve_args());
        command
    }

    pub(crate) fn start(&mut self) {
        let command = self.serve();
        self.world.start_as(command);
    }

    /// Mounts the state folder over itself, so that what is opened from now on cannot be written.
    pub(crate) fn protect(&self) {
        let state = self.world.layout.state().as_str();
        self.runs(&["mount", "--bind", state, state]);
        self.runs(&["mount", "-o", "remount,bind,ro", state]);
    }

    /// Takes that back.
    pub(crate) fn release(&self) {
        self.runs(&["umount", "--lazy", self.world.layout.state().as_str()]);
    }

    fn runs(&self, words: &[&str]) {
        let status = self.inside(words).status().unwrap();
        assert!(status.success(), "{words:?}: {status}");
    }

    /// The state folder as the test reaches it.
    pub(crate) fn state(&self) -> Utf8PathBuf {
        format!("/proc/{}/root{}", self.holder.id(), self.world.layout.state()).into()
    }

    /// The process id of an agent's sandbox, as the runtime noted it.
    pub(crate) fn run_pid(&self, agent: &str) -> Option<i64> {
        let record = fs::read(self.state().join(format!("agents/{agent}/launch/run.json"))).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        record["pid"].as_i64()
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for size in [1 << 20, 4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> Utf8PathBuf {
        self.state().join("ballast")
    }
}

/// Ends what runs in there. The mounts go with the last process.
impl Drop for Mounted {
    fn drop(&mut self) {
        let holder = i32::try_from(self.holder.id()).ok();
        for pid in census(&self.world).into_values().flatten() {
            if Some(pid) != holder
                && let Some(process) = handle(pid)
            {
                let _ended = rustix::process::pidfd_send_signal(&process, Signal::KILL);
            }
        }
        let _ended = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}
