//! The image: a small Debian that nests boot from, made once and kept in the user's cache.
//!
//! ```text
//! <cache>/hyperhive/testbed/images/<digest>/root    the tree of the host
//! <cache>/hyperhive/testbed/guests/<digest>/nix     a Nix store that holds the guest's system
//! <cache>/hyperhive/testbed/nests/<id>              a nest that is running; see `nest`
//! <cache>/hyperhive/testbed/machines/<digest>       what virtual machines boot from; see `qemu_image`
//! ```
//!
//! Both are named by a digest of the recipe in `checks/testbed`, so another recipe is another image, and all but the
//! latest ones are removed when a new one is made.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest as _, Sha256};

use super::nest::SCENARIO_FOLDER;
use crate::{interrupt, toolchain, tree};

/// Changed when this file makes something else of the same recipe.
const RECIPE_VERSION: &str = "1";

/// The release that everything comes from.
pub(super) const SUITE: &str = "bookworm";

/// Where packages come from unless told otherwise.
pub(super) const MIRROR: &str = "http://deb.debian.org/debian";

/// Documentation and translations: a third of all files, and nobody reads them there.
const LEFT_OUT: [&str; 3] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"];

/// What nests are made from.
#[derive(Debug)]
pub(crate) struct Image {
    /// The host's tree; never written to.
    pub(crate) root: Utf8PathBuf,
    /// A `/nix` with the guest's system; never written to.
    pub(crate) nix: Utf8PathBuf,
    /// Holds nests while they run. On the same, real file system.
    pub(crate) nests: Utf8PathBuf,
    /// Nobody removes what is locked.
    _in_use: [File; 2],
}

impl Image {
    /// The image of the recipe in this tree, made if it is not there yet.
    pub(crate) fn ensure(mirror: Option<&str>) -> Result<Self> {
        let recipe = toolchain::workspace_root()?.join("checks/testbed");
        let cache = cache()?;
        for folder in ["images", "guests", "nests"] {
            let folder = cache.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("making {folder}"))?;
        }
        // Images hold programs that would be setuid root for whoever gets at them.
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("closing {cache}"))?;

        let image_digest = digest(&recipe.join("image"), RECIPE_VERSION)?;
        let guest_digest = digest(&recipe.join("system"), &image_digest)?;
        let image = cache.join("images").join(&image_digest);
        let guest = cache.join("guests").join(&guest_digest);
        // In use from now on, whether they are there yet or not.
        let in_use = [lock_of(&image)?, lock_of(&guest)?];
        for lock in &in_use {
            lock.lock_shared().context("locking the image")?;
        }
        if !(image.exists() && guest.exists()) {
            // Whoever else makes one now is waited for.
            let making = open_lock(&cache.join("lock"))?;
            making.lock().context("waiting for who else makes an image")?;
            remove_unused(&cache.join("images"))?;
            remove_unused(&cache.join("guests"))?;
            make(&image, |folder| make_root(&recipe.join("image"), folder, mirror))?;
            make(&guest, |folder| {
                make_guest(&recipe.join("system"), &image.join("root"), folder)
            })?;
        }
        Ok(Self {
            root: image.join("root"),
            nix: guest.join("nix"),
            nests: cache.join("nests"),
            _in_use: in_use,
        })
    }
}

impl Image {
    /// What is different when it is another image.
    pub(super) fn digests(&self) -> String {
        let name = |path: &Utf8Path| {
            path.parent()
                .and_then(Utf8Path::file_name)
                .unwrap_or_default()
                .to_owned()
        };
        format!("{} {}", name(&self.root), name(&self.nix))
    }
}

/// How many images of other recipes are kept: of another branch, and of what this one just was.
const OTHERS_KEPT: usize = 2;

/// Where images are kept: it must outlive the checkout, and be on a real file system.
pub(super) fn cache() -> Result<Utf8PathBuf> {
    let named = env::var("XDG_CACHE_HOME")
        .ok()
        .map(Utf8PathBuf::from)
        .filter(|it| it.is_absolute());
    let home = || Some(Utf8PathBuf::from_path_buf(env::home_dir()?).ok()?.join(".cache"));
    let cache = named
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor a home folder says where to keep the test bed's image")?;
    Ok(cache.join("hyperhive/testbed"))
}

