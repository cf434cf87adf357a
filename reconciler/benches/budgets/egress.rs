//! What the model gateway costs a stream: the time from a piece's leaving the provider to its arriving at the client.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use reconciler::host::folders::write_atomic;
use serde_json::json;
use tokio::net::UnixStream;

use super::Effort;
use super::hive::{PROGRAM, pause, until};
use super::row::{Budget, Row, ms, spread};

/// Ends every piece; no other byte of one is this.
const END: u8 = b'Z';
/// As large as most events of a stream.
const PIECE: usize = 200;
/// Between two pieces: each has arrived before the next leaves.
const APART: Duration = Duration::from_millis(3);

pub(crate) fn measure(effort: Effort) -> Result<()> {
    let pieces = effort.choose(500, 100);
    let rounds = effort.choose(6, 3);
    let folder = tempfile::tempdir()?;
    let folder = Utf8Path::from_path(folder.path()).context("a path that is not UTF-8")?;
    let (provider, left) = provider(pieces)?;
    let _service = Service::start(folder, provider)?;
    let socket = folder.join("egress/alice/model.sock");
    until("the gateway's socket", || Ok(socket.exists().then_some(())))?;
    let gateway = relay(socket)?;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    // The first round of each warms up.
    for round in 0..=rounds {
        for (address, times) in [(provider, &mut direct), (gateway, &mut through)] {
            let arrived = stream(address, pieces)?;
            let left = left.recv()?;
            if round > 0 {
                times.extend(
                    arrived
                        .iter()
                        .zip(&left)
                        .map(|(arrived, left)| arrived.duration_since(*left)),
                );
            }
        }
    }
    let ((direct, direct_p90), (through, through_p90)) = (spread(&direct), spread(&through));
    Row::new("streamed piece: added by relay and gateway", ms(through.saturating_sub(direct)), "ms")
        .within(Budget::AtMost(1.0))
        .beside("the same stream without them", ms(direct))
        .note(format!(
            "p50 of {} pieces of {PIECE} bytes, {} ms apart; direct p90 {:.3} ms, through p50 {:.3} ms, p90 {:.3} ms",
            rounds * pieces,
            APART.as_millis(),
            ms(direct_p90),
            ms(through),
            ms(through_p90)
        ))
        .print()
}

/// A provider that streams pieces to whoever asks, one client at a time, and tells when each has left.
fn provider(pieces: usize) -> Result<(SocketAddr, mpsc::Receiver<Vec<Instant>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(times) = stream.and_then(|stream| answer(stream, pieces)) else {
                continue;
            };
            if tell.send(times).is_err() {
                return;
            }
        }
    });
    Ok((address, told))
}

fn answer(mut stream: TcpStream, pieces: usize) -> std::io::Result<Vec<Instant>> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer[..count]);
    }
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let piece = format!("{:x}\r\n{}{}\r\n", PIECE, "x".repeat(PIECE - 1), char::from(END));
    let mut left = Vec::with_capacity(pieces);
    for _ in 0..pieces {
        pause(APART);
        left.push(Instant::now());
        stream.write_all(piece.as_bytes())?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    Ok(left)
}

/// Asks for a stream, and notes when each piece has arrived.
fn stream(address: SocketAddr, pieces: usize) -> Result<Vec<Instant>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: placeholder\r\ncontent-length: 2\r\n\r\n{}",
    )?;
    let mut arrived = Vec::with_capacity(pieces);
    let mut buffer = [0; 16 * 1024];
    while arrived.len() < pieces {
        let count = stream.read(&mut buffer)?;
        let now = Instant::now();
        if count == 0 {
            bail!("the stream ended after {} of {pieces} pieces", arrived.len());
        }
        let ended = buffer[..count].iter().filter(|byte| **byte == END).count();
        arrived.extend(std::iter::repeat_n(now, ended));
    }
    Ok(arrived)
}

/// What the harness does, with the same means: a port of loopback that leads to the socket.
fn relay(socket: Utf8PathBuf) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((mut near, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    let mut far = UnixStream::connect(socket).await?;
                    near.set_nodelay(true)?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
    });
    Ok(address)
}

/// The real `hive egress`, with the provider's key.
struct Service(Child);

impl Service {
    fn start(folder: &Utf8Path, provider: SocketAddr) -> Result<Self> {
        let (policy, key) = (folder.join("egress.json"), folder.join("key"));
        let text = json!({
            "provider": format!("http://{provider}"),
            "apiKeyFile": key,
            "agents": { "alice": { "network": "model" } },
        });
        write_atomic(&key, b"sk-made-up", 0o600)?;
        write_atomic(&policy, text.to_string().as_bytes(), 0o644)?;
        let child = Command::new(PROGRAM)
            .arg("egress")
            .args(["--policy", policy.as_str()])
            .args(["--dir", folder.join("egress").as_str()])
            .args(["--daemon", folder.join("none.sock").as_str()])
            .args(["--log", "error"])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.0.kill().and_then(|()| self.0.wait()).is_err() {
            eprintln!("hive egress was not ended");
        }
    }
}
