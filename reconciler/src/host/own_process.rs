//! What the daemon's own process uses, as the kernel counts it.

use std::fs;
use std::io;

use async_trait::async_trait;

use super::{HostError, OwnProcess, Usage};

/// Reads `/proc/self`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcSelf;

#[async_trait]
impl OwnProcess for ProcSelf {
    async fn usage(&self) -> Result<Usage, HostError> {
        let read = tokio::task::spawn_blocking(usage).await;
        read.map_err(|ended| HostError::failed("/proc/self", ended.to_string()))?
            .map_err(HostError::io("read", "/proc/self"))
    }
}

fn usage() -> io::Result<Usage> {
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| {
        let kib = line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()
    });
    let resident =
        resident.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no line VmRSS in kB"))?;
    // One of them is this look at the folder.
    let open_files = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Ok(Usage {
        resident_bytes: resident * 1024,
        open_files: u64::try_from(open_files).unwrap_or(u64::MAX),
        max_files: limit.current,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_opened_and_memory_that_is_used_are_counted() {
        let before = ProcSelf.usage().await.expect("usage");
        assert!(before.resident_bytes > 64 * 1024, "{before:?}");
        let files: Vec<_> = (0..64)
            .map(|_| fs::File::open("/dev/null").expect("a file"))
            .collect();
        let after = ProcSelf.usage().await.expect("usage");
        // Other tests open and close theirs meanwhile.
        assert!(after.open_files >= 64, "{after:?} with {} files", files.len());
        assert!(
            after.max_files.is_none_or(|most| most >= after.open_files),
            "{after:?}"
        );
    }
}
