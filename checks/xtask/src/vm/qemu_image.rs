//! What virtual machines boot from: Debian's kernel, and a disk with the tree and the store that nests have.
//!
//! ```text
//! <cache>/hyperhive/testbed/machines/<digest>/vmlinux    the kernel, unpacked: unpacking it takes as long as booting it
//! <cache>/hyperhive/testbed/machines/<digest>/initrd     the modules that the disk needs
//! <cache>/hyperhive/testbed/machines/<digest>/disk.img   never written to
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::image::{self, Image, MIRROR, SUITE};
use crate::toolchain;

/// Changed when this file makes something else of the same recipe.
const RECIPE_VERSION: &str = "1";

/// Debian's name for the newest kernel without drivers of real hardware.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What those kernels are packed with, and what is inside.
const LZ4: &[u8] = b"\x02\x21\x4c\x18";
const ELF: &[u8] = b"\x7fELF";

/// How many of the modules listed are for the initrd.
const FOR_THE_DISK: usize = 3;

/// What virtual machines are made from.
#[derive(Debug)]
pub(super) struct Machine {
    /// An ELF file, which QEMU starts directly.
    pub(super) kernel: Utf8PathBuf,
    /// Holds the modules that the disk needs.
    pub(super) initrd: Utf8PathBuf,
    /// The host's tree and the guest's store.
    pub(super) disk: Utf8PathBuf,
    /// Nobody removes what is locked.
    _in_use: File,
}

impl Machine {
    /// What belongs to this image, made if it is not there yet.
    pub(super) fn ensure(image: &Image, mirror: Option<&str>) -> Result<Self> {
        let recipe = toolchain::workspace_root()?.join("checks/testbed/machine");
        let machines = image::cache()?.join("machines");
        fs::create_dir_all(&machines).with_context(|| format!("making {machines}"))?;
        let salt = format!("{RECIPE_VERSION} {}", image.digests());
        let folder = machines.join(image::digest(&recipe, &salt)?);
        let in_use = image::lock_of(&folder)?;
        in_use
            .lock_shared()
            .context("locking the virtual machine's image")?;
        if !folder.exists() {
            let making = image::open_lock(&machines.join("lock"))?;
            making.lock().context("waiting for who else makes one")?;
            image::remove_unused(&machines)?;
            image::make(&folder, |folder| {
                make(&recipe, image, folder, mirror.unwrap_or(MIRROR))
            })?;
        }
        Ok(Self {
            kernel: folder.join("vmlinux"),
            initrd: folder.join("initrd"),
            disk: folder.join("disk.img"),
            _in_use: in_use,
        })
    }
}

fn make(recipe: &Utf8Path, image: &Image, folder: &Utf8Path, mirror: &str) -> Result<()> {
    println!(
        "the virtual machine's image is not there yet: fetching about 50 MB of Debian's kernel from {mirror} and making \
         about 800 MB in {folder}; some 60 s, once for each recipe"
    );
    let kernel = folder.join("kernel");
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--format=directory", "--variant=extract"]);
    command
        .arg(format!("--include={KERNEL}"))
        .args([SUITE, kernel.as_str(), mirror]);
    image::quietly(&mut command).with_context(|| format!("fetching {KERNEL} from {mirror}"))?;
    let version = only_name(&kernel.join("lib/modules"))?;
    image::quietly(Command::new("depmod").args(["--basedir", kernel.as_str(), &version]))?;
    unpack(
        &kernel.join(format!("boot/vmlinuz-{version}")),
        &folder.join("vmlinux"),
    )?;

    let modules = Modules::listed(&image::listed(&recipe.join("modules"))?, &kernel, &version)?;
    make_initrd(recipe, image, &modules, folder)?;
    make_disk(recipe, image, &modules, folder)?;
    image::remove(&kernel)
}

fn only_name(folder: &Utf8Path) -> Result<String> {
    let mut names = folder
        .read_dir_utf8()
        .with_context(|| format!("listing {folder}"))?;
    let name = names.next().with_context(|| format!("{folder} is empty"))??;
    ensure!(names.next().is_none(), "{folder} holds more than one");
    Ok(name.file_name().to_owned())
}

/// Unpacks a kernel as Debian packs it.
fn unpack(packed: &Utf8Path, kernel: &Utf8Path) -> Result<()> {
    let bytes = fs::read(packed).with_context(|| format!("reading {packed}"))?;
    for at in places_of(LZ4, &bytes) {
        let mut child = Command::new("lz4")
            .args(["-dc"])
            .stdin(Stdio::piped())
            .stdout(File::create(kernel).with_context(|| format!("making {kernel}"))?)
            .stderr(Stdio::null())
            .spawn()
            .context("starting lz4")?;
        if let Some(mut stdin) = child.stdin.take() {
            // It stops reading where what is packed ends, or where it is no such thing.
            stdin.write_all(&bytes[at..]).unwrap_or_default();
        }
        child.wait().context("waiting for lz4")?;
        if fs::read(kernel)?.starts_with(ELF) {
            return Ok(());
        }
    }
    bail!("{packed} holds no kernel that lz4 could unpack: Debian packs it another way now")
}

