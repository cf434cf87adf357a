//! Reading derivations in process: the same text format in every version of Nix, unlike what its commands print.

use std::collections::BTreeMap;

use crate::untrusted::line;

/// How deep texts, lists and tuples may lie in each other.
const MAX_DEPTH: usize = 8;

/// What of a derivation matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Derivation {
    /// Whether what it makes is known by hash: then it may use the network.
    pub(super) is_fixed: bool,
    env: BTreeMap<String, String>,
}

/// A term of the format.
#[derive(Debug, PartialEq, Eq)]
enum Term {
    Text(String),
    Many(Vec<Self>),
}

impl Derivation {
    /// Reads the text of a `.drv` file; `None`: it is none.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader {
            rest: text.strip_prefix(b"Derive")?,
        };
        let Term::Many(fields) = reader.term(0)? else {
            return None;
        };
        let [Term::Many(outputs), _, _, _, _, _, Term::Many(env)] = fields.as_slice() else {
            return None;
        };
        // (name, path, hash algorithm, hash)
        let is_fixed = outputs.iter().any(|output| {
            matches!(output, Term::Many(parts)
                if matches!(parts.as_slice(), [_, _, Term::Text(algorithm), Term::Text(hash)]
                    if !algorithm.is_empty() && !hash.is_empty()))
        });
        let env = env.iter().filter_map(|pair| match pair {
            Term::Many(pair) => match pair.as_slice() {
                [Term::Text(name), Term::Text(value)] => Some((name.clone(), value.clone())),
                _ => None,
            },
            Term::Text(_) => None,
        });
        Some(Self {
            is_fixed,
            env: env.collect(),
        })
    }

    /// The hosts it names, as far as it says; each tame and short. Empty: it does not say.
    pub(super) fn hosts(&self) -> Vec<String> {
        let structured = self
            .env
            .get("__json")
            .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let mut words: Vec<String> = Vec::new();
        for name in ["url", "urls"] {
            if let Some(text) = self.env.get(name) {
                words.extend(text.split_whitespace().map(str::to_owned));
            }
            match structured.as_ref().and_then(|json| json.get(name)) {
                Some(serde_json::Value::String(url)) => words.push(url.clone()),
                Some(serde_json::Value::Array(urls)) => {
                    words.extend(urls.iter().filter_map(|url| url.as_str().map(str::to_owned)));
                }
                _ => {}
            }
        }
        let mut hosts: Vec<_> = words.iter().filter_map(|url| host(url)).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// The host of an address, in lower case.
fn host(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if scheme == "mirror" {
        return Some(format!("mirror:{}", line(rest.split('/').next()?, 60)));
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.split(']').next()?,
        None => host.split(':').next()?,
    };
    (!host.is_empty()).then(|| line(host, 100).to_ascii_lowercase())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn term(&mut self, depth: usize) -> Option<Term> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.take()? {
            b'"' => self.text().map(Term::Text),
            b'[' => self.many(b']', depth),
            b'(' => self.many(b')', depth),
            _ => None,
        }
    }

    fn many(&mut self, end: u8, depth: usize) -> Option<Term> {
        let mut terms = Vec::new();
        if self.rest.first() == Some(&end) {
            self.take();
            return Some(Term::Many(terms));
        }
        loop {
            terms.push(self.term(depth + 1)?);
            match self.take()? {
                b',' => {}
                byte if byte == end => return Some(Term::Many(terms)),
                _ => return None,
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            match self.take()? {
                b'"' => return Some(String::from_utf8_lossy(&bytes).into_owned()),
                b'\\' => bytes.push(match self.take()? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    byte => byte,
                }),
                byte => bytes.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(algorithm: &str, env: &str) -> String {
        format!(
            r#"Derive([("out","/nix/store/x","{algorithm}","{}")],[("/nix/store/a.drv",["out"])],["/nix/store/s"],"x86_64-linux","/bin/sh",["-c","echo \"a\" > $out\n"],[{env}])"#,
            if algorithm.is_empty() { "" } else { "00ff" }
        )
    }

    #[test]
    fn a_derivation_whose_hash_is_known_says_where_it_fetches() {
        let env = r#"("name","x"),("url","https://Example.org:8443/a?b=http://c/"),("urls","http://u:p@b.example/x mirror://gnu/x http://[::1]:8/ nonsense")"#;
        let derivation = Derivation::parse(text("r:sha256", env).as_bytes()).expect("a derivation");
        assert!(derivation.is_fixed);
        assert_eq!(
            derivation.hosts(),
            ["::1", "b.example", "example.org", "mirror:gnu"]
        );
    }

    #[test]
    fn structured_attributes_are_looked_into() {
        let env = r#"("__json","{\"urls\":[\"https://a.example/x\"],\"url\":\"https://b.example\"}")"#;
        let derivation = Derivation::parse(text("sha256", env).as_bytes()).expect("a derivation");
        assert_eq!(derivation.hosts(), ["a.example", "b.example"]);
    }

    #[test]
    fn an_ordinary_derivation_is_not_fixed() {
        let derivation = Derivation::parse(text("", r#"("url","https://a.example")"#).as_bytes());
        assert!(!derivation.expect("a derivation").is_fixed);
    }

    #[test]
    fn what_is_no_derivation_is_none() {
        let whole = text("", "");
        for length in 0..whole.len() {
            assert_eq!(Derivation::parse(&whole.as_bytes()[..length]), None, "{length}");
        }
        let deep = format!("Derive{}", "[".repeat(100_000));
        assert_eq!(Derivation::parse(deep.as_bytes()), None);
    }
}
