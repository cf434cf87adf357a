//! The provider's key: read from its file at each use, so that a new one holds at once.

use std::fs::File;
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use hyper::header::HeaderValue;

/// The name of the credential that holds the key.
pub const CREDENTIAL: &str = "api-key";
/// The longest key, in bytes.
const MAX_KEY: u64 = 4096;

/// Where the key is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySource {
    /// The folder of credentials that systemd hands over; goes before the operator's file.
    pub credentials: Option<Utf8PathBuf>,
    /// The file that the spec names.
    pub file: Option<Utf8PathBuf>,
}

/// Why there is no key although there should be one. It names the file, and is for the operator alone.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the provider's key cannot be read from {path}")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no key: one line of at most {MAX_KEY} bytes without blanks is expected")]
    Form {
        /// The file.
        path: Utf8PathBuf,
    },
}

impl KeySource {
    /// The key; `None` when the operator gives none. Blocks.
    ///
    /// # Errors
    /// When it is named and cannot be had.
    pub fn read(&self) -> Result<Option<HeaderValue>, KeyError> {
        let credential = self.credentials.as_ref().map(|folder| folder.join(CREDENTIAL));
        let Some(path) = credential
            .filter(|path| path.is_file())
            .or_else(|| self.file.clone())
        else {
            return Ok(None);
        };
        let text = read(&path).map_err(|source| KeyError::Read {
            path: path.clone(),
            source,
        })?;
        let key = text.trim_ascii();
        let fits = !key.is_empty() && text.len() as u64 <= MAX_KEY && key.iter().all(u8::is_ascii_graphic);
        let value = HeaderValue::from_bytes(key).ok().filter(|_| fits);
        let mut value = value.ok_or(KeyError::Form { path })?;
        // It is left out wherever headers are printed.
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn read(path: &Utf8Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_KEY + 1).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::put;
    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("UTF-8");
        (folder, path)
    }

    #[test]
    fn a_changed_file_is_a_changed_key() {
        let (_folder, path) = folder();
        let source = KeySource {
            credentials: None,
            file: Some(path.join("key")),
        };
        for key in ["sk-one", "sk-two"] {
            put(path.join("key"), format!("{key}\n"));
            let read = source.read().expect("readable").expect("a key");
            assert_eq!(read, key);
            assert!(!format!("{read:?}").contains(key));
        }
    }

    #[test]
    fn what_systemd_hands_over_goes_before_the_file_of_the_spec() {
        let (_folder, path) = folder();
        put(path.join("key"), "sk-file");
        let source = KeySource {
            credentials: Some(path.clone()),
            file: Some(path.join("key")),
        };
        assert_eq!(source.read().expect("readable").expect("a key"), "sk-file");
        put(path.join(CREDENTIAL), "sk-credential");
        assert_eq!(source.read().expect("readable").expect("a key"), "sk-credential");
    }

    #[test]
    fn a_key_that_is_named_and_not_there_is_an_error_and_never_nothing() {
        let (_folder, path) = folder();
        let source = KeySource {
            credentials: None,
            file: Some(path.join("key")),
        };
        assert!(matches!(source.read(), Err(KeyError::Read { .. })));
        for bad in ["", "\n", "a b", "a\nb", "a\u{e4}", "a\0"] {
            put(path.join("key"), bad);
            assert!(matches!(source.read(), Err(KeyError::Form { .. })), "{bad:?}");
        }
        put(path.join("key"), "x".repeat(5000));
        assert!(matches!(source.read(), Err(KeyError::Form { .. })));
        assert!(KeySource::default().read().expect("none is named").is_none());
    }
}