fn places_of<'a>(what: &'a [u8], bytes: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = bytes.windows(what.len()).enumerate();
    windows
        .filter(move |(_, window)| *window == what)
        .map(|(at, _)| at)
}

/// Kernel modules with all that they need, in the order in which they are loaded.
#[derive(Debug)]
struct Modules {
    kernel: Utf8PathBuf,
    version: String,
    for_the_disk: Vec<Utf8PathBuf>,
    all: Vec<Utf8PathBuf>,
}

impl Modules {
    fn listed(names: &[String], kernel: &Utf8Path, version: &str) -> Result<Self> {
        let mut modules = Self {
            kernel: kernel.to_owned(),
            version: version.to_owned(),
            for_the_disk: Vec::new(),
            all: Vec::new(),
        };
        for (place, name) in names.iter().enumerate() {
            let output = Command::new("modprobe")
                .args([
                    "--dirname",
                    kernel.as_str(),
                    "--set-version",
                    version,
                    "--show-depends",
                    name,
                ])
                .stdin(Stdio::null())
                .output()
                .context("starting modprobe")?;
            ensure!(
                output.status.success(),
                "the kernel has no module {name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                // What is built in needs no file.
                let Some(path) = line.strip_prefix("insmod ") else {
                    continue;
                };
                let path = Utf8PathBuf::from(path.trim());
                if !modules.all.contains(&path) {
                    modules.all.push(path);
                }
            }
            if place + 1 == FOR_THE_DISK {
                modules.for_the_disk.clone_from(&modules.all);
            }
        }
        Ok(modules)
    }
}

fn make_initrd(recipe: &Utf8Path, image: &Image, modules: &Modules, folder: &Utf8Path) -> Result<()> {
    let tree = folder.join("initrd.tree");
    for name in ["bin", "dev", "proc", "sys", "root", "modules"] {
        fs::create_dir_all(tree.join(name)).with_context(|| format!("making {name}"))?;
    }
    fs::copy(image.root.join("bin/busybox"), tree.join("bin/busybox")).context("copying busybox")?;
    fs::copy(recipe.join("init"), tree.join("init")).context("copying the first program")?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    for (place, module) in modules.for_the_disk.iter().enumerate() {
        let name = module.file_name().unwrap_or_default();
        fs::copy(module, tree.join(format!("modules/{place:02}-{name}")))
            .with_context(|| format!("copying {module}"))?;
    }
    let pack = "find . | cpio --create --format=newc --quiet > \"$1\"";
    let mut command = Command::new("sh");
    command
        .args(["-euc", pack, "pack", folder.join("initrd").as_str()])
        .current_dir(&tree);
    image::quietly(&mut command)?;
    image::remove(&tree)
}

fn make_disk(recipe: &Utf8Path, image: &Image, modules: &Modules, folder: &Utf8Path) -> Result<()> {
    let tree = folder.join("tree");
    let copy = |from: &Utf8Path, to: &Utf8Path| {
        image::quietly(Command::new("cp").args(["-aT", "--reflink=auto", from.as_str(), to.as_str()]))
    };
    copy(&image.root, &tree)?;
    copy(&image.nix, &tree.join("nix"))?;
    for module in &modules.all {
        let below = module.strip_prefix(&modules.kernel).unwrap_or(module);
        let to = tree.join("usr").join(below);
        fs::create_dir_all(to.parent().unwrap_or(&tree))
            .with_context(|| format!("making the folder of {to}"))?;
        fs::copy(module, &to).with_context(|| format!("copying {module}"))?;
    }
    image::quietly(Command::new("depmod").args(["--basedir", tree.as_str(), &modules.version]))?;
    image::lay_over(&recipe.join("files"), &tree)?;
    let units = tree.join("etc/systemd/system");
    for unit in image::listed(&recipe.join("masked"))? {
        symlink("/dev/null", units.join(&unit)).with_context(|| format!("masking {unit}"))?;
    }
    symlink(
        "/usr/lib/systemd/system/multi-user.target",
        units.join("default.target"),
    )
    .context("choosing what is booted into")?;
    disk_of(&tree, &folder.join("disk.img"), "2G")?;
    image::remove(&tree)
}

/// A file system with what is in a folder.
pub(super) fn disk_of(tree: &Utf8Path, disk: &Utf8Path, size: &str) -> Result<()> {
    let mut command = Command::new("mke2fs");
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1",
    ]);
    command.args(["-d", tree.as_str(), disk.as_str(), size]);
    image::quietly(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_places_of_a_word_are_found() {
        let places: Vec<usize> = places_of(b"ab", b"abcabab").collect();
        assert_eq!(places, [0, 3, 5]);
        assert_eq!(places_of(b"x", b"").count(), 0);
    }
}
