//! A nest: a throw-away host with a systemd of its own, in an outer `systemd-nspawn`.
//!
//! ```text
//! <nests>/<id>/lock          held as long as somebody looks after it
//! <nests>/<id>/upper, work   what it changes of the image
//! <nests>/<id>/root          where both are mounted, in a mount namespace that ends with the nest
//! <nests>/<id>/hyperhive     /var/lib/hyperhive         folders of the real file system, so that what is tried is
//! <nests>/<id>/roots         /var/lib/hyperhive-roots   not the overlay; like all of this they outlive a reboot
//! <nests>/<id>/nix           /nix                       of the nest
//! ```

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::cgroups::{Cgroups, Host};
use super::image::{self, Image};
use crate::poll::{Look, eventually};
use crate::{interrupt, toolchain};

/// What passes between outside and inside: which scenario, and what came of it.
pub(super) const SCENARIO_FOLDER: &str = "/t";

/// How `systemd-nspawn` says that its guest rebooted.
const REBOOTED: i32 = 133;

/// More reboots are a loop.
const MAX_BOOTS: u32 = 5;

/// Where the product is installed: a path of the store, as on NixOS, because agents see nothing else of the host. Such a
/// path is 32 characters of Nix's alphabet and a name.
const INSTALLED: &str = "/nix/store/00000000000000000000000000000000-hyperhive/bin";

/// The programs of this workspace that a nest runs, and where it has them.
const PROGRAMS: [(&str, &str); 3] = [
    ("hive", INSTALLED),
    ("hive-harness", INSTALLED),
    ("testbed", "/usr/local/bin"),
];

/// Where a nest has what its operator would: the stand-in for nixpkgs, the guest module.
const RECIPE: &str = "/usr/local/share/testbed";

/// Each nest of this process has a number.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// What nests of one run have in common.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    /// What they boot from.
    pub(crate) image: &'a Image,
    /// How cgroups are mounted on this machine.
    pub(crate) host: &'a Host,
    /// Where the programs of this workspace were built.
    pub(crate) programs: &'a Utf8Path,
    /// `checks/testbed`.
    pub(crate) recipe: &'a Utf8Path,
    /// The longest that one boot may take.
    pub(crate) limit: Duration,
    /// Leave each nest running when its scenario is over, until this process is interrupted.
    pub(crate) hold: bool,
}

/// A nest's folder and cgroups; both are gone when it is dropped.
#[derive(Debug)]
struct Nest<'a> {
    ground: &'a Ground<'a>,
    id: String,
    folder: Utf8PathBuf,
    cgroups: Cgroups,
    _lock: File,
}

/// Plays one scenario in a nest of its own. What it wrote is in `out`; whether it passed.
pub(crate) fn play(ground: &Ground<'_>, scenario: &str, out: &Utf8Path) -> Result<bool> {
    image::remove(out)?;
    fs::create_dir_all(out).with_context(|| format!("making {out}"))?;
    fs::write(out.join("scenario"), scenario).context("naming the scenario")?;
    if ground.hold {
        fs::write(out.join("hold"), "").context("asking the nest to stay")?;
    }
    let nest = Nest::new(ground)?;
    let outcome = nest.run(out);
    nest.save_journal(out);
    outcome
}

impl<'a> Nest<'a> {
    fn new(ground: &'a Ground<'a>) -> Result<Self> {
        let id = format!("hive-bed-{}-{}", id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = ground.image.nests.join(&id);
        fs::create_dir(&folder).with_context(|| format!("making {folder}"))?;
        let lock = File::create(folder.join("lock")).with_context(|| format!("making {folder}/lock"))?;
        lock.lock().with_context(|| format!("locking {folder}/lock"))?;
        let nest = Self {
            cgroups: cgroups(ground.host, &id),
            ground,
            id,
            folder,
            _lock: lock,
        };
        for name in ["upper", "work", "root", "hyperhive", "roots", "nix/store"] {
            let folder = nest.folder.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("making {folder}"))?;
        }
        Ok(nest)
    }

