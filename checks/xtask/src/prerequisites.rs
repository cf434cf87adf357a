//! Programs that the tests need, and how to get them.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Result, bail};
use camino::Utf8Path;

use crate::toolchain;

/// A program that the tests need.
struct Prerequisite {
    /// What is looked for in `PATH`.
    program: &'static str,
    /// The Debian packages that bring it.
    packages: &'static [&'static str],
    /// What needs it.
    purpose: &'static str,
}

const PREREQUISITES: &[Prerequisite] = &[
    Prerequisite {
        program: "git",
        packages: &["git"],
        purpose: "bundles and fetches of config repos",
    },
    Prerequisite {
        program: "bwrap",
        packages: &["bubblewrap"],
        purpose: "the sandbox of the process runtime",
    },
    Prerequisite {
        program: "nix",
        packages: &["nix-bin"],
        purpose: "the nix builder",
    },
    Prerequisite {
        program: "busybox",
        packages: &["busybox-static"],
        purpose: "the shell of Nix's build sandbox",
    },
    Prerequisite {
        program: "faketime",
        packages: &["faketime"],
        purpose: "tests that set the daemon's clock",
    },
    Prerequisite {
        program: "node",
        packages: &["nodejs"],
        purpose: "the linter of the OpenAPI documents, the MCP inspector, and an agent program",
    },
    Prerequisite {
        program: "npm",
        packages: &["npm"],
        purpose: "installing these, and Claude Code",
    },
    Prerequisite {
        program: "mmdebstrap",
        packages: &["mmdebstrap"],
        purpose: "the test bed: making its image",
    },
    Prerequisite {
        program: "systemd-nspawn",
        packages: &["systemd-container"],
        purpose: "the test bed: throw-away hosts with a systemd",
    },
    Prerequisite {
        program: "qemu-system-x86_64",
        packages: &["qemu-system-x86"],
        purpose: "the test bed: a virtual machine with the second version of cgroups",
    },
    Prerequisite {
        program: "depmod",
        packages: &["kmod"],
        purpose: "the modules of its kernel",
    },
    Prerequisite {
        program: "cpio",
        packages: &["cpio"],
        purpose: "packing them",
    },
    Prerequisite {
        program: "lz4",
        packages: &["lz4"],
        purpose: "unpacking its kernel",
    },
    Prerequisite {
        program: "mke2fs",
        packages: &["e2fsprogs"],
        purpose: "making its disk",
    },
    // libc6-dev is only recommended by gcc, and recommendations are not installed.
    Prerequisite {
        program: "cc",
        packages: &["gcc", "libc6-dev"],
        purpose: "linking, and the bundled SQLite",
    },
];

/// Makes sure that every program is there, installing missing ones where that is possible and wanted.
pub(crate) fn ensure(install: bool) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!(
            "all there: {}",
            PREREQUISITES
                .iter()
                .map(|p| p.program)
                .collect::<Vec<_>>()
                .join(", ")
        );
        return Ok(());
    }
    for prerequisite in &missing {
        println!("missing: {} ({})", prerequisite.program, prerequisite.purpose);
    }
    let packages = packages(&missing);
    let debian = is_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let root = rustix::process::geteuid().is_root();
    if !(install && debian && root) {
        bail!("{}", advice(&packages, debian, root));
    }
    toolchain::run(Command::new("apt-get").arg("update"))?;
    toolchain::run(
        Command::new("apt-get")
            .args(["install", "-y", "--no-install-recommends"])
            .args(&packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    match self::missing().as_slice() {
        [] => Ok(()),
        still => bail!(
            "{} still not in PATH after installing {}: check PATH",
            still.iter().map(|p| p.program).collect::<Vec<_>>().join(", "),
            packages.iter().copied().collect::<Vec<_>>().join(", "),
        ),
    }
}

fn missing() -> Vec<&'static Prerequisite> {
    let path = env::var("PATH").unwrap_or_default();
    PREREQUISITES
        .iter()
        .filter(|prerequisite| !in_path(&path, prerequisite.program))
        .collect()
}

fn in_path(path: &str, program: &str) -> bool {
    path.split(':').filter(|folder| !folder.is_empty()).any(|folder| {
        fs::metadata(Utf8Path::new(folder).join(program))
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

fn packages(missing: &[&Prerequisite]) -> BTreeSet<&'static str> {
    missing
        .iter()
        .flat_map(|prerequisite| prerequisite.packages)
        .copied()
        .collect()
}

/// Whether an os-release file describes Debian or something made from it.
fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .any(|(_, value)| {
            value
                .trim_matches(['"', '\''])
                .split_whitespace()
                .any(|word| word == "debian")
        })
}

fn advice(packages: &BTreeSet<&str>, debian: bool, root: bool) -> String {
    let list = packages.iter().copied().collect::<Vec<_>>().join(" ");
    let sudo = if root { "" } else { "sudo " };
    let command = format!("{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {list}");
    if debian {
        format!("install what is missing, then run this again:\n  {command}")
    } else {
        format!(
            "install what is missing with your package manager, then run this again; on Debian it is:\n  {command}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_recognised_and_others_are_not() {
        assert!(is_debian("NAME=x\nID=debian\n"));
        assert!(is_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=nixos\nHOME_URL=\"https://debian.org\"\n"));
        assert!(!is_debian(""));
    }

    #[test]
    fn a_program_counts_only_when_it_can_be_executed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("UTF-8");
        fs::write(folder.path().join("tool"), "").expect("written");
        fs::set_permissions(folder.path().join("tool"), fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(!in_path(path, "tool"));
        fs::set_permissions(folder.path().join("tool"), fs::Permissions::from_mode(0o755)).expect("chmod");
        assert!(in_path(&format!("/nonexistent::{path}"), "tool"));
        assert!(!in_path(path, "other"));
    }

    #[test]
    fn the_advice_is_one_command_with_every_package_once() {
        let packages = packages(&PREREQUISITES.iter().collect::<Vec<_>>());
        let text = advice(&packages, true, false);
        let command = text.lines().last().expect("a line").trim();
        assert_eq!(
            command,
            "sudo apt-get update && \
             sudo apt-get install -y --no-install-recommends \
             bubblewrap busybox-static cpio e2fsprogs faketime gcc git kmod libc6-dev lz4 mmdebstrap nix-bin nodejs npm \
             qemu-system-x86 systemd-container"
        );
    }
}
