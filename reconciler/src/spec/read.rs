//! Reads the spec's file: bounded, and never waiting for a writer.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::OFlags;

use super::MAX_BYTES;

/// Why a spec cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is there.
    #[error("there is no spec at {0}: deploy one there, or name another file with --spec")]
    Missing(Utf8PathBuf),
    /// The daemon's user may not read it.
    #[error(
        "the spec {0} cannot be read by this user: check the rights of the file and of the folders above it"
    )]
    Denied(Utf8PathBuf),
    /// Something else than a file is there.
    #[error("the spec {path} is {what}, not a regular file: put a JSON file there")]
    NotAFile {
        /// Where.
        path: Utf8PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file is larger than any spec.
    #[error("the spec {0} is larger than 16 MiB: it is hardly a spec; check what writes it")]
    TooLarge(Utf8PathBuf),
    /// Reading failed.
    #[error("the spec {path} cannot be read")]
    Io {
        /// Where.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The content of the file at `path`, to which links are followed. Blocks only as long as the disk does.
pub fn read(path: &Utf8Path) -> Result<Vec<u8>, ReadError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => ReadError::Missing(path.to_owned()),
        ErrorKind::PermissionDenied => ReadError::Denied(path.to_owned()),
        _ => ReadError::Io {
            path: path.to_owned(),
            source,
        },
    };
    // Before opening, because opening some devices does something; and again after it, because the name may have
    // moved on to something else by then.
    refuse_others(path, std::fs::metadata(path).map_err(failed)?.file_type())?;
    let file = open(path).map_err(failed)?;
    refuse_others(path, file.metadata().map_err(failed)?.file_type())?;
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= MAX_BYTES) {
        Ok(text)
    } else {
        Err(ReadError::TooLarge(path.to_owned()))
    }
}

fn open(path: &Utf8Path) -> io::Result<File> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn refuse_others(path: &Utf8Path, kind: FileType) -> Result<(), ReadError> {
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(ReadError::NotAFile {
        path: path.to_owned(),
        what,
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};

    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("UTF-8");
        (folder, path)
    }

    #[test]
    fn a_file_is_read_through_links() {
        let (_guard, dir) = folder();
        File::create(dir.join("real"))
            .and_then(|mut file| io::Write::write_all(&mut file, b"{}"))
            .expect("write");
        std::os::unix::fs::symlink("real", dir.join("link")).expect("link");
        assert_eq!(read(&dir.join("link")).expect("read"), b"{}");
    }

    #[test]
    fn a_missing_file_and_a_dangling_link_are_missing() {
        let (_guard, dir) = folder();
        std::os::unix::fs::symlink("nowhere", dir.join("link")).expect("link");
        for name in ["absent", "absent/below", "link"] {
            let error = read(&dir.join(name)).expect_err("read");
            assert!(matches!(error, ReadError::Missing(_)), "{name}: {error}");
        }
    }

    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer() {
        let (_guard, dir) = folder();
        mknodat(CWD, dir.join("pipe").as_std_path(), Kind::Fifo, Mode::RWXU, 0).expect("pipe");
        let error = read(&dir.join("pipe")).expect_err("read");
        assert!(
            matches!(error, ReadError::NotAFile { what: "a pipe", .. }),
            "{error}"
        );
        // Also when the name comes to mean the pipe only after the first look.
        let file = open(&dir.join("pipe")).expect("open");
        assert!(file.metadata().expect("metadata").file_type().is_fifo());
    }

    #[test]
    fn folders_and_devices_are_refused() {
        let (_guard, dir) = folder();
        for (path, kind) in [
            (dir.as_path(), "a folder"),
            (Utf8Path::new("/dev/null"), "a device"),
        ] {
            let error = read(path).expect_err("read");
            assert!(
                matches!(&error, ReadError::NotAFile { what, .. } if *what == kind),
                "{error}"
            );
        }
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let (_guard, dir) = folder();
        let file = File::create(dir.join("big")).expect("create");
        file.set_len(MAX_BYTES + 1).expect("grow");
        let error = read(&dir.join("big")).expect_err("read");
        assert!(matches!(error, ReadError::TooLarge(_)), "{error}");
        file.set_len(MAX_BYTES).expect("shrink");
        assert!(read(&dir.join("big")).is_ok());
    }
}
