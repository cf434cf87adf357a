//! A daemon's socket, which can be away for a while.

use axum::Router;
use camino::{Utf8Path, Utf8PathBuf};
use tokio::runtime::Runtime;

/// Answers on a unix socket.
pub(crate) struct Door {
    socket: Utf8PathBuf,
    app: Router,
    /// A runtime of its own: shutting it down cuts every connection, as the end of a process does.
    server: Option<Runtime>,
}

impl Door {
    /// Opens it.
    pub(crate) fn open(socket: &Utf8Path, app: Router) -> Self {
        let mut door = Self {
            socket: socket.to_owned(),
            app: app.layer(axum::extract::DefaultBodyLimit::max(64 * 1024 * 1024)),
            server: None,
        };
        door.come_back();
        door
    }

    pub(crate) fn go_away(&mut self) {
        self.close();
        std::fs::remove_file(&self.socket).expect("socket");
    }

    pub(crate) fn come_back(&mut self) {
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