    fn run(&self, out: &Utf8Path) -> Result<bool> {
        let store = self.fill_store()?;
        for boot in 1..=MAX_BOOTS {
            fs::write(out.join("boot"), boot.to_string()).context("counting the boots")?;
            let console = File::options()
                .create(true)
                .append(true)
                .open(out.join("console"))
                .context("making the console's file")?;
            make(&self.cgroups, self.ground.host)?;
            let mut command = self.command(&store, out);
            command
                .stdin(Stdio::null())
                .stderr(console.try_clone()?)
                .stdout(console);
            let mut child = command.spawn().context("starting the nest")?;
            let status = self.watch(&mut child, out);
            if status.is_err() {
                child.kill().unwrap_or_default();
            }
            self.clear()?;
            child.wait().context("waiting for the nest")?;
            match status? {
                Some(0) => return Ok(true),
                Some(REBOOTED) => {}
                // The scenario has said why; a nest that did not come up has not.
                Some(_) if out.join("verdict").exists() => return Ok(false),
                other => bail!(
                    "the nest ended with {other:?} before its scenario did; its last words:\n{}",
                    last_lines(&out.join("console"), 10)
                ),
            }
        }
        bail!("the nest was rebooted {MAX_BOOTS} times")
    }

    /// Waits for the end; kills nothing.
    fn watch(&self, child: &mut Child, out: &Utf8Path) -> Result<Option<i32>> {
        let mut told = false;
        let limit = if self.ground.hold {
            Duration::MAX
        } else {
            self.ground.limit
        };
        let begin = Instant::now();
        eventually(limit.min(Duration::from_secs(86_400)), "the nest is done", || {
            interrupt::check()?;
            if let Some(status) = child.try_wait().context("waiting for the nest")? {
                return Ok(Look::Done(status.code()));
            }
            if self.ground.hold && !told && out.join("verdict").exists() {
                told = true;
                println!(
                    "{} after {:.1} s; it stays until Ctrl-C, enter it with:\n  nsenter -t {} -a",
                    self.id,
                    begin.elapsed().as_secs_f64(),
                    leader(child.id()).map_or_else(|| "LEADER".to_owned(), |pid| pid.to_string()),
                );
            }
            Ok(Look::NotYet(format!("it ran; see {out}/log and {out}/console")))
        })
    }

    /// A store of its own that holds the guest's system: what is small is copied, what is large is bound.
    /// Returns the arguments that bind it.
    fn fill_store(&self) -> Result<Vec<String>> {
        let from = &self.ground.image.nix;
        let to = self.folder.join("nix");
        let mut copied = vec![from.join("var")];
        let mut arguments = Vec::new();
        for entry in from
            .join("store")
            .read_dir_utf8()
            .context("listing the guest's store")?
        {
            let entry = entry?;
            if entry.file_name().ends_with("-tree") {
                arguments.push(format!(
                    "--bind-ro={}:/nix/store/{}",
                    entry.path(),
                    entry.file_name()
                ));
            } else {
                copied.push(entry.path().to_owned());
            }
        }
        for path in copied {
            let below = path.strip_prefix(from).unwrap_or(&path);
            let status = Command::new("cp")
                .args(["-a", "--reflink=auto", path.as_str(), to.join(below).as_str()])
                .status()
                .context("copying the guest's store")?;
            ensure!(
                status.success(),
                "copying {path} to {to} {}",
                toolchain::describe(status)
            );
        }
        Ok(arguments)
    }

