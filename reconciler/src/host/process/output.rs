//! The end of what an agent's harness, and what it started, wrote.
//!
//! The file lies in the launch folder, which the agent never sees; but the agent has it as its standard output, so all
//! of it is untrusted, its length too.

use std::io::{Read as _, Seek as _, SeekFrom};

use camino::Utf8Path;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::record::RunFiles;
use crate::host::{HostError, Output};

/// Reads at most the last `max` bytes of the log.
pub(super) fn read(files: &RunFiles, max: u64) -> Result<Output, HostError> {
    read_end(&files.log(), max)
}

/// Reads at most the last `max` bytes of a file; nothing when it is not there. Follows no link.
pub(in crate::host) fn read_end(path: &Utf8Path, max: u64) -> Result<Output, HostError> {
    let failed = || HostError::io("read", path.as_str());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::open(path.as_std_path(), flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(Output::default()),
        Err(errno) => return Err(failed()(errno.into())),
    };
    let length = file.metadata().map_err(failed())?.len();
    let begin = length.saturating_sub(max);
    file.seek(SeekFrom::Start(begin)).map_err(failed())?;
    let mut end = Vec::new();
    // It may grow, or be cut short, meanwhile.
    file.take(max).read_to_end(&mut end).map_err(failed())?;
    Ok(Output { end, cut: begin > 0 })
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;
    use crate::host::folders::write_atomic;

    #[test]
    fn the_end_of_a_log_is_read_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let files = RunFiles::new(folder.clone());
        assert_eq!(read(&files, 10).unwrap(), Output::default(), "nothing ran yet");
        write_atomic(&files.log(), b"one\ntwo\nthree\n", 0o600).unwrap();
        let whole = read(&files, 14).unwrap();
        assert_eq!(
            (whole.end.as_slice(), whole.cut),
            (&b"one\ntwo\nthree\n"[..], false)
        );
        let end = read(&files, 8).unwrap();
        assert_eq!((end.end.as_slice(), end.cut), (&b"o\nthree\n"[..], true));

        std::fs::remove_file(files.log()).unwrap();
        write_atomic(&folder.join("secret"), b"secret", 0o600).unwrap();
        std::os::unix::fs::symlink(folder.join("secret"), files.log()).unwrap();
        assert!(read(&files, 10).is_err());
    }
}