/// A digest of all files below a folder: their names, whether they can be executed, and what is in them.
pub(super) fn digest(folder: &Utf8Path, salt: &str) -> Result<String> {
    let mut paths = tree::walk(folder).with_context(|| format!("reading the recipe in {folder}"))?;
    paths.sort();
    let mut hasher = Sha256::new();
    hasher.update(salt);
    for path in paths {
        let file = folder.join(&path);
        let metadata = fs::symlink_metadata(&file).with_context(|| format!("reading {file}"))?;
        let bytes = if metadata.is_symlink() {
            fs::read_link(&file)
                .with_context(|| format!("reading {file}"))?
                .into_os_string()
                .into_encoded_bytes()
        } else {
            fs::read(&file).with_context(|| format!("reading {file}"))?
        };
        let executable = metadata.permissions().mode() & 0o100 != 0;
        hasher.update(format!("\0{path}\0{executable}\0{}\0", bytes.len()));
        hasher.update(bytes);
    }
    Ok(hasher
        .finalize()
        .iter()
        .take(10)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Makes a folder beside its place and moves it there when it is whole.
pub(super) fn make(place: &Utf8Path, fill: impl FnOnce(&Utf8Path) -> Result<()>) -> Result<()> {
    if place.exists() {
        return Ok(());
    }
    let unfinished = Utf8PathBuf::from(format!("{place}.unfinished"));
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished).with_context(|| format!("making {unfinished}"))?;
    let begin = Instant::now();
    if let Err(error) = fill(&unfinished) {
        // What went wrong first is what counts.
        remove(&unfinished).unwrap_or_default();
        return Err(error);
    }
    fs::rename(&unfinished, place).with_context(|| format!("moving it to {place}"))?;
    println!("made in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Removes what nobody uses, but for the latest ones.
pub(super) fn remove_unused(folder: &Utf8Path) -> Result<()> {
    let mut found = Vec::new();
    for entry in folder
        .read_dir_utf8()
        .with_context(|| format!("listing {folder}"))?
    {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push((entry.metadata()?.modified()?, entry.path().to_owned()));
        }
    }
    found.sort();
    for (_, path) in found.iter().rev().skip(OTHERS_KEPT) {
        // The lock stays: whoever opened it before us would hold one that is no file any more.
        if lock_of(path)?.try_lock().is_ok() {
            remove(path)?;
        }
    }
    Ok(())
}

/// Locked as long as somebody uses what is at `place`.
pub(super) fn lock_of(place: &Utf8Path) -> Result<File> {
    open_lock(&Utf8PathBuf::from(format!("{place}.lock")))
}

pub(super) fn open_lock(path: &Utf8Path) -> Result<File> {
    File::create(path).with_context(|| format!("making {path}"))
}

/// Removes a folder and all below it, if it is there.
pub(super) fn remove(folder: &Utf8Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {folder}"))
        }
        _ => Ok(()),
    }
}

