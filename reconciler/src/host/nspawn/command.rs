//! The command line of systemd-nspawn. Pure.
//!
//! Only options that systemd 252 and 262 have in common.

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::spec::Network;
use uuid::Uuid;

use super::names;
use crate::model::user_range::UserRange;

/// A folder or file of the host inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// On the host.
    pub(super) source: Utf8PathBuf,
    /// Inside.
    pub(super) target: Utf8PathBuf,
    /// Whether it is read-only.
    pub(super) read_only: bool,
}

impl Mount {
    pub(super) fn shown(source: impl Into<Utf8PathBuf>, target: &str) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            read_only: true,
        }
    }

    /// `--bind=` and `--bind-ro=` part source and target by a colon, and know backslashes.
    fn word(&self) -> String {
        let option = if self.read_only { "--bind-ro" } else { "--bind" };
        let quote = |path: &Utf8Path| path.as_str().replace('\\', "\\\\").replace(':', "\\:");
        format!("{option}={}:{}", quote(&self.source), quote(&self.target))
    }
}

/// A container.
#[derive(Debug, Clone)]
pub(super) struct Container<'a> {
    pub(super) agent: &'a AgentName,
    /// The machine id, which stays the same over all runs.
    pub(super) id: Uuid,
    pub(super) range: UserRange,
    pub(super) network: Network,
    /// The tree it has to itself.
    pub(super) root: &'a Utf8Path,
    /// The operating system's `init`.
    pub(super) init: &'a Utf8Path,
    pub(super) mounts: &'a [Mount],
}

impl Container<'_> {
    /// The words after the program's name.
    pub(super) fn words(&self) -> Vec<String> {
        let Self {
            agent,
            id,
            range,
            network,
            root,
            init,
            mounts,
        } = self;
        let mut words = vec![
            "--quiet".to_owned(),
            // The unit is the machine: it has the limits, and its end is the machine's.
            "--keep-unit".to_owned(),
            format!("--machine={}", names::machine(agent)),
            format!("--hostname={agent}"),
            format!("--uuid={}", id.simple()),
            // A file of that name below /etc/systemd/nspawn must not add anything.
            "--settings=no".to_owned(),
            "--notify-ready=yes".to_owned(),
            "--kill-signal=SIGRTMIN+3".to_owned(),
            // The journal inside is volatile; what counts goes to the console, which is this unit's output.
            "--link-journal=no".to_owned(),
            "--timezone=off".to_owned(),
            format!("--directory={root}"),
            format!("--private-users={}:{}", range.base(), UserRange::SIZE),
            // A number alone means that files stay root's. With `chown` no file below the root is ever root's outside.
            "--private-users-ownership=chown".to_owned(),
        ];
        match network {
            Network::Host => words.push("--resolv-conf=copy-host".to_owned()),
            Network::None | Network::Model | Network::Hosts => {
                words.push("--private-network".to_owned());
                words.push("--resolv-conf=off".to_owned());
            }
        }
        words.extend(mounts.iter().map(Mount::word));
        words.push("--".to_owned());
        words.push(init.to_string());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_its_own_user_ids_and_no_network() {
        let agent = "alice".parse().unwrap();
        let mounts = [
            Mount::shown("/nix/store", "/nix/store"),
            Mount {
                source: "/srv/a:b\\c".into(),
                target: "/b".into(),
                read_only: false,
            },
        ];
        let container = Container {
            agent: &agent,
            id: Uuid::from_u128(0x1f),
            range: UserRange::of_slot(1).unwrap(),
            network: Network::Model,
            root: "/roots/alice".into(),
            init: "/nix/store/x-system/init".into(),
            mounts: &mounts,
        };
        insta::assert_snapshot!(container.words().join("\n"), @r"
        --quiet
        --keep-unit
        --machine=hive-alice
        --hostname=alice
        --uuid=0000000000000000000000000000001f
        --settings=no
        --notify-ready=yes
        --kill-signal=SIGRTMIN+3
        --link-journal=no
        --timezone=off
        --directory=/roots/alice
        --private-users=1879113728:65536
        --private-users-ownership=chown
        --private-network
        --resolv-conf=off
        --bind-ro=/nix/store:/nix/store
        --bind=/srv/a\:b\\c:/b
        --
        /nix/store/x-system/init
        ");
        let with_host = Container {
            network: Network::Host,
            ..container
        };
        let words = with_host.words();
        assert!(!words.contains(&"--private-network".to_owned()), "{words:?}");
    }
}
