//! Agents' doors for tests.

use std::sync::Arc;

use camino::Utf8PathBuf;
use shared::spec::Network;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::door::{self, Caller};
use super::policy::AgentPolicy;
use super::tally::Outside;

/// A door that is open until it is dropped.
pub(super) struct Door {
    path: Utf8PathBuf,
    task: JoinHandle<()>,
    pub(super) policy: watch::Sender<AgentPolicy>,
    _folder: tempfile::TempDir,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    /// Of the agent alice.
    pub(super) fn open<F>(
        outside: &Arc<Outside>,
        policy: AgentPolicy,
        max: usize,
        serve: impl Fn(UnixStream, Caller) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("x.sock")).expect("UTF-8");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (policy, told) = watch::channel(policy);
        let caller = Caller::new("alice".parse().expect("a name"), told, Arc::clone(outside));
        let task = tokio::spawn(async move {
            door::serve(listener, max, |stream| serve(stream, caller.clone())).await;
        });
        Self {
            path,
            task,
            policy,
            _folder: folder,
        }
    }

    pub(super) async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.expect("connected")
    }

    /// Sends this and reads all that is answered.
    pub(super) async fn ask(&self, words: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // It may be refused before all of it is written.
        let _refused = stream.write_all(words.as_ref()).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The head of what is read next.
pub(super) async fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.extend_from_slice(&byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

pub(super) fn policy(network: Network, hosts: &[&str]) -> AgentPolicy {
    AgentPolicy {
        network,
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
    }
}

/// Puts a file there.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever writes keys and policies by hand does so like this"
)]
pub(super) fn put(path: impl AsRef<std::path::Path>, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("written");
}
