//! Where the store is, and paths in it.

use std::fmt;

use camino::{Utf8Path, Utf8PathBuf};

use crate::host::HostError;
use crate::untrusted::line;

/// Characters of the hash in a store path's name.
const HASH: usize = 32;
/// The longest name after the hash, as Nix allows it.
const MAX_NAME: usize = 211;

/// A store: the machine's own, or one of its own for tests and for people without root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The folder of all store paths.
    pub dir: Utf8PathBuf,
    /// Nix's state, database and garbage collector roots.
    pub state: Utf8PathBuf,
    /// Logs of builds.
    pub log: Utf8PathBuf,
    /// The folder of `nix.conf`; absent: where Nix looks by itself.
    pub conf: Option<Utf8PathBuf>,
    /// The socket of the Nix daemon; without, this process's user owns the store.
    pub socket: Option<Utf8PathBuf>,
}

impl Store {
    /// The machine's own store, by way of its daemon when it has one.
    pub fn of_machine() -> Self {
        let state = Utf8PathBuf::from("/nix/var/nix");
        let socket = state.join("daemon-socket/socket");
        Self {
            dir: "/nix/store".into(),
            log: "/nix/var/log/nix".into(),
            conf: None,
            socket: socket.exists().then_some(socket),
            state,
        }
    }

    /// A store below `folder` that belongs to this process's user.
    pub fn below(folder: &Utf8Path) -> Self {
        Self {
            dir: folder.join("store"),
            state: folder.join("var"),
            log: folder.join("log"),
            conf: Some(folder.join("conf")),
            socket: None,
        }
    }

    /// What tells Nix about it.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let remote = match &self.socket {
            Some(socket) => format!("unix://{socket}"),
            None => "local".to_owned(),
        };
        let mut variables = vec![
            ("NIX_STORE_DIR", self.dir.to_string()),
            ("NIX_STATE_DIR", self.state.to_string()),
            ("NIX_LOG_DIR", self.log.to_string()),
            ("NIX_REMOTE", remote),
            // Settings of whoever started us are not ours.
            ("NIX_USER_CONF_FILES", String::new()),
        ];
        if let Some(conf) = &self.conf {
            variables.push(("NIX_CONF_DIR", conf.to_string()));
        }
        variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Reads a path in the store, or in one of its paths.
    pub(super) fn path(&self, text: &str) -> Result<StorePath, HostError> {
        let inside = text
            .strip_prefix(self.dir.as_str())
            .and_then(|rest| rest.strip_prefix('/'));
        let parsed = inside.and_then(|inside| {
            let (base, below) = inside.split_once('/').unwrap_or((inside, ""));
            (is_base(base) && is_below(below)).then(|| StorePath {
                root: self.dir.join(base),
                below: below.to_owned(),
            })
        });
        parsed.ok_or_else(|| {
            HostError::refused(
                line(text, 200),
                format!("this is no path in the store {}", self.dir),
            )
        })
    }
}

/// A path in the store, made of characters that need no quoting anywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorePath {
    root: Utf8PathBuf,
    below: String,
}

impl StorePath {
    /// The store path itself.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// What lies below it is meant; empty: all of it.
    pub(super) fn below(&self) -> &str {
        &self.below
    }

    /// Whether it is a derivation.
    pub(super) fn is_derivation(&self) -> bool {
        self.below.is_empty() && self.root.extension() == Some("drv")
    }

    /// The name without the hash.
    pub(super) fn name(&self) -> &str {
        let base = self.root.file_name().unwrap_or_default();
        base.get(HASH + 1..).unwrap_or_default()
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.below.is_empty() {
            write!(f, "{}", self.root)
        } else {
            write!(f, "{}/{}", self.root, self.below)
        }
    }
}

fn is_base(base: &str) -> bool {
    let Some((hash, rest)) = base.split_at_checked(HASH) else {
        return false;
    };
    let Some(name) = rest.strip_prefix('-') else {
        return false;
    };
    hash.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(is_plain)
}

fn is_below(below: &str) -> bool {
    below.is_empty()
        || below
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && part.chars().all(is_plain))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-._?=".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHED: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    fn store() -> Store {
        Store::below(Utf8Path::new("/tmp/s"))
    }

    #[test]
    fn a_path_is_taken_apart() {
        let text = format!("/tmp/s/store/{HASHED}-source/modules/guest.nix");
        let path = store().path(&text).expect("a store path");
        assert_eq!(path.root(), format!("/tmp/s/store/{HASHED}-source"));
        assert_eq!((path.name(), path.below()), ("source", "modules/guest.nix"));
        assert_eq!(path.to_string(), text);
        assert!(!path.is_derivation());
    }

    #[test]
    fn what_is_not_in_the_store_or_would_need_quoting_is_refused() {
        for inside in [
            String::new(),
            "..".to_owned(),
            HASHED.to_owned(),
            format!("{HASHED}-"),
            format!("{HASHED}-a\"b"),
            format!("{HASHED}-a${{b}}"),
            format!("{HASHED}-a b"),
            format!("{HASHED}-a\nb"),
            format!("{HASHED}-source/../../etc"),
            format!("{HASHED}-source//x"),
            format!("{HASHED}-source/a;b"),
            format!("{}-x", "Z".repeat(HASH)),
            format!("é{HASHED}-x"),
        ] {
            let text = format!("/tmp/s/store/{inside}");
            let error = store().path(&text).expect_err(&text);
            assert!(error.is_terminal());
        }
        assert!(store().path(&format!("/nix/store/{HASHED}-source")).is_err());
        assert!(store().path("/etc/passwd").is_err());
    }
}
