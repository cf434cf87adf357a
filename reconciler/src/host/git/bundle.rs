//! The header of a git bundle.
//!
//! It is read here, not by git, so that git sees nothing but the pack: no names, no capabilities, no lines without
//! end.

use std::io::{self, BufRead, Read as _};

use gix::ObjectId;

/// The most commits a bundle may build on.
const MAX_PREREQUISITES: usize = 1024;
/// The longest line of a header; git writes the title of each prerequisite into it.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// The most capability lines.
const MAX_CAPABILITIES: usize = 8;
/// The longest name of a ref.
const MAX_REF_BYTES: usize = 255;

/// What a bundle says about its pack.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// Commits that the receiver must have.
    pub prerequisites: Vec<ObjectId>,
    /// The one commit that it offers.
    pub commit: ObjectId,
    /// Where the pack starts.
    pub length: u64,
}

/// Why a bundle's header is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The disk's fault, not the bundle's.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It does not begin as one does.
    #[error("it is not a git bundle: make it with `git bundle create FILE main`")]
    NotABundle,
    /// It ends early, or a line makes no sense.
    #[error("its header is cut off or malformed: make it anew with `git bundle create FILE main`")]
    Malformed,
    /// A line is too long.
    #[error("its header has a line of more than {MAX_LINE_BYTES} bytes")]
    LongLine,
    /// It needs something that plain bundles do not.
    #[error("it needs {0:?}, which is not accepted: make a plain bundle of a SHA-1 repository")]
    Capability(String),
    /// There are too many commits to look for.
    #[error("it builds on more than {MAX_PREREQUISITES} commits")]
    TooManyPrerequisites,
    /// It offers nothing.
    #[error("it has no ref: make it with `git bundle create FILE main`")]
    NoRef,
    /// It offers more than one thing.
    #[error("it has more than one ref: offer one branch, as in `git bundle create FILE main`")]
    TwoRefs,
    /// It offers something else than a branch.
    #[error(
        "its ref {0:?} is neither HEAD nor a branch: offer one branch, as in `git bundle create FILE main`"
    )]
    NotABranch(String),
}

/// Reads the header and leaves the reader somewhere behind it.
///
/// # Errors
/// When it is not the header of a plain bundle with exactly one branch, or is longer than any such header need be.
pub fn read_header(mut reader: impl BufRead) -> Result<Header, HeaderError> {
    let mut length = 0;
    let mut line = Vec::new();
    let mut next = |line: &mut Vec<u8>| -> Result<(), HeaderError> {
        line.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        length += (&mut reader).take(limit).read_until(b'\n', line)? as u64;
        match line.pop() {
            Some(b'\n') => Ok(()),
            Some(_) if line.len() >= MAX_LINE_BYTES => Err(HeaderError::LongLine),
            _ => Err(HeaderError::Malformed),
        }
    };

    match next(&mut line) {
        Ok(()) => {}
        Err(HeaderError::Read(error)) => return Err(error.into()),
        Err(_) => return Err(HeaderError::NotABundle),
    }
    let capabilities = match line.as_slice() {
        b"# v2 git bundle" => false,
        b"# v3 git bundle" => true,
        _ => return Err(HeaderError::NotABundle),
    };

    let mut seen_capabilities = 0;
    let mut prerequisites = Vec::new();
    let mut commit = None;
    loop {
        next(&mut line)?;
        match line.as_slice() {
            [] => break,
            [b'@', capability @ ..] if capabilities && prerequisites.is_empty() && commit.is_none() => {
                seen_capabilities += 1;
                if capability != b"object-format=sha1" || seen_capabilities > MAX_CAPABILITIES {
                    return Err(HeaderError::Capability(shown(capability)));
                }
            }
            [b'-', rest @ ..] if commit.is_none() => {
                if prerequisites.len() == MAX_PREREQUISITES {
                    return Err(HeaderError::TooManyPrerequisites);
                }
                let (id, rest) = split_id(rest)?;
                if !matches!(rest, [] | [b' ', ..]) {
                    return Err(HeaderError::Malformed);
                }
                prerequisites.push(id);
            }
            rest => {
                let (id, rest) = split_id(rest)?;
                let [b' ', name @ ..] = rest else {
                    return Err(HeaderError::Malformed);
                };
                if commit.replace(id).is_some() {
                    return Err(HeaderError::TwoRefs);
                }
                if !is_branch(name) {
                    return Err(HeaderError::NotABranch(shown(name)));
                }
            }
        }
    }
    let commit = commit.ok_or(HeaderError::NoRef)?;
    Ok(Header {
        prerequisites,
        commit,
        length,
    })
}

