//! The `bwrap` sandbox: probed by making one, then made the same way for every agent.
//!
//! The root is an empty tmpfs. Into it come the host's programs, read-only; the agent's three folders; the harness;
//! the declared binds. The daemon's own folders are not among them, and are covered where a bind would show them.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::secret::CREDENTIALS_VARIABLE;
use shared::spec::Network;

/// Where the harness lies inside.
pub(super) const HARNESS: &str = "/run/hive-harness-bin/hive-harness";
/// Where the driver's program lies inside, if the operator named one.
pub(super) const CLAUDE: &str = "/run/hive-harness-bin/claude";
/// Where the agent's sockets to the outside lie inside.
pub(super) const EGRESS: &str = "/run/hive-egress";
/// Where the agent's secrets lie inside, a file for each.
const CREDENTIALS: &str = "/run/credentials";
/// How long a probe may take.
const PROBE_TIME: Duration = Duration::from_secs(10);

/// What there is to keep agents in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// `bwrap`, tried and found working.
    Bwrap(Bwrap),
    /// Nothing.
    None {
        /// Why, in words.
        why: String,
    },
}

/// A `bwrap` program and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bwrap {
    /// The program.
    pub program: Utf8PathBuf,
    /// Whether it can forbid user namespaces inside.
    pub disable_userns: bool,
    /// Whether it binds open folders, so that nobody can exchange them between check and use.
    pub bind_fd: bool,
}

impl Sandbox {
    /// Looks for `bwrap` in `search_path` (as in `$PATH`) and makes a sandbox the way agents get theirs.
    pub async fn probe(search_path: &OsStr) -> Self {
        match probe(search_path).await {
            Ok(bwrap) => Self::Bwrap(bwrap),
            Err(why) => Self::None { why },
        }
    }
}

async fn probe(search_path: &OsStr) -> Result<Bwrap, String> {
    let program = std::env::split_paths(search_path)
        .filter_map(|folder| Utf8PathBuf::from_path_buf(folder.join("bwrap")).ok())
        .find(|program| program.is_absolute() && program.is_file())
        .ok_or("the program `bwrap` was not found; install bubblewrap")?;
    let help = run(&program, vec!["--help".to_owned()]).await?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let mut bwrap = Bwrap {
        disable_userns: help.contains("--disable-userns"),
        bind_fd: help.contains("--ro-bind-fd"),
        program,
    };
    match try_out(&bwrap).await {
        // Some kernels and outer containers refuse only this.
        Err(_) if bwrap.disable_userns => {
            bwrap.disable_userns = false;
            try_out(&bwrap).await?;
        }
        outcome => outcome?,
    }
    Ok(bwrap)
}

