//! Which host folders may appear in a sandbox, and where.

use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::spec::BindSpec;

use crate::host::HostError;
use crate::host::layout::Layout;

/// A bind that passed the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Bind {
    /// The folder on the host, without links.
    pub(in crate::host) source: Utf8PathBuf,
    /// Where the agent sees it.
    pub(in crate::host) target: Utf8PathBuf,
    /// Whether it is read-only.
    pub(in crate::host) read_only: bool,
}

/// Folders that tell or change what the machine is, with everything below.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Folders that hold the sockets of other services.
const SHARED: [&str; 3] = ["/", "/run", "/var/run"];
/// What the sandbox itself puts into the root.
const TAKEN: [&str; 15] = [
    "/config", "/state", "/run", "/proc", "/dev", "/sys", "/usr", "/bin", "/sbin", "/lib", "/lib32",
    "/lib64", "/etc", "/nix", "/var",
];

/// Whether an agent may write in a folder with this owner; if not, why.
pub(in crate::host) type MayWrite<'a> = dyn Fn(&Utf8Path, u32) -> Result<(), String> + 'a;

/// Without containers, only what belongs to the daemon's own user can be written by an agent.
pub(super) fn daemons_own(source: &Utf8Path, owner: u32) -> Result<(), String> {
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(format!(
        "a writable bind must belong to the user the daemon runs as; chown {source} or make it read-only"
    ))
}

/// Checks the declared binds of an agent.
///
/// # Errors
/// [`HostError::Refused`], which names the bind, when one shows too much or hides what the sandbox needs.
pub(in crate::host) fn check(
    agent: &AgentName,
    binds: &[BindSpec],
    layout: &Layout,
    may_write: &MayWrite<'_>,
) -> Result<Vec<Bind>, HostError> {
    let mut checked: Vec<Bind> = Vec::new();
    for bind in binds {
        let refused = |why: String| {
            HostError::refused(
                format!("the bind {:?} -> {:?} of {agent}", bind.source, bind.target),
                why,
            )
        };
        let target = check_target(&bind.target).map_err(refused)?;
        // A link planted in one bind would redirect the other one below it.
        if let Some(other) = checked.iter().find(|other| overlap(&other.target, &target)) {
            return Err(refused(format!(
                "its target overlaps with that of another bind, {}",
                other.target
            )));
        }
        let source = check_source(bind, layout, may_write).map_err(refused)?;
        checked.push(Bind {
            source,
            target,
            read_only: bind.read_only,
        });
    }
    Ok(checked)
}

fn check_target(target: &str) -> Result<Utf8PathBuf, String> {
    let path = Utf8Path::new(target);
    let plain = path.is_absolute()
        && !target.contains(char::is_control)
        && path
            .components()
            .skip(1)
            .all(|component| matches!(component, Utf8Component::Normal(_)));
    if !plain {
        return Err("its target must be an absolute path without `..`".to_owned());
    }
    // Rebuilt from its parts, so that `//wiki/./` and `/wiki` are the same.
    let path: Utf8PathBuf = path.components().collect();
    // A bind below /tmp is fine: nothing of the sandbox's own lies there. In its place it would not be empty.
    if path == "/tmp" || path == "/" {
        return Err(format!("its target would replace {path} of the sandbox"));
    }
    match TAKEN.iter().find(|taken| overlap(Utf8Path::new(taken), &path)) {
        Some(taken) => Err(format!(
            "its target would cover or change {taken} of the sandbox; choose another one"
        )),
        None => Ok(path),
    }
}

fn check_source(bind: &BindSpec, layout: &Layout, may_write: &MayWrite<'_>) -> Result<Utf8PathBuf, String> {
    let source = Utf8Path::new(&bind.source);
    if !source.is_absolute() {
        return Err("its source must be an absolute path".to_owned());
    }
    let source = source
        .canonicalize_utf8()
        .map_err(|error| format!("its source cannot be used: {error}"))?;
    let metadata = source
        .metadata()
        .map_err(|error| format!("its source cannot be used: {error}"))?;
    if !metadata.is_dir() {
        return Err("its source is not a folder".to_owned());
    }
    if SHARED.iter().any(|shared| source == *shared) || KERNEL.iter().any(|kernel| source.starts_with(kernel))
    {
        return Err(format!(
            "{source} would give the agent power over the host; bind a folder of its own"
        ));
    }
    for own in [layout.state(), layout.run()] {
        let own = own.canonicalize_utf8().unwrap_or_else(|_| own.to_owned());
        if overlap(&own, &source) {
            return Err(format!("{source} holds or is part of the daemon's own {own}"));
        }
    }
    if !bind.read_only {
        may_write(&source, metadata.uid())?;
    }
    Ok(source)
}

