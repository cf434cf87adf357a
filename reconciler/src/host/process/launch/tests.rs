use shared::canonical::{Encoding, digest};

use super::*;

fn alice() -> AgentName {
    "alice".parse().expect("a name")
}

fn launch_folder() -> (tempfile::TempDir, RunFiles) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("UTF-8");
    (folder, RunFiles::new(path))
}

/// The record of a run whose process is this one, begun at this time.
fn record(files: &RunFiles, start_time: u64) {
    let run = RunRecord {
        run: "the last".to_owned(),
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        start_time,
        boot_id: proc::boot_id().expect("a boot id"),
        toplevel: digest(Encoding::Toplevel, "x").expect("a digest"),
        since: SystemClock.now(),
        sandboxed: false,
    };
    let bytes = serde_json::to_vec(&run).expect("JSON");
    write_atomic(&files.record(), &bytes, 0o600).expect("written");
}

fn own_start_time() -> u64 {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    Stat::read(pid).expect("read").expect("this process").start_time
}

#[test]
fn a_launcher_gives_up_while_the_last_run_lives() {
    let (_folder, files) = launch_folder();
    record(&files, own_start_time());
    // Nobody holds the lock: the harness has outlived its `bwrap`.
    let taken = take_lock(&files, &alice());
    assert!(matches!(taken, Err(LaunchError::Taken { .. })), "{taken:?}");

    // The same process id, but by now it is that of somebody else.
    record(&files, own_start_time() - 1);
    assert!(take_lock(&files, &alice()).is_ok());
}

#[test]
fn a_launcher_gives_up_while_another_holds_the_lock() {
    let (_folder, files) = launch_folder();
    let held = take_lock(&files, &alice()).expect("it is free");
    let taken = take_lock(&files, &alice());
    assert!(matches!(taken, Err(LaunchError::Taken { .. })), "{taken:?}");
    drop(held);
    assert!(take_lock(&files, &alice()).is_ok());
}
