//! The connections of one door: how many, and for how long.
//!
//! An agent may do to its own door what it likes. These bounds keep that from being felt anywhere else: what one door
//! can hold is known beforehand, and nothing is held for ever.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::peer::Peer;

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// Before accepting is tried again after it failed: mostly because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How much of a door its peers can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, and with HTTP/1.1 as many requests. Whoever comes next waits until one is over.
    pub connections: usize,
    /// How long the head of a request may take, that of the next one on the same connection included.
    pub head_within: Duration,
    /// After this time a connection takes no new request; `None`: it may last.
    pub lifetime: Option<Duration>,
    /// How long its last request may take after that.
    pub grace: Duration,
}

impl Limits {
    /// An agent's door: a harness needs one connection for its poll and few for its turn. The longest answer is that
    /// of a poll.
    pub const AGENT: Self = Self {
        connections: 16,
        head_within: Duration::from_secs(30),
        lifetime: Some(Duration::from_secs(600)),
        grace: Duration::from_secs(300),
    };
    /// The admin door: people, who may follow events all day.
    pub const ADMIN: Self = Self {
        connections: 256,
        head_within: Duration::from_secs(30),
        lifetime: None,
        grace: Duration::ZERO,
    };
}

/// Serves a door until it is dropped; then its connections end too. Each request carries whose door this is: the router
/// is the same behind all of them.
pub(super) async fn serve<D>(listener: UnixListener, router: Router, door: D, limits: Limits)
where
    D: Clone + Send + Sync + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = open.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(error = error.to_string(), "a connection ended early");
                }
            }
            accepted = listener.accept(), if open.len() < limits.connections => match accepted {
                Ok((stream, _)) => {
                    open.spawn(connection(stream, router.clone(), door.clone(), limits));
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    tracing::error!(error = error.to_string(), "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether it was the peer that went away.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn connection<D>(stream: UnixStream, router: Router, door: D, limits: Limits)
where
    D: Clone + Send + Sync + 'static,
{
    let peer = ConnectInfo(Peer::of(&stream));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(peer);
        extensions.insert(door.clone());
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = match limits.lifetime {
        None => connection.await,
        Some(lifetime) => match tokio::time::timeout(lifetime, connection.as_mut()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(limits.grace, connection)
                    .await
                    .unwrap_or(Ok(()))
            }
        },
    };
    if let Err(error) = outcome {
        tracing::debug!(error = error.to_string(), "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Longer than any test waits for something that comes.
    const LONG: Duration = Duration::from_secs(3600);
    const GENEROUS: Limits = Limits {
        connections: 2,
        head_within: LONG,
        lifetime: None,
        grace: LONG,
    };
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    struct Door {
        path: std::path::PathBuf,
        task: tokio::task::JoinHandle<()>,
        _folder: tempfile::TempDir,
    }

    impl Door {
        fn open(limits: Limits) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let router = Router::new()
                .route("/", get(|| async { "hello" }))
                .route("/never", get(std::future::pending::<String>));
            Self {
                path,
                task: tokio::spawn(serve(listener, router, (), limits)),
                _folder: folder,
            }
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(&self.path).await.unwrap()
        }
    }

    /// Sends a request, and reads as far as the body of the answer.
    async fn ask(stream: &mut UnixStream) -> String {
        let mut answer = Vec::new();
        if stream.write_all(REQUEST).await.is_err() {
            return String::new();
        }
        while !answer.ends_with(b"hello") {
            let mut chunk = [0; 1024];
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(count) => answer.extend_from_slice(&chunk[..count]),
            }
        }
        String::from_utf8(answer).unwrap()
    }

    async fn is_closed(mut stream: UnixStream) -> bool {
        let mut rest = Vec::new();
        // An end or a reset: both are.
        stream.read_to_end(&mut rest).await.is_err() || rest.is_empty() || !rest.ends_with(b"hello")
    }

    #[tokio::test]
    async fn who_comes_when_the_door_is_full_is_served_when_another_leaves() {
        let door = Door::open(GENEROUS);
        let mut first = door.connect().await;
        let mut second = door.connect().await;
        assert!(ask(&mut first).await.ends_with("hello"));
        assert!(ask(&mut second).await.ends_with("hello"));
        let mut third = door.connect().await;
        third.write_all(REQUEST).await.unwrap();
        // The first still gets its answers, and as long as it stays the third gets none.
        assert!(ask(&mut first).await.ends_with("hello"));
        let mut byte = [0];
        assert_eq!(
            third.try_read(&mut byte).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(second);
        third.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"H");
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut_off() {
        let door = Door::open(Limits {
            head_within: Duration::from_millis(50),
            ..GENEROUS
        });
        let mut slow = door.connect().await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
            .await
            .unwrap();
        assert!(is_closed(slow).await);
        // Whoever is quicker is served, on a busy machine at a later try.
        let mut quick = door.connect().await;
        while !ask(&mut quick).await.ends_with("hello") {
            quick = door.connect().await;
        }
        // Silence where the next head should begin is no better.
        assert!(is_closed(quick).await);
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let door = Door::open(GENEROUS);
        let mut stream = door.connect().await;
        let mut head = b"GET / HTTP/1.1\r\nx: ".to_vec();
        head.resize(MAX_HEAD + 1024, b'x');
        stream.write_all(&head).await.unwrap();
        let mut answer = String::new();
        // It hangs up on what it did not read; the answer may be lost with it.
        let _reset = stream.read_to_string(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_connection_that_is_too_old_ends_although_its_answer_never_comes() {
        let door = Door::open(Limits {
            lifetime: Some(Duration::from_millis(50)),
            grace: Duration::from_millis(50),
            ..GENEROUS
        });
        let mut stream = door.connect().await;
        stream
            .write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(is_closed(stream).await);
    }

    #[tokio::test]
    async fn a_door_that_closes_ends_its_connections() {
        let door = Door::open(GENEROUS);
        let mut stream = door.connect().await;
        assert!(ask(&mut stream).await.ends_with("hello"));
        door.task.abort();
        assert!(is_closed(stream).await);
    }

    #[tokio::test]
    async fn garbage_ends_its_own_connection_and_no_other() {
        let door = Door::open(GENEROUS);
        for garbage in [
            b"\0\0\0\0".as_slice(),
            b"GET / HTTP/9.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
            b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"GET /\x1b[2J HTTP/1.1\r\n\r\n",
        ] {
            let mut stream = door.connect().await;
            // It may be refused before all of it is written.
            let _refused = stream.write_all(garbage).await;
            let _done = stream.shutdown().await;
            assert!(is_closed(stream).await);
        }
        assert!(ask(&mut door.connect().await).await.ends_with("hello"));
    }
}