/// Whether one is the other or lies in it.
fn overlap(a: &Utf8Path, b: &Utf8Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        root: Utf8PathBuf,
        layout: Layout,
        _keep: tempfile::TempDir,
    }

    fn world() -> World {
        let keep = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(keep.path())
            .expect("UTF-8")
            .canonicalize_utf8()
            .expect("canonical");
        for folder in ["hive/state/agents", "hive/run", "srv/wiki"] {
            std::fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        let layout = Layout::new(root.join("hive/state"), root.join("hive/run"));
        World {
            root,
            layout,
            _keep: keep,
        }
    }

    fn check_one(world: &World, source: &str, target: &str) -> Result<Vec<Bind>, HostError> {
        let bind = BindSpec {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: true,
        };
        check(
            &"alice".parse().expect("a name"),
            &[bind],
            &world.layout,
            &daemons_own,
        )
    }

    #[track_caller]
    fn assert_refused(outcome: Result<Vec<Bind>, HostError>, source: &str) {
        let error = outcome.expect_err(source);
        assert!(error.is_terminal(), "{error}");
        assert!(
            error.to_string().contains(&format!("{source:?}")),
            "{error} does not name {source}"
        );
    }

    #[test]
    fn an_ordinary_folder_is_bound_under_its_real_name() {
        let world = world();
        std::os::unix::fs::symlink(world.root.join("srv/wiki"), world.root.join("link")).expect("a link");
        let binds = check_one(&world, world.root.join("link").as_str(), "//wiki/./").expect("accepted");
        assert_eq!(binds[0].source, world.root.join("srv/wiki"));
        assert_eq!(binds[0].target, "/wiki");
    }

    #[test]
    fn sources_that_show_the_daemon_or_the_machine_are_refused() {
        let world = world();
        std::os::unix::fs::symlink(world.layout.state(), world.root.join("link")).expect("a link");
        let own =
            ["hive", "hive/state", "hive/state/agents", "hive/run", "link"].map(|own| world.root.join(own));
        let own = own.iter().map(|path| path.as_str());
        for source in own.chain([
            "/",
            "/run",
            "/proc",
            "/proc/self",
            "/sys",
            "/dev",
            "/dev/shm",
            "srv",
            "/nowhere",
        ]) {
            assert_refused(check_one(&world, source, "/wiki"), source);
        }
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let world = world();
        assert_refused(check_one(&world, "/etc/passwd", "/wiki"), "/etc/passwd");
    }

    #[test]
    fn targets_that_cover_the_sandbox_are_refused() {
        let world = world();
        let source = world.root.join("srv/wiki");
        for target in [
            "/",
            "/config",
            "/config/x",
            "/state/x",
            "/run",
            "/run/hive",
            "/run/hive/x",
            "/proc/1",
            "/dev",
            "/usr/bin",
            "/etc",
            "/nix/store",
            "/tmp",
            "wiki",
            "/wiki/../config",
            "/wi\nki",
            "",
        ] {
            assert_refused(check_one(&world, source.as_str(), target), source.as_str());
        }
    }

    #[test]
    fn nested_targets_are_refused() {
        let world = world();
        let bind = |target: &str| BindSpec {
            source: world.root.join("srv/wiki").into_string(),
            target: target.to_owned(),
            read_only: true,
        };
        let agent = "alice".parse().expect("a name");
        assert!(
            check(
                &agent,
                &[bind("/wiki"), bind("/wiki/sub")],
                &world.layout,
                &daemons_own
            )
            .is_err()
        );
        assert!(
            check(
                &agent,
                &[bind("/wiki"), bind("/wiki-2")],
                &world.layout,
                &daemons_own
            )
            .is_ok()
        );
    }
}
