//! Faults of a spec, and the paths that name where they are.

use std::fmt;

/// The most faults listed for one part of a document (the document itself, or one agent).
const MAX_FAULTS: usize = 200;

/// One thing that is wrong in a spec.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// Where: `agents.alice.binds[0].source`; empty when the document as a whole is at fault.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// The line of the file, when the fault came from a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

impl Fault {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            line: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// A place in a document. It borrows from the walk that leads there, so that only faults cost an allocation.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    Top,
    Key(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl<'a> At<'a> {
    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }

    pub(super) fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }

    /// The name below `agents` that this place belongs to.
    pub(super) fn agent(&self) -> Option<&'a str> {
        match *self {
            At::Top => None,
            At::Key(At::Key(At::Top, "agents"), name) => Some(name),
            At::Key(parent, _) | At::Item(parent, _) => parent.agent(),
        }
    }

    fn write(&self, out: &mut String) {
        match *self {
            At::Top => {}
            At::Key(parent, key) => {
                parent.write(out);
                push_key(out, key);
            }
            At::Item(parent, index) => {
                parent.write(out);
                push_index(out, index);
            }
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

/// Appends a key; one that could be mistaken for something else is quoted and shortened.
pub(super) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !key.is_empty() && key.len() <= 64 && key.bytes().all(plain) {
        path.push_str(key);
    } else {
        path.push_str(&quoted(key, 64));
    }
}

/// Appends an index.
pub(super) fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

/// `text` in quotes, escaped, at most `max` characters of it.
pub(super) fn quoted(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// Whether `path` is `ancestor` or lies below it.
fn is_within(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor)
        .is_some_and(|rest| ancestor.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Collects the faults of one part of a document.
///
/// A faulty value is replaced by a stand-in so that the search can go on. What a stand-in would cause is not a fault
/// of the document, so nothing is reported at, above or below a place that was patched.
#[derive(Default)]
pub(super) struct Findings {
    faults: Vec<Fault>,
    patched: Vec<String>,
    dropped: usize,
}

impl Findings {
    /// Records a fault whose value is left as it is.
    pub(super) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault::new(path, message));
        } else {
            self.dropped += 1;
        }
    }

    /// Records a fault whose value is removed or replaced by the caller.
    pub(super) fn add_patched(&mut self, path: String, message: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.patched.push(path.clone());
        }
        self.add(path, message);
    }

    /// Records what a value means, unless that value is a stand-in.
    pub(super) fn judge(&mut self, path: String, message: impl Into<String>) {
        if !self.is_patched(&path) {
            self.add(path, message);
        }
    }

    /// Whether the value there, or one around or below it, is a stand-in. True once the list is full: then not
    /// every stand-in is known.
    pub(super) fn is_patched(&self, path: &str) -> bool {
        self.dropped > 0
            || self
                .patched
                .iter()
                .any(|patched| is_within(path, patched) || is_within(patched, path))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults, the last of which says when there are more.
    pub(super) fn into_faults(self, at: &At<'_>) -> Vec<Fault> {
        let mut faults = self.faults;
        if self.dropped > 0 {
            faults.push(Fault::new(
                at.to_string(),
                format!("… and {} more faults: mend these first", self.dropped),
            ));
        }
        faults
    }
}