    fn command(&self, store: &[String], out: &Utf8Path) -> Command {
        let ground = self.ground;
        let folder = &self.folder;
        let mut command = match ground.host {
            Host::V1(_) => Command::new("unshare"),
            Host::V2(_) if systemd_runs() => {
                let mut command = Command::new("systemd-run");
                command
                    .args(["--scope", "--quiet", "--collect", "--property=Delegate=yes"])
                    .arg(format!("--unit={}.scope", self.id))
                    .arg("unshare");
                command
            }
            Host::V2(_) => Command::new("unshare"),
        };
        command.args(["--mount", "--propagation=private", "sh"]);
        command.arg(ground.recipe.join("nest/enter"));
        command.args([&ground.image.root, folder]);
        if !matches!(ground.host, Host::V2(_)) || !systemd_runs() {
            command.args(self.cgroups.folders());
        }
        // No machined and no systemd outside has to know of it.
        command.args(["--", "systemd-nspawn", "--register=no", "--keep-unit", "--quiet"]);
        command.args(["--machine", &self.id, "--directory", folder.join("root").as_str()]);
        // What networks a scenario makes stay inside.
        command.arg("--private-network");
        command.arg(format!("--bind={out}:{SCENARIO_FOLDER}"));
        for (name, place) in [
            ("hyperhive", "/var/lib/hyperhive"),
            ("roots", "/var/lib/hyperhive-roots"),
            ("nix", "/nix"),
        ] {
            command.arg(format!("--bind={}:{place}", folder.join(name)));
        }
        command.args(store);
        command.arg(format!("--bind-ro={}:{RECIPE}", ground.recipe));
        for (name, place) in PROGRAMS {
            command.arg(format!("--bind-ro={}:{place}/{name}", ground.programs.join(name)));
        }
        command.arg("/usr/lib/testbed/init");
        if matches!(ground.host, Host::V2(_)) {
            command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        }
        // Ctrl-C is for us: we end it.
        command.process_group(0);
        command
    }

    fn save_journal(&self, out: &Utf8Path) {
        let Ok(file) = File::create(out.join("journal")) else {
            return;
        };
        // For whoever looks for a cause; a nest that never came up has none.
        let command = Command::new("journalctl")
            .args(["--quiet", "--no-pager", "--output=short-precise", "--directory"])
            .arg(self.folder.join("upper/var/log/journal"))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .status();
        drop(command);
    }

    fn clear(&self) -> Result<()> {
        clear(&self.cgroups)
    }
}

impl Drop for Nest<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.clear().and_then(|()| image::remove(&self.folder)) {
            println!(
                "warning: {} is not cleaned up, the next run tries again: {error:#}",
                self.id
            );
        }
    }
}

/// Removes what nests left behind whose keeper was killed.
pub(crate) fn sweep(image: &Image, host: &Host) -> Result<()> {
    for entry in image.nests.read_dir_utf8().context("looking for old nests")? {
        let entry = entry?;
        let folder = entry.path();
        // One without a lock was hardly begun, or by a process that is at it right now.
        let Ok(lock) = File::open(folder.join("lock")) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            println!("removing {}, left behind by an earlier run", entry.file_name());
            clear(&cgroups(host, entry.file_name()))?;
            image::remove(folder)?;
        }
    }
    Ok(())
}

fn cgroups(host: &Host, id: &str) -> Cgroups {
    match host {
        Host::V2(_) if systemd_runs() => {
            Cgroups::at(format!("/sys/fs/cgroup/system.slice/{id}.scope").into())
        }
        _ => Cgroups::named(host, id),
    }
}

fn make(cgroups: &Cgroups, host: &Host) -> Result<()> {
    match host {
        Host::V1(_) => cgroups.make(),
        // The scope is made by systemd.
        Host::V2(_) if systemd_runs() => Ok(()),
        Host::V2(_) => cgroups.make_delegated(),
    }
}

fn clear(cgroups: &Cgroups) -> Result<()> {
    eventually(
        Duration::from_secs(20),
        "all processes of the nest are gone",
        || {
            Ok(if cgroups.clear()? {
                Look::Done(())
            } else {
                Look::NotYet("some are still there".to_owned())
            })
        },
    )
}

fn systemd_runs() -> bool {
    Utf8Path::new("/run/systemd/system").is_dir()
}

/// The PID 1 of a nest is the only child of its `systemd-nspawn`.
fn leader(nspawn: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The end of a file, indented.
pub(super) fn last_lines(path: &Utf8Path, count: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(count)..];
    end.iter().map(|line| format!("  {line}\n")).collect()
}