/// Names listed one a line; `#` begins a comment.
pub(super) fn listed(path: &Utf8Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let names = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn make_root(recipe: &Utf8Path, folder: &Utf8Path, mirror: Option<&str>) -> Result<()> {
    let mirror = mirror.unwrap_or(MIRROR);
    println!(
        "the test bed's image is not there yet: fetching about 90 MB of Debian packages from {mirror} and making a \
         tree of about 290 MB in {folder}; some 35 s, once for each recipe"
    );
    let root = folder.join("root");
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--format=directory", "--variant=minbase"]);
    command.arg(format!(
        "--include={}",
        listed(&recipe.join("packages"))?.join(",")
    ));
    command.args(LEFT_OUT.map(|pattern| format!("--dpkgopt=path-exclude={pattern}")));
    command.args([SUITE, root.as_str(), mirror]);
    quietly(&mut command).with_context(|| {
        format!(
            "making the test bed's image; besides {mirror} it needs nothing from outside. Behind a mirror of your own: \
             `cargo xtask vm --mirror URL`"
        )
    })?;
    lay_over(&recipe.join("files"), &root)?;
    for unit in listed(&recipe.join("masked"))? {
        let link = root.join("etc/systemd/system").join(&unit);
        symlink("/dev/null", &link).with_context(|| format!("masking {unit}"))?;
    }
    let folders = ["nix", "var/lib/hyperhive", "var/lib/hyperhive-roots"];
    for name in folders.into_iter().chain(["var/log/journal", "etc/hyperhive"]) {
        fs::create_dir_all(root.join(name)).with_context(|| format!("making {name} in the image"))?;
    }
    fs::create_dir_all(root.join(SCENARIO_FOLDER.trim_start_matches('/')))?;
    // Empty: each boot makes one.
    fs::write(root.join("etc/machine-id"), "").context("emptying the image's machine-id")
}

/// Builds the guest's system with the image's own Nix, so that its store and database are what a real Nix makes.
fn make_guest(recipe: &Utf8Path, root: &Utf8Path, folder: &Utf8Path) -> Result<()> {
    println!("building the guest's system with Nix: about 290 MB in {folder}");
    let nix = folder.join("nix");
    fs::create_dir_all(&nix).with_context(|| format!("making {nix}"))?;
    let mut command = Command::new("systemd-nspawn");
    command
        .args([
            "--register=no",
            "--keep-unit",
            "--quiet",
            "--pipe",
            "--private-network",
        ])
        .args([
            "--volatile=overlay",
            "--machine=hive-bed-guest",
            "--directory",
            root.as_str(),
        ])
        .arg(format!("--bind={nix}:/nix"))
        .arg(format!("--bind-ro={recipe}:/recipe"))
        .args(["/bin/sh", "/recipe/build"]);
    quietly(&mut command).context("building the guest's system")
}

/// Runs a command whose output nobody wants to see unless it fails.
pub(super) fn quietly(command: &mut Command) -> Result<()> {
    interrupt::check()?;
    let line = toolchain::command_line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{line}`"))?;
    interrupt::check()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let end = lines[lines.len().saturating_sub(15)..].join("\n  ");
    bail!("`{line}` {}:\n  {end}", toolchain::describe(output.status));
}

/// Copies a tree of files over another. Modes do not depend on the umask of whoever checked it out.
pub(super) fn lay_over(files: &Utf8Path, root: &Utf8Path) -> Result<()> {
    for path in tree::walk(files)? {
        let (from, to) = (files.join(&path), root.join(&path));
        let mut folder = Utf8PathBuf::new();
        for part in path.parent().into_iter().flat_map(Utf8Path::components) {
            folder.push(part);
            let made = root.join(&folder);
            if !made.exists() {
                fs::create_dir(&made).with_context(|| format!("making {made}"))?;
                fs::set_permissions(&made, fs::Permissions::from_mode(0o755))?;
            }
        }
        let metadata = fs::symlink_metadata(&from).with_context(|| format!("reading {from}"))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&from).with_context(|| format!("reading {from}"))?;
            symlink(target, &to).with_context(|| format!("making the link {to}"))?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("copying {from} to {to}"))?;
            let mode = if metadata.permissions().mode() & 0o100 != 0 {
                0o755
            } else {
                0o644
            };
            fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        folder
    }

    fn path(folder: &tempfile::TempDir) -> &Utf8Path {
        Utf8Path::from_path(folder.path()).expect("UTF-8")
    }

    #[test]
    fn the_digest_is_of_names_contents_modes_and_salt() {
        let first = folder(&[("a", "1"), ("b/c", "2")]);
        let digest_of = |it: &tempfile::TempDir| digest(path(it), "s").expect("read");
        assert_eq!(digest_of(&first), digest_of(&folder(&[("b/c", "2"), ("a", "1")])));
        assert_ne!(digest_of(&first), digest_of(&folder(&[("a", "1"), ("b/d", "2")])));
        assert_ne!(digest_of(&first), digest_of(&folder(&[("a", "12"), ("b/c", "")])));
        assert_ne!(digest_of(&first), digest(path(&first), "t").expect("read"));
        let before = digest_of(&first);
        fs::set_permissions(first.path().join("a"), fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_ne!(before, digest_of(&first));
    }

    #[test]
    fn lists_hold_one_name_a_line_and_comments() {
        let folder = folder(&[("list", "# why\na\n\n b # because\n")]);
        assert_eq!(listed(&path(&folder).join("list")).expect("read"), ["a", "b"]);
    }

    #[test]
    fn files_are_laid_over_with_modes_that_no_umask_made() {
        let files = folder(&[("x/y/run", "#!/bin/sh\n"), ("x/text", "t")]);
        for (name, mode) in [("x/y/run", 0o700), ("x/text", 0o600), ("x/y", 0o700)] {
            fs::set_permissions(files.path().join(name), fs::Permissions::from_mode(mode)).expect("chmod");
        }
        let root = tempfile::tempdir().expect("a folder");
        lay_over(path(&files), path(&root)).expect("copied");
        for (name, mode) in [("x/y/run", 0o755), ("x/text", 0o644), ("x/y", 0o755)] {
            let metadata = fs::metadata(root.path().join(name)).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
        }
    }

    #[test]
    fn what_could_not_be_made_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = path(&folder).join("it");
        make(&place, |it| {
            fs::write(it.join("half"), "").expect("written");
            bail!("planted")
        })
        .expect_err("planted");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
        make(&place, |it| Ok(fs::write(it.join("whole"), "")?)).expect("made");
        assert!(place.join("whole").exists());
    }
}
