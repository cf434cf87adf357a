//! Which hosts are listed, and what a CONNECT asks for (pure).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The port of a host that is listed without one.
const DEFAULT_PORT: u16 = 443;
/// The longest name.
const MAX_NAME: usize = 253;

/// One entry of a list of hosts: `example.org`, `*.example.org` for all names below, either with `:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    /// Whether it stands for the names below, and not for the name itself.
    below: bool,
    name: String,
    port: u16,
}

/// Why a text is no entry of a list of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// It has another form.
    #[error(
        "expected a host name in lower case such as \"api.example.com\", \"*.example.com\" for every name below it, or \
         either with a port as in \"example.com:8443\" (no scheme, no path)"
    )]
    Form,
    /// Resolvers read `127.1` or `2130706433` as an address of another form.
    #[error("expected a host name or a full IPv4 address")]
    Number,
    /// It is an address that is never connected to.
    #[error(
        "the address is {0}, which the egress service never connects to: only network \"host\" reaches it"
    )]
    Refused(&'static str),
}

impl FromStr for HostRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, read_port(port).ok_or(InvalidRule::Form)?),
            None => (text, DEFAULT_PORT),
        };
        let (below, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, host),
        };
        if !is_name(name) {
            return Err(InvalidRule::Form);
        }
        if is_number(name) {
            let address: Ipv4Addr = name.parse().map_err(|_| InvalidRule::Number)?;
            if below {
                return Err(InvalidRule::Form);
            }
            if let Some(why) = super::address::refusal(address.into()) {
                return Err(InvalidRule::Refused(why));
            }
        }
        Ok(Self {
            below,
            name: name.to_owned(),
            port,
        })
    }
}

impl HostRule {
    /// Whether it lists this target.
    pub fn lists(&self, target: &Target) -> bool {
        let host = target.host.as_str();
        let named = if self.below {
            host.strip_suffix(self.name.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty() && target.address.is_none())
        } else {
            host == self.name
        };
        named && target.port == self.port
    }
}

/// Where a CONNECT wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// In lower case, without a dot at its end; an address of the sixth version stands in brackets.
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Target {
    /// Reads `host:port`; the port must be there. `None`: it is none.
    pub fn parse(authority: &str) -> Option<Self> {
        let (host, port) = authority.rsplit_once(':')?;
        let port = read_port(port)?;
        if let Some(inner) = host.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self {
                host: format!("[{address}]"),
                address: Some(address.into()),
                port,
            });
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if !is_name(&host) {
            return None;
        }
        let address = match is_number(&host) {
            true => Some(IpAddr::V4(host.parse().ok()?)),
            false => None,
        };
        Some(Self { host, address, port })
    }

    /// The host as it is shown, compared and resolved.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// How it would be listed; `None` for what cannot be.
    pub fn as_rule(&self) -> Option<String> {
        let text = match self.port {
            DEFAULT_PORT => self.host.clone(),
            port => format!("{}:{port}", self.host),
        };
        text.parse::<HostRule>().is_ok().then_some(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn read_port(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// Whether it is a name of the domain name system in lower case, or an address of the fourth version in some form.
fn is_name(host: &str) -> bool {
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= MAX_NAME && host.split('.').all(label_fits)
}

/// Whether a resolver may read it as an address: its last label is a number, in any of their forms.
fn is_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let digits = last.strip_prefix("0x").unwrap_or(last);
    let hexadecimal = digits.len() < last.len();
    digits
        .bytes()
        .all(|b| b.is_ascii_digit() || (hexadecimal && b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(rule: &str, target: &str) -> bool {
        let target = Target::parse(target).expect("a target");
        rule.parse::<HostRule>().expect("a rule").lists(&target)
    }

    #[test]
    fn a_host_is_listed_by_its_whole_name_and_port() {
        assert!(lists("example.org", "example.org:443"));
        assert!(lists("example.org", "EXAMPLE.org.:443"));
        assert!(lists("example.org:8443", "example.org:8443"));
        assert!(lists("1.1.1.1", "1.1.1.1:443"));
        for other in [
            "example.org:80",
            "example.org:8443",
            "www.example.org:443",
            "example.org.evil.com:443",
            "notexample.org:443",
            "example.or:443",
            "[::1]:443",
        ] {
            assert!(!lists("example.org", other), "{other}");
        }
        assert!(!lists("example.org:8443", "example.org:443"));
    }

    #[test]
    fn a_star_lists_the_names_below_and_not_the_name() {
        assert!(lists("*.example.org", "a.example.org:443"));
        assert!(lists("*.example.org", "a.b.example.org:443"));
        assert!(lists("*.example.org:8443", "a.example.org:8443"));
        for other in [
            "example.org:443",
            "aexample.org:443",
            "a.example.org:80",
            "a.example.org.evil.com:443",
        ] {
            assert!(!lists("*.example.org", other), "{other}");
        }
    }

    #[test]
    fn a_text_that_could_be_read_in_two_ways_is_no_target() {
        for bad in [
            "",
            "example.org",
            "example.org:",
            "example.org:0",
            "example.org:65536",
            "example.org:+443",
            "example.org: 443",
            "example.org:443:443",
            "user@example.org:443",
            "127.1:443",
            "2130706433:443",
            "0x7f000001:443",
            "0x7f.1:443",
            "example.0x1:443",
            "1.2.3.4.5:443",
            "::1:443",
            "[::1:443",
            "[fe80::1%eth0]:443",
            "a..b:443",
            ".a:443",
            "a b:443",
            "a\r\nb:443",
            "exämple.org:443",
            "-a.org:443",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad:?}");
        }
        assert!(Target::parse(&format!("{}:443", "a.".repeat(127) + "a")).is_none());
    }

    #[test]
    fn a_list_has_no_entry_that_could_never_be_reached() {
        for bad in [
            "*",
            "*.",
            "a.*.org",
            "*.1.1.1.1",
            "127.1",
            "example.org:0",
            "https://example.org",
            "Example.org",
            "[::1]",
        ] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "10.0.0.1".parse::<HostRule>(),
            Err(InvalidRule::Refused("of a private network"))
        );
    }

    #[test]
    fn what_is_refused_can_be_listed_as_it_is_told() {
        let rule = |target: &str| Target::parse(target).and_then(|target| target.as_rule());
        assert_eq!(rule("Example.org:443").as_deref(), Some("example.org"));
        assert_eq!(rule("example.org:8443").as_deref(), Some("example.org:8443"));
        assert_eq!(rule("127.0.0.1:443"), None);
        assert_eq!(rule("[2606:4700::1]:443"), None);
    }
}
