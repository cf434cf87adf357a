//! The ways out of a container that has loopback alone: ports there that lead to the sockets of the egress service.
//!
//! Agents' programs speak TCP, the service listens on sockets in a folder that the container was given. Whatever goes
//! through is the business of the two ends; here nothing is read.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use shared::config::AgentConfig;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::Instant;

/// The model gateway's socket.
const MODEL: &str = "model.sock";
/// The proxy's socket.
const PROXY: &str = "proxy.sock";
/// What stands where a program insists on a key. The gateway puts the real one in its place.
const PLACEHOLDER: &str = "provided-by-the-model-gateway";
/// What is reached without a proxy.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";
/// How long to wait for a service that is just being started anew.
const SERVICE_TIME: Duration = Duration::from_secs(5);
const SERVICE_PAUSE: Duration = Duration::from_millis(100);
/// Before accepting is tried again after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The ports on loopback that lead out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ways(Option<Ports>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    model: u16,
    proxy: u16,
}

impl Ways {
    /// What a program of this agent needs in its environment to find them; nothing where the agent has none.
    pub fn environment(self, config: &AgentConfig) -> Vec<(String, std::ffi::OsString)> {
        let (Some(ports), Some(egress)) = (self.0, &config.egress) else {
            return Vec::new();
        };
        let model = format!("http://127.0.0.1:{}", ports.model);
        let proxy = format!("http://127.0.0.1:{}", ports.proxy);
        let mut variables = vec![("ANTHROPIC_BASE_URL", model.as_str())];
        if egress.provides_key {
            variables.push(("ANTHROPIC_API_KEY", PLACEHOLDER));
        }
        // Programs disagree about the case.
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            variables.push((name, &proxy));
        }
        variables.extend([("NO_PROXY", NO_PROXY), ("no_proxy", NO_PROXY)]);
        variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }

    /// The port of the proxy, where the agent has one.
    pub fn proxy(self, config: &AgentConfig) -> Option<u16> {
        self.0
            .filter(|_| config.egress.is_some())
            .map(|ports| ports.proxy)
    }
}

/// Opens the ports for the sockets in this folder, for as long as the program runs. None where there is no such folder.
pub async fn open(folder: &Utf8Path) -> Ways {
    if !folder.is_dir() {
        return Ways::default();
    }
    let ports = async {
        Ok::<_, io::Error>(Ports {
            model: relay(folder.join(MODEL)).await?,
            proxy: relay(folder.join(PROXY)).await?,
        })
    };
    match ports.await {
        Ok(ports) => {
            tracing::info!(model = ports.model, proxy = ports.proxy, "ways out are open");
            Ways(Some(ports))
        }
        Err(error) => {
            tracing::error!(%error, "there is no way out: no port on loopback can be opened");
            Ways::default()
        }
    }
}

async fn relay(socket: Utf8PathBuf) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((near, _)) => drop(tokio::spawn(connection(near, socket.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the outside cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(port)
}

async fn connection(mut near: TcpStream, socket: Utf8PathBuf) {
    let carried = async {
        let mut far = connect(&socket).await?;
        // What is streamed comes in small pieces, which wait for nothing.
        near.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%socket, %error, "a connection to the outside ended early");
    }
}

/// Connects to the service, which may be about to come back.
async fn connect(socket: &Utf8Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + SERVICE_TIME;
    loop {
        match UnixStream::connect(socket).await {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) && Instant::now() < deadline =>
            {
                tokio::time::sleep(SERVICE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::testing::config;

    fn names(ways: Ways, egress: &serde_json::Value) -> Vec<String> {
        let config = config(&json!({ "egress": egress }));
        ways.environment(&config)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    fn ways() -> Ways {
        Ways(Some(Ports { model: 1, proxy: 2 }))
    }

    #[test]
    fn programs_are_told_of_the_ways_only_where_the_network_has_them() {
        assert!(names(ways(), &json!(null)).is_empty());
        assert!(names(Ways::default(), &json!({ "providesKey": true })).is_empty());
        let own_login = names(ways(), &json!({}));
        assert!(own_login.contains(&"ANTHROPIC_BASE_URL".to_owned()));
        assert!(own_login.contains(&"HTTPS_PROXY".to_owned()) && own_login.contains(&"NO_PROXY".to_owned()));
        // It would go before the agent's own login.
        assert!(!own_login.contains(&"ANTHROPIC_API_KEY".to_owned()));
        assert!(names(ways(), &json!({ "providesKey": true })).contains(&"ANTHROPIC_API_KEY".to_owned()));
    }

    #[tokio::test]
    async fn without_the_folder_there_is_no_way() {
        assert_eq!(
            open(Utf8Path::new("/nonexistent/hive-egress")).await,
            Ways::default()
        );
    }

    #[tokio::test]
    async fn a_port_leads_to_its_socket_whenever_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("UTF-8");
        let Ways(Some(ports)) = open(path).await else {
            panic!("no ports");
        };
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, ports.model))
            .await
            .expect("a port");
        near.write_all(b"hello").await.expect("written");
        // The service comes a little later.
        let listener = UnixListener::bind(path.join(MODEL)).expect("a socket");
        let (mut far, _) = listener.accept().await.expect("the relay comes");
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.expect("what was said");
        assert_eq!(&heard, b"hello");
        far.write_all(b"there").await.expect("written");
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(answer, "there");
    }
}
