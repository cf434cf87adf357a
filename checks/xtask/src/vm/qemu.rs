//! A virtual machine: a throw-away host with a kernel of its own, for what only version 2 of cgroups shows. It is emulated,
//! so some ten times slower than a nest: KVM is not asked for, because where it is offered it need not work.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process_group};

use super::image;
use super::qemu_image::{Machine, disk_of};
use crate::interrupt;
use crate::poll::{Look, eventually};

/// Scenarios that want the second version of cgroups are called this.
const NAMED: &str = "v2_";

/// One boot, with its scenario.
const LIMIT: Duration = Duration::from_secs(300);

/// The kernel's words: nothing that costs time and shows nothing.
const KERNEL: &str = "console=ttyS0 loglevel=4 mitigations=off nokaslr audit=0 cryptomgr.notests random.trust_cpu=on \
                      systemd.show_status=false systemd.unified_cgroup_hierarchy=1 panic=-1";

/// Whether a scenario needs the second version of cgroups.
pub(super) fn is_wanted_by(scenario: &str) -> bool {
    scenario.starts_with(NAMED)
}

/// Plays one scenario in a virtual machine of its own. What it wrote is in `out`; whether it passed.
pub(super) fn play(machine: &Machine, programs: &Utf8Path, scenario: &str, out: &Utf8Path) -> Result<bool> {
    image::remove(out)?;
    fs::create_dir_all(out).with_context(|| format!("making {out}"))?;
    let disk = programs_disk(programs, scenario, out)?;
    let console = File::create(out.join("qemu")).context("making the file of what QEMU says")?;
    let mut child = command(machine, &disk, out)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .context("starting QEMU")?;
    let ended = watch(&mut child, out);
    if ended.is_err() {
        end(&child);
    }
    child.wait().context("waiting for QEMU")?;
    fs::remove_file(&disk).with_context(|| format!("removing {disk}"))?;
    ended?;
    let log = fs::read(out.join("log")).context("reading what the scenario said")?;
    match verdict(&String::from_utf8_lossy(&log)) {
        Some(passed) => Ok(passed),
        None => {
            bail!("the virtual machine ended before its scenario did: see console, qemu and journal in {out}")
        }
    }
}

/// What the last line of a machine's log says, if it came so far.
fn verdict(log: &str) -> Option<bool> {
    let last = log.lines().last()?.trim_end();
    last.strip_prefix("verdict:").map(|word| word.trim() == "passed")
}

/// The second disk: the programs under test, and which scenario it is.
fn programs_disk(programs: &Utf8Path, scenario: &str, out: &Utf8Path) -> Result<Utf8PathBuf> {
    let tree = tempfile::tempdir().context("making a folder for the programs")?;
    let tree = Utf8Path::from_path(tree.path()).context("a temporary folder's name is UTF-8")?;
    for folder in ["store", "t"] {
        fs::create_dir(tree.join(folder)).with_context(|| format!("making {folder}"))?;
    }
    for (from, to) in [
        ("hive", "store/hive"),
        ("hive-harness", "store/hive-harness"),
        ("testbed", "testbed"),
    ] {
        fs::copy(programs.join(from), tree.join(to)).with_context(|| format!("copying {from}"))?;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock")?;
    for (name, text) in [
        ("scenario", scenario.to_owned()),
        ("boot", "1".to_owned()),
        ("now", now.as_secs().to_string()),
        // It is switched off by what started the scenario, when all that was said is out.
        ("hold", String::new()),
        ("slow", String::new()),
    ] {
        fs::write(tree.join("t").join(name), text).with_context(|| format!("writing {name}"))?;
    }
    let disk = out.join("programs.img");
    disk_of(tree, &disk, "400M")?;
    Ok(disk)
}

fn command(machine: &Machine, programs: &Utf8Path, out: &Utf8Path) -> Command {
    // `timeout` ends it also when we are killed.
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=5",
        &LIMIT.as_secs().to_string(),
        "qemu-system-x86_64",
    ]);
    command.args([
        "-accel",
        "tcg,thread=multi,tb-size=512",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "2048",
    ]);
    command.args([
        "-M",
        "pc",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-nic",
        "none",
    ]);
    command.args([
        "-kernel",
        machine.kernel.as_str(),
        "-initrd",
        machine.initrd.as_str(),
        "-append",
        KERNEL,
    ]);
    for (id, file, how) in [
        ("a", machine.disk.as_path(), "snapshot=on,cache=unsafe"),
        ("b", programs, "readonly=on"),
    ] {
        command.arg("-drive");
        command.arg(format!("file={file},format=raw,if=none,id={id},{how}"));
        command.args(["-device", &format!("virtio-blk-pci,drive={id}")]);
    }
    command.args(["-device", "virtio-serial-pci"]);
    for (id, name) in [("o", "log"), ("j", "journal")] {
        command.args(["-chardev", &format!("file,id={id},path={}", out.join(name))]);
        command.args(["-device", &format!("virtconsole,chardev={id}")]);
    }
    command
        .arg("-serial")
        .arg(format!("file:{}", out.join("console")));
    // Ctrl-C is for us: we end it.
    command.process_group(0);
    command
}

/// Ends QEMU and the `timeout` around it, which make a group of their own.
fn end(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // One that has gone meanwhile is no error.
        kill_process_group(group, Signal::KILL).unwrap_or_default();
    }
}

fn watch(child: &mut Child, out: &Utf8Path) -> Result<()> {
    eventually(
        LIMIT + Duration::from_secs(10),
        "the virtual machine is done",
        || {
            interrupt::check()?;
            Ok(match child.try_wait().context("waiting for QEMU")? {
                Some(_) => Look::Done(()),
                None => Look::NotYet(format!("it ran; see {out}/console")),
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_last_line_and_no_other() {
        assert_eq!(verdict("a\r\nverdict: passed\r\n"), Some(true));
        assert_eq!(verdict("a\nverdict: failed\n"), Some(false));
        assert_eq!(verdict("verdict: \n"), Some(false));
        assert_eq!(verdict("verdict: passed\nand on\n"), None);
        assert_eq!(verdict(""), None);
    }
}
