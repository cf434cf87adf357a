//! From a target to the addresses that are connected to. Names are resolved once; what was judged is what is used.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;

use super::rule::Target;

/// How long a name may take to be resolved.
const RESOLVE_TIME: Duration = Duration::from_secs(10);
/// How long one address may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The most addresses of one name that are tried.
const MAX_TRIED: usize = 4;
/// The most addresses that a name may have.
const MAX_ADDRESSES: usize = 64;

/// Says why an address is not connected to: [`super::address::refusal`].
pub type Judge = fn(IpAddr) -> Option<&'static str>;

/// Where names lead.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// All addresses of a name.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((host, port)).await?;
        Ok(found.take(MAX_ADDRESSES + 1).collect())
    }
}

/// Why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The name leads to an address that is not connected to.
    #[error("{host} leads to an address that is {why}")]
    Refused {
        /// The name.
        host: String,
        /// What is wrong with the address.
        why: &'static str,
    },
    /// The name leads nowhere.
    #[error("{host} cannot be resolved")]
    Unresolved {
        /// The name.
        host: String,
    },
    /// Nobody answers there.
    #[error("{target} cannot be connected to")]
    Unreachable {
        /// The target.
        target: String,
    },
    /// It took too long.
    #[error("{target} did not answer in time")]
    TimedOut {
        /// The target.
        target: String,
    },
}

/// The addresses of a target, all of them judged: if one is refused, all are. A name that leads inside and outside is an
/// attempt to get inside.
///
/// # Errors
/// When one is refused, or there are none.
pub async fn addresses(
    resolver: &dyn Resolver,
    target: &Target,
    judge: Judge,
) -> Result<Vec<SocketAddr>, ReachError> {
    let found = match target.address() {
        Some(address) => vec![SocketAddr::new(address, target.port())],
        None => {
            let host = target.host();
            tokio::time::timeout(RESOLVE_TIME, resolver.resolve(host, target.port()))
                .await
                .map_err(|_| ReachError::TimedOut {
                    target: host.to_owned(),
                })?
                .map_err(|error| {
                    tracing::debug!(host, %error, "not resolved");
                    ReachError::Unresolved {
                        host: host.to_owned(),
                    }
                })?
        }
    };
    judged(target, found, judge)
}

fn judged(target: &Target, found: Vec<SocketAddr>, judge: Judge) -> Result<Vec<SocketAddr>, ReachError> {
    let host = || target.host().to_owned();
    if found.is_empty() || found.len() > MAX_ADDRESSES {
        return Err(ReachError::Unresolved { host: host() });
    }
    for address in &found {
        if let Some(why) = judge(address.ip()) {
            return Err(ReachError::Refused { host: host(), why });
        }
    }
    // Whatever port a resolver may put there.
    let with_port = found
        .into_iter()
        .map(|found| SocketAddr::new(found.ip(), target.port()));
    Ok(with_port.collect())
}

/// Connects to one of these addresses, and to nothing else.
///
/// # Errors
/// When none of them answers; the error names `target` alone.
pub async fn connect(addresses: &[SocketAddr], target: &str) -> Result<TcpStream, ReachError> {
    let mut timed_out = false;
    for address in addresses.iter().take(MAX_TRIED) {
        match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // What is streamed comes in small pieces, which wait for nothing.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "small pieces may wait");
                }
                return Ok(stream);
            }
            Ok(Err(error)) => tracing::debug!(target, %address, %error, "not connected"),
            Err(_) => timed_out = true,
        }
    }
    let target = target.to_owned();
    Err(if timed_out {
        ReachError::TimedOut { target }
    } else {
        ReachError::Unreachable { target }
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Mutex;

    use super::*;

    /// Names that lead where a test wants, and how often each was asked for.
    #[derive(Debug, Default)]
    pub(crate) struct Names {
        pub(crate) answers: Vec<Vec<SocketAddr>>,
        pub(crate) asked: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Resolver for Names {
        async fn resolve(&self, host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
            let mut asked = self.asked.lock().expect("no panic");
            asked.push(host.to_owned());
            let answer = self.answers.get(asked.len() - 1);
            answer.cloned().ok_or_else(|| io::Error::other("no such name"))
        }
    }

    pub(crate) fn leading_to(addresses: &[&str]) -> Names {
        Names {
            answers: vec![
                addresses
                    .iter()
                    .map(|address| address.parse().expect("an address"))
                    .collect(),
            ],
            asked: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::leading_to;
    use super::*;
    use crate::egress::address::refusal;

    async fn found(target: &str, leads_to: &[&str]) -> Result<Vec<SocketAddr>, ReachError> {
        addresses(
            &leading_to(leads_to),
            &Target::parse(target).expect("a target"),
            refusal,
        )
        .await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_the_machine_itself_is_refused() {
        for inside in [
            "127.0.0.1:443",
            "[::1]:443",
            "10.0.0.1:443",
            "169.254.169.254:443",
        ] {
            let outcome = found("evil.example:443", &[inside]).await;
            assert!(matches!(outcome, Err(ReachError::Refused { .. })), "{inside}");
        }
    }

    #[tokio::test]
    async fn one_refused_address_refuses_all_wherever_it_stands() {
        for mixed in [
            ["1.1.1.1:443", "127.0.0.1:443"],
            ["127.0.0.1:443", "1.1.1.1:443"],
            ["1.1.1.1:443", "[::ffff:127.0.0.1]:443"],
        ] {
            let outcome = found("evil.example:443", &mixed).await;
            assert!(matches!(outcome, Err(ReachError::Refused { .. })), "{mixed:?}");
        }
    }

    #[tokio::test]
    async fn what_is_used_is_what_was_judged_with_the_port_that_was_asked_for() {
        let answer = found("good.example:8443", &["1.1.1.1:22", "[2606:4700::1]:0"]).await;
        let expected: Vec<SocketAddr> = ["1.1.1.1:8443", "[2606:4700::1]:8443"]
            .map(|text| text.parse().expect("an address"))
            .to_vec();
        assert_eq!(answer.expect("addresses"), expected);
    }

    #[tokio::test]
    async fn a_name_is_resolved_once() {
        let names = leading_to(&["1.1.1.1:443"]);
        let target = Target::parse("good.example:443").expect("a target");
        addresses(&names, &target, refusal).await.expect("addresses");
        assert_eq!(*names.asked.lock().expect("no panic"), ["good.example"]);
    }

    #[tokio::test]
    async fn an_address_is_judged_without_a_resolver() {
        let names = leading_to(&[]);
        let target = Target::parse("127.0.0.1:443").expect("a target");
        assert!(matches!(
            addresses(&names, &target, refusal).await,
            Err(ReachError::Refused { .. })
        ));
        assert!(names.asked.lock().expect("no panic").is_empty());
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_not_refused_but_unresolved() {
        let outcome = found("nowhere.example:443", &[]).await;
        assert!(matches!(outcome, Err(ReachError::Unresolved { .. })));
    }
}
