//! The way to the model provider. Its address is the operator's word: it alone may lie inside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::http::uri::{Scheme, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto};

use super::count::{Counted, Counter};
use super::resolve::{self, ReachError, Resolver};

/// How long a provider may take to be spoken to over TLS.
const TLS_TIME: Duration = Duration::from_secs(15);
/// How long its name may take.
const RESOLVE_TIME: Duration = Duration::from_secs(10);

/// A provider's address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    host: String,
    port: u16,
    tls: bool,
    /// What goes before every path, without a slash at its end.
    prefix: String,
    /// For the header `host`.
    authority: HeaderValue,
}

/// A text is no address of a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("egress.modelUrl is no address such as https://api.example.com")]
pub struct InvalidProvider;

impl Provider {
    /// Takes an address apart.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(url: &str) -> Result<Self, InvalidProvider> {
        let uri: Uri = url.parse().map_err(|_| InvalidProvider)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(InvalidProvider),
        };
        let authority = uri.authority().ok_or(InvalidProvider)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(InvalidProvider);
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| InvalidProvider)?,
        })
    }

    /// What goes into the header `host`.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The target of a request for this path and query.
    pub fn target(&self, path: &str, query: Option<&str>) -> String {
        match query {
            Some(query) => format!("{}{path}?{query}", self.prefix),
            None => format!("{}{path}", self.prefix),
        }
    }

    async fn resolve(&self, resolver: &dyn Resolver) -> Result<Vec<SocketAddr>, ProviderError> {
        if let Ok(address) = self.host.parse() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let found = tokio::time::timeout(RESOLVE_TIME, resolver.resolve(&self.host, self.port)).await;
        match found {
            Ok(Ok(found)) if !found.is_empty() => Ok(found),
            Ok(_) => Err(ReachError::Unresolved {
                host: self.host.clone(),
            }
            .into()),
            Err(_) => Err(ReachError::TimedOut {
                target: self.host.clone(),
            }
            .into()),
        }
    }
}

/// Why the provider cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It cannot be reached.
    #[error("the model provider: {0}")]
    Reach(#[from] ReachError),
    /// TLS fails.
    #[error("the model provider {host} cannot be spoken to over TLS")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS takes too long.
    #[error("the model provider {host} did not answer over TLS in time")]
    TlsTime {
        /// The host.
        host: String,
    },
    /// There is nothing to check its certificate with.
    #[error(
        "this machine has no root certificates to check the model provider's with: install ca-certificates"
    )]
    NoRoots,
    /// The library refuses its own settings.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Speaks TLS with whom the machine trusts.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl Tls {
    /// With the certificates that the machine trusts. Blocks.
    ///
    /// # Errors
    /// When there are none.
    pub fn of_machine() -> Result<Self, ProviderError> {
        let mut roots = RootCertStore::empty();
        // What cannot be read is passed over: one broken file is no reason to trust nobody.
        let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if usable == 0 {
            return Err(ProviderError::NoRoots);
        }
        Self::with_roots(roots)
    }

    /// With these.
    ///
    /// # Errors
    /// When the library refuses its own settings.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, ProviderError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(ProviderError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// A connection to the provider, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Provider {
    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Connects. `tls` must be there when [`Provider::is_tls`].
    ///
    /// # Errors
    /// When it cannot be reached, or is not who it should be.
    pub(super) async fn connect(
        &self,
        resolver: &dyn Resolver,
        tls: Option<&Tls>,
        counter: Arc<Counter>,
    ) -> Result<Box<dyn Stream>, ProviderError> {
        let addresses = self.resolve(resolver).await?;
        let stream: TcpStream = resolve::connect(&addresses, &self.host).await?;
        let stream = Counted::new(stream, counter);
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let connector = &tls.ok_or(ProviderError::NoRoots)?.0;
        let host = || self.host.clone();
        let failed = |source| ProviderError::Tls { host: host(), source };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
        match tokio::time::timeout(TLS_TIME, connector.connect(name, stream)).await {
            Ok(stream) => Ok(Box::new(stream.map_err(failed)?)),
            Err(_) => Err(ProviderError::TlsTime { host: host() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let provider = Provider::parse("https://api.example.com").expect("an address");
        assert!(provider.is_tls());
        assert_eq!((provider.host.as_str(), provider.port), ("api.example.com", 443));
        assert_eq!(provider.authority(), "api.example.com");
        assert_eq!(
            provider.target("/v1/messages", Some("beta=true")),
            "/v1/messages?beta=true"
        );

        let provider = Provider::parse("http://[::1]:8080/anthropic/").expect("an address");
        assert!(!provider.is_tls());
        assert_eq!((provider.host.as_str(), provider.port), ("::1", 8080));
        assert_eq!(provider.authority(), "[::1]:8080");
        assert_eq!(provider.target("/v1/models", None), "/anthropic/v1/models");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "api.example.com",
            "ftp://api.example.com",
            "https://",
            "https://user:pw@api.example.com",
            "https://api.example.com/?x=1",
            "https://a b",
        ] {
            assert_eq!(Provider::parse(bad), Err(InvalidProvider), "{bad:?}");
        }
    }
}
