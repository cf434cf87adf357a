//! The value of a secret: bytes that are shown to nobody by mistake.

use std::fmt;

/// The longest secret, in bytes: what still fits into one variable of an environment.
pub const MAX_SECRET: u64 = 64 * 1024;

/// The variable that names the folder of an agent's secrets, one file for each, by name.
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// What a secret file holds. It has no form in which it could be written into a document, and tells nothing but its
/// length when it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// These bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// All of it, as the file has it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// It without the one line end that editors and `echo` put after it.
    pub fn line(&self) -> &[u8] {
        let line = self.0.strip_suffix(b"\n").unwrap_or(&self.0);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValue({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = SecretValue::new(b"hush".to_vec());
        let printed = format!("{secret:?} {secret:#?} {:?}", Some(&secret));
        assert!(!printed.contains("hush") && !printed.contains("104"), "{printed}");
    }

    #[test]
    fn one_line_end_is_no_part_of_a_secret_and_all_else_is() {
        for (file, line) in [
            ("key", "key"),
            ("key\n", "key"),
            ("key\r\n", "key"),
            ("key\n\n", "key\n"),
            (" key ", " key "),
            ("\n", ""),
        ] {
            let secret = SecretValue::new(file.as_bytes().to_vec());
            assert_eq!(secret.line(), line.as_bytes(), "{file:?}");
            assert_eq!(secret.bytes(), file.as_bytes());
        }
    }
}
