//! Other stores of messages, made to answer only when what they keep is on the disk: as the broker does.
//!
//! Each is started for the measurement, on the same disk, on loopback or a unix socket, and is spoken to by the same kind of
//! client: blocking sockets of this program, one request in flight on each connection, the same text.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use super::hive::pause;

/// No answer takes longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a server may take to start.
const STARTS_WITHIN: u32 = 500;

/// Keeps a text, and returns when it is kept for good.
pub(crate) trait Keeps: Send {
    fn keep(&mut self, text: &str) -> Result<()>;
}

/// A server and how to connect to it.
pub(crate) struct Rival {
    /// Name, version, and how it was told to sync.
    pub(crate) name: &'static str,
    /// What it calls itself.
    pub(crate) version: String,
    connect: Box<dyn Fn() -> Result<Box<dyn Keeps>>>,
    _server: Server,
}

impl Rival {
    pub(crate) fn connect(&self) -> Result<Box<dyn Keeps>> {
        (self.connect)()
    }
}

/// All that are installed; of the others is said what is missing.
pub(crate) fn all(folder: &Utf8Path) -> Vec<Rival> {
    type Start = fn(&Utf8Path) -> Result<Rival>;
    let servers: [(&str, Start); 2] = [("redis-server", redis), ("nats-server", nats)];
    let mut rivals = Vec::new();
    for (program, start) in servers {
        let folder = folder.join(program);
        let started = std::fs::create_dir_all(&folder)
            .with_context(|| format!("making {folder}"))
            .and_then(|()| start(&folder));
        match started {
            Ok(rival) => rivals.push(rival),
            #[expect(clippy::print_stderr, reason = "what is not measured must be said")]
            Err(error) => eprintln!("not measured beside {program}: {error:#}"),
        }
    }
    rivals
}

/// A child that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already when it could not start.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts a server, which writes to `log`.
fn start(program: &str, arguments: &[&str], log: &Utf8Path) -> Result<Server> {
    let output = File::create(log)?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| {
            format!("{program} does not start: install it, newest versions first on the PATH")
        })?;
    Ok(Server(child))
}

/// Connects as soon as the server listens.
fn connected<T>(server: &mut Server, log: &Utf8Path, mut connect: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..STARTS_WITHIN {
        if let Ok(stream) = connect() {
            return Ok(stream);
        }
        if let Some(status) = server.0.try_wait()? {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!(
                "it ended with {status}: {}",
                said.trim().lines().last().unwrap_or_default()
            );
        }
        pause(Duration::from_millis(10));
    }
    connect()
}

