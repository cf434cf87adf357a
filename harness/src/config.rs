//! Reads the config file that the daemon writes.

use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use shared::Digest;
use shared::canonical::{Encoding, digest_value};
use shared::config::{AgentConfig, ConfigFile};
use shared::spec::ScriptRule;

/// The largest config file that is read, in bytes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Why a config file is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{path} is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: Utf8PathBuf,
    },
    /// It is not JSON.
    #[error("{path} is not valid JSON")]
    NotJson {
        /// The file.
        path: Utf8PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// It is JSON, but not what is expected.
    #[error("{path}: bad value at {at} ({next})")]
    Malformed {
        /// The file.
        path: Utf8PathBuf,
        /// Where in the document.
        at: String,
        /// What to do.
        next: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Its digest is not that of its content.
    #[error(
        "{path} says its digest is {stated}, but its content has {actual}: it was changed by hand or cut short, and \
         the daemon writes it again"
    )]
    WrongDigest {
        /// The file.
        path: Utf8PathBuf,
        /// The digest in the file.
        stated: Digest,
        /// The digest of what is in the file.
        actual: Digest,
    },
}

/// Reads and checks `<folder>/agent.json`.
///
/// # Errors
/// When the file cannot be read, is not a config file, or its digest is not that of its content.
pub fn load(folder: &Utf8Path) -> Result<ConfigFile, LoadError> {
    let path = folder.join("agent.json");
    let bytes = read(&path, MAX_BYTES)?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|source| LoadError::NotJson {
        path: path.clone(),
        source,
    })?;
    // Of the document as written, so that fields added by a newer daemon are part of it.
    let actual = digest_value(
        Encoding::Config,
        json.get("config").unwrap_or(&serde_json::Value::Null),
    );
    let file: ConfigFile = parse(
        &path,
        json,
        "if the daemon is newer than this harness, restart the agent",
    )?;
    if file.digest != actual {
        return Err(LoadError::WrongDigest {
            path,
            stated: file.digest,
            actual,
        });
    }
    Ok(file)
}

/// Reads a list of rules for the `scripted` driver.
///
/// # Errors
/// When the file cannot be read or is not such a list.
pub fn load_script(path: &Utf8Path) -> Result<Vec<ScriptRule>, LoadError> {
    let bytes = read(path, MAX_BYTES)?;
    let json = serde_json::from_slice(&bytes).map_err(|source| LoadError::NotJson {
        path: path.to_owned(),
        source,
    })?;
    parse(path, json, "correct the script")
}

/// The rules in force: those of the file given on the command line, else those of the config.
pub fn script(config: &AgentConfig, overridden: Option<&[ScriptRule]>) -> Vec<ScriptRule> {
    overridden.unwrap_or(&config.driver.script).to_vec()
}

fn read(path: &Utf8Path, max: u64) -> Result<Vec<u8>, LoadError> {
    let io = |source| LoadError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(io)?
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > max {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(
    path: &Utf8Path,
    json: serde_json::Value,
    next: &'static str,
) -> Result<T, LoadError> {
    let mut track = serde_path_to_error::Track::new();
    T::deserialize(serde_path_to_error::Deserializer::new(json, &mut track)).map_err(|source| {
        LoadError::Malformed {
            path: path.to_owned(),
            at: crate::tame(&track.path().to_string(), 200),
            next,
            source,
        }
    })
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::canonical::digest;

    use super::*;

    fn config() -> serde_json::Value {
        testing::document(&json!({}))
    }

    fn loading(text: &str) -> Result<ConfigFile, LoadError> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = Utf8Path::from_path(dir.path()).expect("UTF-8 path");
        put(&folder.join("agent.json"), text);
        load(folder)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    fn put(path: &Utf8Path, text: &str) {
        std::fs::write(path, text).expect("write");
    }

    #[test]
    fn a_file_as_the_daemon_writes_it_is_loaded() {
        let config: AgentConfig = serde_json::from_value(config()).expect("config");
        let file = ConfigFile {
            digest: digest(Encoding::Config, &config).expect("digest"),
            config,
        };
        let text = serde_json::to_string_pretty(&file).expect("JSON");
        assert_eq!(loading(&text).expect("loads"), file);
    }

    #[test]
    fn a_field_of_a_newer_daemon_does_not_break_the_digest() {
        let mut config = config();
        config["fromTheFuture"] = json!({ "a": 1 });
        let digest = digest_value(Encoding::Config, &config);
        let text = json!({ "digest": digest, "config": config }).to_string();
        assert_eq!(loading(&text).expect("loads").digest, digest);
    }

    #[test]
    fn a_file_that_was_changed_by_hand_is_refused() {
        let digest = digest_value(Encoding::Config, &config());
        let mut config = config();
        config["prompt"] = json!("Obey.");
        let error = loading(&json!({ "digest": digest, "config": config }).to_string()).expect_err("refused");
        assert!(matches!(error, LoadError::WrongDigest { .. }), "{error:?}");
    }

    #[test]
    fn broken_files_are_refused_with_the_place_of_the_fault() {
        assert!(matches!(loading("{\"dig"), Err(LoadError::NotJson { .. })));
        let mut config = config();
        config["driver"] = json!({ "kind": "abacus" });
        let digest = digest_value(Encoding::Config, &config);
        let error = loading(&json!({ "digest": digest, "config": config }).to_string()).expect_err("refused");
        assert!(
            error
                .to_string()
                .ends_with("bad value at config.driver.kind (if the daemon is newer than this harness, restart the agent)"),
            "{error}"
        );
        let missing = load(Utf8Path::new("/nonexistent")).expect_err("refused");
        assert!(matches!(missing, LoadError::Io { .. }), "{missing:?}");
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read_whole() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = Utf8Path::from_path(dir.path()).expect("UTF-8 path").join("big");
        put(&path, "0123456789");
        assert!(matches!(read(&path, 9), Err(LoadError::TooLarge { .. })));
        assert_eq!(read(&path, 10).expect("fits").len(), 10);
    }
}
