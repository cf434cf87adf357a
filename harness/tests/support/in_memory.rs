//! A daemon in memory: a world that its handlers change and tests look into, behind a socket that can be away.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use camino::{Utf8Path, Utf8PathBuf};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// All that a daemon knows.
pub(crate) trait Known: Default + Send + 'static {
    /// What a test is told that waited for something in vain.
    fn tell(&self) -> String;
}

/// What handlers and tests share: a world, and word of its changes.
pub(crate) struct Shared<W>(Arc<(Mutex<W>, watch::Sender<()>)>);

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Shared<W> {
    pub(crate) fn look(&self) -> MutexGuard<'_, W> {
        self.0.0.lock().expect("lock")
    }

    /// Changes the world and lets all who wait look again.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut W) -> T) -> T {
        let result = change(&mut self.look());
        self.0.1.send_replace(());
        result
    }

    /// Waits until something holds.
    pub(crate) async fn wait(&self, holds: impl Fn(&W) -> bool) {
        let mut changes = self.0.1.subscribe();
        while !holds(&self.look()) {
            changes.changed().await.expect("the sender is ours");
        }
    }
}

/// A daemon on a socket. It stays in memory while its socket is away.
pub(crate) struct Daemon<W> {
    shared: Shared<W>,
    door: Door,
}

impl<W: Known> Daemon<W> {
    /// One that answers so.
    pub(crate) fn with(socket: &Utf8Path, routes: Router<Shared<W>>) -> Self {
        let shared = Shared(Arc::default());
        let door = Door::open(socket, routes.with_state(shared.clone()));
        Self { shared, door }
    }

    pub(crate) fn go_away(&mut self) {
        self.door.go_away();
    }

    pub(crate) fn come_back(&mut self) {
        self.door.come_back();
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, W> {
        self.shared.look()
    }

    /// Changes the world and lets all who wait look again.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut W) -> T) -> T {
        self.shared.change(change)
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&W) -> bool) {
        if self.never(Duration::from_secs(30), holds).await {
            panic!("not within 30 s: {what}; {}", self.world().tell());
        }
    }

    /// Whether something never holds during this time.
    pub(crate) async fn never(&self, time: Duration, holds: impl Fn(&W) -> bool) -> bool {
        tokio::time::timeout(time, self.shared.wait(holds)).await.is_err()
    }
}

/// Answers on a unix socket.
struct Door {
    socket: Utf8PathBuf,
    app: Router,
    /// A runtime of its own: shutting it down cuts every connection, as the end of a process does.
    server: Option<Runtime>,
}

impl Door {
    /// Opens it.
    fn open(socket: &Utf8Path, app: Router) -> Self {
        let mut door = Self {
            socket: socket.to_owned(),
            app: app.layer(axum::extract::DefaultBodyLimit::max(64 * 1024 * 1024)),
            server: None,
        };
        door.come_back();
        door
    }

    fn go_away(&mut self) {
        self.close();
        std::fs::remove_file(&self.socket).expect("socket");
    }

    fn come_back(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let inside = runtime.enter();
        let listener = tokio::net::UnixListener::bind(&self.socket).expect("bind");
        let app = self.app.clone();
        runtime.spawn(async move { axum::serve(listener, app).await.expect("serve") });
        drop(inside);
        self.server = Some(runtime);
    }

    fn close(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
    }
}