fn version(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("{program} is not installed"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Redis, which appends each command to its file and syncs before it answers.
fn redis(folder: &Utf8Path) -> Result<Rival> {
    let version = version("redis-server")?;
    // Sockets have short paths.
    let sockets = tempfile::Builder::new().prefix("hr").tempdir_in("/tmp")?;
    let socket = Utf8Path::from_path(sockets.path())
        .context("a path that is UTF-8")?
        .join("s");
    let log = folder.join("log");
    let arguments = [
        "--port",
        "0",
        "--unixsocket",
        socket.as_str(),
        "--dir",
        folder.as_str(),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--auto-aof-rewrite-percentage",
        "0",
    ];
    let mut server = start("redis-server", &arguments, &log)?;
    connected(&mut server, &log, || Redis::new(&socket))?;
    Ok(Rival {
        name: "Redis, appendfsync always",
        version,
        connect: Box::new(move || {
            // The folder of the socket lives as long as this.
            let _held = &sockets;
            Ok(Box::new(Redis::new(&socket)?))
        }),
        _server: server,
    })
}

struct Redis(BufReader<UnixStream>);

impl Redis {
    fn new(socket: &Utf8Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self(BufReader::new(stream)))
    }
}

impl Keeps for Redis {
    /// One entry of a stream, as an inbox would be.
    fn keep(&mut self, text: &str) -> Result<()> {
        let mut request = b"*5\r\n".to_vec();
        for word in ["XADD", "inbox", "*", "body", text] {
            write!(request, "${}\r\n{word}\r\n", word.len())?;
        }
        self.0.get_mut().write_all(&request)?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let length: usize = line
            .strip_prefix('$')
            .and_then(|length| length.trim_end().parse().ok())
            .with_context(|| format!("Redis answers {line:?}"))?;
        let mut id = vec![0; length + 2];
        self.0.read_exact(&mut id)?;
        Ok(())
    }
}

/// NATS `JetStream`, which syncs each message before it answers. Only versions since 2.10 can.
fn nats(folder: &Utf8Path) -> Result<Rival> {
    let version = version("nats-server")?;
    let (config, log, ports) = (folder.join("conf"), folder.join("log"), folder.join("ports"));
    std::fs::create_dir_all(&ports)?;
    std::fs::write(
        &config,
        format!(
            "host: 127.0.0.1\nport: -1\njetstream {{ store_dir: \"{folder}/store\", sync_interval: always }}\n"
        ),
    )?;
    let mut server = start(
        "nats-server",
        &["-c", config.as_str(), "--ports_file_dir", ports.as_str()],
        &log,
    )?;
    let address = connected(&mut server, &log, || address(&ports))?;
    let mut first = Nats::new(&address)?;
    first.request(
        "$JS.API.STREAM.CREATE.inbox",
        r#"{"name":"inbox","subjects":["inbox"],"storage":"file","num_replicas":1}"#,
        "created",
    )?;
    Ok(Rival {
        name: "NATS JetStream, sync always",
        version,
        connect: Box::new(move || Ok(Box::new(Nats::new(&address)?))),
        _server: server,
    })
}

/// Where it listens, from the file that it writes when it does.
fn address(ports: &Utf8Path) -> Result<String> {
    let files: Vec<Utf8PathBuf> = ports
        .read_dir_utf8()?
        .map(|entry| Ok(entry?.into_path()))
        .collect::<Result<_>>()?;
    let file = files.first().context("not there yet")?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let url = ports["nats"][0].as_str().context("no address")?;
    Ok(url.trim_start_matches("nats://").to_owned())
}

struct Nats(BufReader<TcpStream>);

impl Nats {
    fn new(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        let mut client = Self(BufReader::new(stream));
        let inbox = format!("_INBOX.{}", client.0.get_ref().local_addr()?.port());
        let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\n");
        client.0.get_mut().write_all(hello.as_bytes())?;
        Ok(client)
    }

    /// Publishes and waits for the answer, which must hold `wanted`.
    fn request(&mut self, subject: &str, body: &str, wanted: &str) -> Result<()> {
        let port = self.0.get_ref().local_addr()?.port();
        let request = format!("PUB {subject} _INBOX.{port} {}\r\n{body}\r\n", body.len());
        self.0.get_mut().write_all(request.as_bytes())?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                bail!("NATS hung up");
            }
            match line.split_whitespace().next() {
                Some("MSG") => {
                    let length = line
                        .split_whitespace()
                        .last()
                        .and_then(|length| length.parse::<usize>().ok());
                    let mut answer = vec![0; length.with_context(|| format!("NATS says {line:?}"))? + 2];
                    self.0.read_exact(&mut answer)?;
                    let answer = String::from_utf8_lossy(&answer);
                    if !answer.contains(wanted) {
                        bail!("NATS refuses: {answer}");
                    }
                    return Ok(());
                }
                Some("PING") => self.0.get_mut().write_all(b"PONG\r\n")?,
                Some("-ERR") => bail!("NATS says {line:?}"),
                _ => {}
            }
        }
    }
}

impl Keeps for Nats {
    fn keep(&mut self, text: &str) -> Result<()> {
        self.request("inbox", text, "\"seq\":")
    }
}