/// Makes a sandbox in which `bwrap` prints its version: the one program that is certainly there.
async fn try_out(bwrap: &Bwrap) -> Result<(), String> {
    let mut words = isolation(bwrap, Network::None, "probe");
    words.extend(root());
    words.extend(strings(["--ro-bind", bwrap.program.as_str(), HARNESS]));
    words.extend(seal());
    words.extend(strings(["--", HARNESS, "--version"]));
    let output = run(&bwrap.program, words).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("no reason given");
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    Err(format!(
        "{} cannot make a sandbox here: {said}; unprivileged user namespaces may be switched off (see \
         `sysctl user.max_user_namespaces kernel.unprivileged_userns_clone kernel.apparmor_restrict_unprivileged_userns`)",
        bwrap.program
    ))
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
async fn run(program: &Utf8Path, words: Vec<String>) -> Result<Output, String> {
    let child = tokio::process::Command::new(program)
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    match tokio::time::timeout(PROBE_TIME, child.wait_with_output()).await {
        Ok(outcome) => outcome.map_err(|error| format!("{program} cannot be waited for: {error}")),
        Err(_) => Err(format!(
            "{program} did not make a sandbox within {} seconds",
            PROBE_TIME.as_secs()
        )),
    }
}

/// Namespaces, ids, privileges and environment.
pub(super) fn isolation(bwrap: &Bwrap, network: Network, hostname: &str) -> Vec<String> {
    let mut words = strings([
        "--unshare-user",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]);
    match network {
        Network::None | Network::Model | Network::Hosts => words.push("--unshare-net".to_owned()),
        Network::Host => {}
    }
    if bwrap.disable_userns {
        words.push("--disable-userns".to_owned());
    }
    words.extend(strings([
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--hostname",
        hostname,
        "--cap-drop",
        "ALL",
    ]));
    // The harness is process 1 itself: it gets SIGTERM, and with it ends everything inside.
    words.extend(strings(["--new-session", "--as-pid-1", "--clearenv"]));
    for (name, value) in environment("/state") {
        words.extend(strings(["--setenv", name, &value]));
    }
    words
}

/// Secrets, each with the inherited descriptor of its content. They are copied into the sandbox's own memory.
pub(super) fn credentials(secrets: &[(String, String)]) -> Vec<String> {
    let mut words = Vec::new();
    if !secrets.is_empty() {
        words.extend(strings(["--setenv", CREDENTIALS_VARIABLE, CREDENTIALS]));
    }
    for (name, descriptor) in secrets {
        words.extend(strings([
            "--ro-bind-data",
            descriptor,
            &format!("{CREDENTIALS}/{name}"),
        ]));
    }
    words
}

/// The harness's whole environment.
pub(super) fn environment(home: &str) -> [(&'static str, String); 4] {
    // NixOS has next to nothing in /usr/bin. The link leads into the store, which is visible inside.
    let system = Utf8Path::new("/run/current-system").canonicalize_utf8();
    let system = system.ok().filter(|system| system.starts_with("/nix/store"));
    let path = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin".to_owned();
    let path = system.map_or(path.clone(), |system| format!("{system}/sw/bin:{path}"));
    [
        ("PATH", path),
        ("HOME", home.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
    ]
}

/// The folders that hold the host's programs and their libraries, outside the Nix store.
pub(in crate::host) fn programs() -> Vec<String> {
    let mut words = strings(["--ro-bind", "/usr", "/usr"]);
    for folder in ["/bin", "/sbin", "/lib", "/lib32", "/lib64"] {
        let path = Utf8Path::new(folder);
        if let Ok(target) = path.read_link_utf8() {
            words.extend(strings(["--symlink", target.as_str(), folder]));
        } else if path.is_dir() {
            words.extend(strings(["--ro-bind", folder, folder]));
        }
    }
    words
}

/// The host's programs and what they need to run.
pub(super) fn root() -> Vec<String> {
    let mut words = programs();
    if Utf8Path::new("/nix/store").is_dir() {
        words.extend(strings(["--ro-bind", "/nix/store", "/nix/store"]));
    }
    // Never all of /etc: where the daemon is root, the agent could read what only root may.
    for file in [
        "/etc/ld.so.cache",
        "/etc/alternatives",
        "/etc/localtime",
        "/etc/ssl/certs",
        "/etc/ssl/openssl.cnf",
        "/etc/pki/tls/certs",
        "/etc/pki/ca-trust/extracted",
        "/etc/crypto-policies",
    ] {
        words.extend(strings(["--ro-bind-try", file, file]));
    }
    // Where NixOS keeps what the links in /etc/ssl lead to; a path in the store.
    if let Ok(target) = Utf8Path::new("/etc/static").read_link_utf8()
        && target.starts_with("/nix/store")
    {
        words.extend(strings(["--symlink", target.as_str(), "/etc/static"]));
    }
    words.extend(strings(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]));
    words
}

/// The few files that give ids and addresses names.
pub(super) fn names(agent: &AgentName, network: Network) -> Vec<(&'static str, String)> {
    let sources = if network == Network::Host {
        "files dns"
    } else {
        "files"
    };
    vec![
        (
            "/etc/passwd",
            format!(
                "root:x:0:0:root:/root:/bin/sh\n{agent}:x:1000:1000:{agent}:/state:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/bin/false\n"
            ),
        ),
        (
            "/etc/group",
            format!("root:x:0:\n{agent}:x:1000:\nnogroup:x:65534:\n"),
        ),
        (
            "/etc/hosts",
            format!("127.0.0.1 localhost {agent}\n::1 localhost\n"),
        ),
        (
            "/etc/nsswitch.conf",
            format!("passwd: files\ngroup: files\nhosts: {sources}\n"),
        ),
    ]
}

/// Names of the host, for agents on its network.
pub(super) fn resolver() -> Vec<String> {
    strings(["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"])
}

/// Covers the daemon's folders where the host's programs lie around them.
pub(super) fn hide(own: &[&Utf8Path]) -> Vec<String> {
    let visible = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"];
    let visible: Vec<Utf8PathBuf> = visible
        .iter()
        .filter_map(|folder| Utf8Path::new(folder).canonicalize_utf8().ok())
        .collect();
    let mut words = Vec::new();
    for own in own.iter().filter_map(|own| own.canonicalize_utf8().ok()) {
        if visible.iter().any(|visible| own.starts_with(visible)) {
            words.extend(strings(["--tmpfs", own.as_str(), "--remount-ro", own.as_str()]));
        }
    }
    words
}

/// The last words: nothing more can be put into the root.
pub(super) fn seal() -> Vec<String> {
    strings(["--remount-ro", "/"])
}

pub(super) fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_without_bwrap_says_so() {
        let empty = tempfile::tempdir().expect("a folder");
        let Sandbox::None { why } = Sandbox::probe(empty.path().as_os_str()).await else {
            panic!("found a sandbox in an empty folder");
        };
        assert!(why.contains("install bubblewrap"), "{why}");
    }

    #[tokio::test]
    async fn a_bwrap_that_makes_no_sandbox_is_none_and_its_last_words_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        // It takes none of the options, and says so.
        std::os::unix::fs::symlink("/bin/cat", folder.path().join("bwrap")).expect("a link");
        let Sandbox::None { why } = Sandbox::probe(folder.path().as_os_str()).await else {
            panic!("took cat for a sandbox");
        };
        assert!(
            why.contains("cannot make a sandbox here") && why.contains("user namespaces"),
            "{why}"
        );
        assert!(!why.contains("no reason given"), "{why}");
    }

    #[test]
    fn only_the_host_network_is_shared() {
        let bwrap = Bwrap {
            program: "/usr/bin/bwrap".into(),
            disable_userns: true,
            bind_fd: true,
        };
        for (network, isolated) in [
            (Network::None, true),
            (Network::Model, true),
            (Network::Hosts, true),
            (Network::Host, false),
        ] {
            let words = isolation(&bwrap, network, "alice");
            assert_eq!(
                words.iter().any(|word| word == "--unshare-net"),
                isolated,
                "{network:?}"
            );
        }
    }

    #[test]
    fn the_daemons_folders_are_covered_only_where_they_would_show() {
        assert!(hide(&[Utf8Path::new("/tmp")]).is_empty());
        assert_eq!(
            hide(&[Utf8Path::new("/usr/share")])[..2],
            ["--tmpfs", "/usr/share"]
        );
    }
}