fn split_id(line: &[u8]) -> Result<(ObjectId, &[u8]), HeaderError> {
    let (hex, rest) = line.split_at_checked(40).ok_or(HeaderError::Malformed)?;
    let id = ObjectId::from_hex(hex).map_err(|_| HeaderError::Malformed)?;
    Ok((id, rest))
}

fn is_branch(name: &[u8]) -> bool {
    name == b"HEAD"
        || (name.starts_with(b"refs/heads/")
            && name.len() <= MAX_REF_BYTES
            && gix::validate::reference::name(name.into()).is_ok())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef01234567";

    fn read(text: &str) -> Result<Header, HeaderError> {
        read_header(text.as_bytes())
    }

    #[test]
    fn a_header_with_one_branch_is_accepted() {
        let text = format!("# v2 git bundle\n-{A} seed\n-{A}\n{A} refs/heads/main\n\n");
        let header = read(&format!("{text}PACK")).expect("a good header");
        assert_eq!(header.commit.to_string(), A);
        assert_eq!(header.prerequisites.len(), 2);
        assert_eq!(header.length, text.len() as u64);
        assert!(read(&format!("# v3 git bundle\n@object-format=sha1\n{A} HEAD\n\n")).is_ok());
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        for text in [
            "",
            "PACK",
            "# v9 git bundle\n",
            &"x".repeat(1 << 20),
            "# v2 git bundle",
        ] {
            assert!(
                matches!(read(text), Err(HeaderError::NotABundle)),
                "{:?}",
                read(text)
            );
        }
    }

    #[test]
    fn a_header_that_ends_early_is_refused() {
        let whole = format!("# v2 git bundle\n-{A} seed\n{A} refs/heads/main\n\n");
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "accepted after {end} bytes");
        }
        assert!(read(&whole).is_ok());
    }

    #[test]
    fn a_header_without_end_is_refused_after_a_bounded_part() {
        let line = format!("-{A} x\n");
        let endless = io::BufReader::new(io::Cursor::new(b"# v2 git bundle\n"))
            .chain(io::BufReader::new(Endless(line.into_bytes(), 0)));
        assert!(matches!(
            read_header(endless),
            Err(HeaderError::TooManyPrerequisites)
        ));
        let long = io::BufReader::new(io::Cursor::new(b"# v2 git bundle\n"))
            .chain(io::BufReader::new(io::repeat(b'-')));
        assert!(matches!(read_header(long), Err(HeaderError::LongLine)));
    }

    #[test]
    fn filters_and_other_object_formats_are_refused() {
        for capability in ["filter=blob:none", "object-format=sha256", "x"] {
            let text = format!("# v3 git bundle\n@{capability}\n{A} HEAD\n\n");
            assert!(
                matches!(read(&text), Err(HeaderError::Capability(_))),
                "{capability}"
            );
        }
        assert!(matches!(
            read(&format!("# v2 git bundle\n@object-format=sha1\n{A} HEAD\n\n")),
            Err(HeaderError::Malformed)
        ));
    }

    #[test]
    fn anything_but_exactly_one_branch_is_refused() {
        assert!(matches!(read("# v2 git bundle\n\n"), Err(HeaderError::NoRef)));
        let two = format!("# v2 git bundle\n{A} refs/heads/main\n{A} HEAD\n\n");
        assert!(matches!(read(&two), Err(HeaderError::TwoRefs)));
        for name in [
            "refs/tags/deployed/1",
            "refs/hive/commits/x",
            "refs/heads/../../x",
            "refs/heads/",
            "refs/heads/a b",
            "refs/heads/a.lock",
            "main",
            "",
            &format!("refs/heads/{}", "x".repeat(300)),
        ] {
            let text = format!("# v2 git bundle\n{A} {name}\n\n");
            assert!(matches!(read(&text), Err(HeaderError::NotABranch(_))), "{name:?}");
        }
    }

    /// Repeats a line for ever.
    struct Endless(Vec<u8>, usize);

    impl io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            for slot in &mut *buffer {
                *slot = self.0[self.1 % self.0.len()];
                self.1 += 1;
            }
            Ok(buffer.len())
        }
    }
}
