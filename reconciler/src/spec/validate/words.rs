//! Checks of single texts and numbers that many fields share.

use crate::egress::rule::HostRule;
use crate::spec::fault::{Findings, quoted};

/// The longest path the kernel takes.
const MAX_PATH: usize = 4095;

/// A name for people: 1 to 64 characters, none of them a control character.
pub(super) fn label(path: &str, text: &str, out: &mut Findings) {
    let length = text.chars().count();
    if !(1..=64).contains(&length) {
        out.judge(
            path.to_owned(),
            format!("expected 1 to 64 characters, found {length}"),
        );
    } else if text.chars().any(char::is_control) {
        out.judge(path.to_owned(), "contains a control character: remove it");
    }
}

/// A number in a range.
pub(super) fn range(path: &str, number: u32, min: u32, max: u32, out: &mut Findings) {
    if !(min..=max).contains(&number) {
        out.judge(
            path.to_owned(),
            format!("expected a number from {min} to {max}, found {number}"),
        );
    }
}

/// A path from the root in its plain form: then comparing its beginning is comparing folders.
pub(super) fn absolute_path(path: &str, text: &str, out: &mut Findings) {
    if let Some(message) = path_fault(text) {
        out.judge(path.to_owned(), message);
    }
}

/// What is wrong with an absolute path.
pub(super) fn path_fault(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Some(format!(
            "expected an absolute path, beginning with a slash, found {}",
            quoted(text, 40)
        ));
    };
    if text.len() > MAX_PATH {
        return Some(format!(
            "the path has {} bytes; at most {MAX_PATH} fit",
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Some("contains a control character: remove it".to_owned());
    }
    if rest.split('/').any(|part| part == "..") {
        return Some("contains `..`: write the path without it".to_owned());
    }
    if !rest.is_empty() && rest.split('/').any(|part| part.is_empty() || part == ".") {
        return Some("contains `//`, `/./` or a slash at the end: write the path without it".to_owned());
    }
    None
}

/// Whether the plain path `path` is `folder` or lies below it.
pub(super) fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| folder == "/" || rest.is_empty() || rest.starts_with('/'))
}

/// A file that holds a secret.
pub(super) fn secret_file(path: &str, file: &str, out: &mut Findings) {
    if let Some(message) = path_fault(file) {
        out.judge(path.to_owned(), message);
    } else if file == "/" || is_within(file, "/nix/store") {
        out.judge(
            path.to_owned(),
            "everybody can read the Nix store, and a folder is no file: name a file outside it, as a text, such as \
             \"/run/secrets/token\"",
        );
    }
}

/// A host that agents may reach, with or without a port.
pub(super) fn host(path: &str, host: &str, out: &mut Findings) {
    if let Err(error) = host.parse::<HostRule>() {
        out.judge(path.to_owned(), format!("{error}, found {}", quoted(host, 60)));
    }
}

/// An `http` or `https` address without a password in it.
pub(super) fn http_url(path: &str, url: &str, out: &mut Findings) {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .filter(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']) && !has_blank(rest));
    if rest.is_none() {
        out.judge(
            path.to_owned(),
            format!(
                "expected an address such as \"https://api.example.com\", found {}",
                quoted(url, 60)
            ),
        );
    } else if has_password(url) {
        out.judge(
            path.to_owned(),
            "contains a user or password, which would end up in logs: hand it over as a secret instead",
        );
    }
}

/// Whether an `http` address carries a user or password.
pub(super) fn has_password(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => scheme.starts_with("http") || user.contains(':'),
        None => false,
    }
}

/// Whether a text contains white space or control characters.
pub(super) fn has_blank(text: &str) -> bool {
    text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// A model in a driver's own words: nothing that could be taken for an option or for two words.
pub(crate) fn is_model(text: &str) -> bool {
    (1..=200).contains(&text.len()) && !text.starts_with('-') && !has_blank(text)
}

/// A letter, then letters, digits, dashes and underscores: 1 to 64 in all.
pub(super) fn is_identifier(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The name of an environment variable.
pub(super) fn is_variable(text: &str) -> bool {
    text.len() <= 256
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name of an HTTP header.
pub(super) fn is_header(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
