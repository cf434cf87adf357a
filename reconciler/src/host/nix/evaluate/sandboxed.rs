//! The evaluator in a `bwrap` sandbox, with limits of the process itself. Without the Nix daemon an evaluator must write
//! derivations into the store itself, so there the sandbox leaves the store writable.

use std::collections::BTreeMap;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use shared::Digest;

use super::{End, Evaluate, Evaluated, Job, Limits, Log, NOT_BECOME};
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::folders::write_atomic;
use crate::host::nix::program::Run;
use crate::host::nix::store::Store;
use crate::host::process::{Bwrap, sandbox_programs};
use crate::untrusted::line;

/// Evaluates in a `bwrap` sandbox, with limits of the process itself.
pub struct Sandboxed {
    /// The program that becomes an evaluator: `hive`.
    pub hive: Utf8PathBuf,
    /// The sandbox program.
    pub bwrap: Bwrap,
    /// The store.
    pub store: Store,
    /// Where job files lie, one for each key.
    pub jobs: Utf8PathBuf,
    /// What holds.
    pub limits: Limits,
}

impl Sandboxed {
    fn job(&self, inner: Job) -> Job {
        let mut args: Vec<String> = [
            "--unshare-user",
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--hostname",
            "evaluator",
            "--clearenv",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.bwrap.disable_userns {
            args.push("--disable-userns".to_owned());
        }
        for (name, value) in &inner.env {
            args.extend(["--setenv".to_owned(), name.clone(), value.clone()]);
        }
        args.extend(sandbox_programs());
        args.extend(["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"].map(str::to_owned));
        args.extend(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"].map(str::to_owned));
        let mut bind = |how: &str, path: &Utf8Path| {
            args.extend([how.to_owned(), path.to_string(), path.to_string()]);
        };
        match &self.store.socket {
            Some(socket) => {
                bind("--ro-bind", &self.store.dir);
                bind("--ro-bind", socket);
            }
            None => {
                bind("--bind", &self.store.dir);
                bind("--bind", &self.store.state);
            }
        }
        args.extend(["--remount-ro", "/", "--"].map(str::to_owned));
        args.push(inner.program.to_string());
        args.extend(inner.args.iter().cloned());
        let whole = Job {
            program: self.bwrap.program.clone(),
            args,
            env: BTreeMap::new(),
            ..inner
        };
        whole.limited(self.limits)
    }
}

#[async_trait]
impl Evaluate for Sandboxed {
    async fn evaluate(&self, key: &Digest, job: Job, log: &Log) -> Result<Evaluated, HostError> {
        let job = self.job(job);
        let file = self.jobs.join(key.as_str()).join("job.json");
        let text =
            serde_json::to_vec(&job).map_err(|error| HostError::failed("job.json", error.to_string()))?;
        let written = file.clone();
        blocking(file.to_string(), move || write_atomic(&written, &text, 0o600)).await?;
        let run = Run {
            program: self.hive.clone(),
            args: vec!["evaluate".to_owned(), "--job".to_owned(), file.into_string()],
            env: Vec::new(),
            time: self.limits.time,
        };
        let mut ended = run.run(log).await?;
        // Before anything of an agent's ran.
        if ended.end == End::Exit(NOT_BECOME.into()) || ended.stderr.starts_with(b"bwrap: ") {
            let said = String::from_utf8_lossy(&ended.stderr);
            return Err(HostError::failed("the evaluator", line(&said, 300)));
        }
        // bwrap tells of a signal as a shell does.
        if let End::Exit(status @ 129..=192) = ended.end {
            ended.end = End::signal(status - 128);
        }
        Ok(ended)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandboxed(store: Store) -> Sandboxed {
        Sandboxed {
            hive: "/usr/bin/hive".into(),
            bwrap: Bwrap {
                program: "/usr/bin/bwrap".into(),
                disable_userns: true,
                bind_fd: false,
            },
            store,
            jobs: "/state/builds".into(),
            limits: Limits::default(),
        }
    }

    fn bound(store: Store) -> Vec<(String, String)> {
        let job = sandboxed(store).job(Job {
            program: "/usr/bin/nix".into(),
            args: vec!["eval".to_owned()],
            env: BTreeMap::new(),
            memory: None,
            cpu_secs: None,
        });
        let words = job.args.windows(2).filter(|pair| pair[0].ends_with("bind"));
        words.map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    #[test]
    fn with_a_daemon_an_evaluator_writes_nowhere() {
        let mut store = Store::below(Utf8Path::new("/s"));
        store.socket = Some("/s/socket".into());
        let bound = bound(store);
        assert!(bound.iter().all(|(how, _)| how == "--ro-bind"), "{bound:?}");
        assert!(bound.iter().any(|(_, path)| path == "/s/socket"), "{bound:?}");
    }

    #[test]
    fn without_one_it_writes_to_the_store_alone() {
        let bound = bound(Store::below(Utf8Path::new("/s")));
        let written: Vec<_> = bound.iter().filter(|(how, _)| how == "--bind").collect();
        assert_eq!(written.len(), 2, "{bound:?}");
        assert!(
            written.iter().all(|(_, path)| path.starts_with("/s/")),
            "{bound:?}"
        );
    }
}
