//! The agent's secrets: files that the daemon hands over when the agent is started.
//!
//! They are read when they are used, and kept nowhere: a turn's program gets them in its environment, a probed server in a
//! header. What is told of either goes through [`Variables::without`], because a program may well print what it was given.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;

use camino::Utf8PathBuf;
use reqwest::header::{HeaderName, HeaderValue};
use shared::config::AgentConfig;
use shared::secret::{MAX_SECRET, SecretValue};
use shared::spec::McpServerSpec;

/// Shorter ones are not looked for in texts: they would be found everywhere.
const SHORTEST_TOLD_APART: usize = 4;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The agent does not have it.
    #[error(
        "the agent was started without the secret {name}: the operator declares it as `secrets.{name}` in the spec, and the \
         agent has it after its next restart"
    )]
    Missing {
        /// Its name.
        name: String,
    },
    /// It is there and cannot be read.
    #[error("cannot read the secret {name}")]
    Io {
        /// Its name.
        name: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// It does not fit where it is wanted.
    #[error(
        "the secret {name} cannot be the value of {what}: it holds {fault}; correct its file and restart the agent"
    )]
    Unfit {
        /// Its name.
        name: String,
        /// Of what.
        what: String,
        /// What is wrong with it; none of its content.
        fault: &'static str,
    },
    /// A secret is to go where none can.
    #[error("{header:?} cannot name an HTTP header: correct `secretHeaders`")]
    NoHeader {
        /// The name.
        header: String,
    },
}

/// Where the agent's secrets are.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    folder: Option<Utf8PathBuf>,
}

/// Variables whose values are secrets. It cannot be printed.
#[derive(Default)]
pub struct Variables(BTreeMap<String, SecretValue>);

impl Variables {
    /// As the environment of a program.
    pub fn environment(&self) -> impl Iterator<Item = (String, OsString)> {
        let variables = self.0.iter();
        variables.map(|(name, value)| (name.clone(), OsString::from_vec(value.line().to_vec())))
    }

    /// The text without any of them.
    pub fn without(&self, text: &str) -> String {
        without(text, self.0.values())
    }
}

impl Secrets {
    /// Those in this folder, a file for each; without a folder there are none.
    pub fn new(folder: Option<Utf8PathBuf>) -> Self {
        Self { folder }
    }

    /// One secret. Blocks.
    ///
    /// # Errors
    /// When the agent does not have it, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<SecretValue, SecretError> {
        let missing = || SecretError::Missing {
            name: crate::tame(name, 64),
        };
        // Headers of MCP servers are the agent's to propose, the names of secrets in them too.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(missing());
        }
        let folder = self.folder.as_ref().ok_or_else(missing)?;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(folder.join(name))
            .and_then(|file| file.take(MAX_SECRET).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(SecretValue::new(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
            Err(source) => Err(SecretError::Io {
                name: name.to_owned(),
                source,
            }),
        }
    }

    /// What `secretEnv` asks for: the variables of the agent's program, and of the MCP servers that are programs. Blocks.
    ///
    /// # Errors
    /// When one of the secrets is not there or cannot be in an environment.
    pub fn variables(&self, config: &AgentConfig) -> Result<Variables, SecretError> {
        let mut variables = Variables::default();
        for (variable, name) in &config.secret_env {
            let value = self.read(name)?;
            if value.bytes().contains(&0) {
                return Err(SecretError::Unfit {
                    name: name.clone(),
                    what: format!("the variable {variable}"),
                    fault: "a NUL character",
                });
            }
            variables.0.insert(variable.clone(), value);
        }
        Ok(variables)
    }

    /// The same, and a variable for each secret that is a header, for a program that puts variables into headers itself
    /// (see [`header_variable`]). A header's secret that is not there is left out: its server is the one that does not
    /// work then, and says so. Blocks.
    ///
    /// # Errors
    /// As for [`Secrets::variables`].
    pub fn variables_and_headers(&self, config: &AgentConfig) -> Result<Variables, SecretError> {
        let mut variables = self.variables(config)?;
        for (server, spec) in &config.mcp_servers {
            for (header, name) in &spec.secret_headers {
                match self.header(header, name) {
                    Ok((_, secret)) => drop(variables.0.insert(header_variable(name), secret)),
                    Err(error) => {
                        let error = crate::error_chain(&error);
                        tracing::warn!(%server, error, "an MCP server has to do without a header");
                    }
                }
            }
        }
        Ok(variables)
    }

    /// The headers of a server whose values are secrets, and what must not be told of them. Blocks.
    ///
    /// # Errors
    /// When one of the secrets is not there or cannot be a header.
    pub fn headers(
        &self,
        server: &McpServerSpec,
    ) -> Result<(HashMap<HeaderName, HeaderValue>, Variables), SecretError> {
        let (mut headers, mut secrets) = (HashMap::new(), Variables::default());
        for (header, name) in &server.secret_headers {
            let ((header, value), secret) = self.header(header, name)?;
            headers.insert(header, value);
            secrets.0.insert(name.clone(), secret);
        }
        Ok((headers, secrets))
    }

    fn header(
        &self,
        header: &str,
        name: &str,
    ) -> Result<((HeaderName, HeaderValue), SecretValue), SecretError> {
        let no_header = |_| SecretError::NoHeader {
            header: crate::tame(header, 64),
        };
        let named = HeaderName::try_from(header).map_err(no_header)?;
        let secret = self.read(name)?;
        let mut value = HeaderValue::from_bytes(secret.line()).map_err(|_| SecretError::Unfit {
            name: name.to_owned(),
            what: format!("the header {named}"),
            fault: "a control character, such as a second line",
        })?;
        value.set_sensitive(true);
        Ok(((named, value), secret))
    }

    /// Why the agent's program cannot have what its config says it has. Blocks.
    pub fn unusable(&self, config: &AgentConfig) -> Option<String> {
        self.variables(config)
            .err()
            .map(|error| crate::error_chain(&error))
    }
}

/// The variable that holds the secret of this name for the headers of MCP servers: other names have other variables.
pub fn header_variable(name: &str) -> String {
    let mut variable = "HIVE_SECRET_".to_owned();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            variable.push(c);
        } else {
            variable.push_str(&format!("_{:x}_", u32::from(c)));
        }
    }
    variable
}

/// The text without these secrets.
fn without<'a>(text: &str, secrets: impl Iterator<Item = &'a SecretValue>) -> String {
    let mut text = text.to_owned();
    for secret in secrets.filter(|secret| secret.line().len() >= SHORTEST_TOLD_APART) {
        if let Ok(secret) = std::str::from_utf8(secret.line()) {
            text = text.replace(secret, "[secret]");
        }
    }
    text
}

#[cfg(test)]
mod tests;
