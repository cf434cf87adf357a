//! The files that systemd and polkit need: rendered here, so that the NixOS module, other hosts and the tests have the same.

use camino::Utf8PathBuf;

use super::{EGRESS, ROOTS};

/// Where everything lies on a host.
#[derive(Debug, Clone, clap::Args)]
pub struct Paths {
    /// The program hive; by default this one
    #[arg(long, value_name = "FILE")]
    pub hive: Option<Utf8PathBuf>,
    /// The program systemd-nspawn
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/systemd-nspawn")]
    pub nspawn: Utf8PathBuf,
    /// The spec
    #[arg(long, value_name = "FILE", default_value = "/etc/hyperhive/hive.json")]
    pub spec: Utf8PathBuf,
    /// The folder for what must survive a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hyperhive")]
    pub state: Utf8PathBuf,
    /// The folder for sockets
    #[arg(long, value_name = "DIR", default_value = "/run/hyperhive")]
    pub run: Utf8PathBuf,
    /// The folder of the agents' egress sockets
    #[arg(long, value_name = "DIR", default_value = EGRESS)]
    pub egress: Utf8PathBuf,
    /// The folder in which containers get their trees; root's alone
    #[arg(long, value_name = "DIR", default_value = ROOTS)]
    pub roots: Utf8PathBuf,
}

/// A path that cannot be part of a unit file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path:?} cannot stand in a unit file: paths need to be absolute, of letters, digits and any of `/._+-@:,=~`"
)]
pub struct BadPath {
    /// The path.
    pub path: Utf8PathBuf,
}

/// A file, with its place below `/etc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it belongs, below `/etc`.
    pub place: &'static str,
    /// Its text.
    pub text: String,
}

/// All files, with these paths filled in.
///
/// # Errors
/// When a path has characters that mean something to systemd.
pub fn files(hive: Utf8PathBuf, paths: &Paths) -> Result<Vec<File>, BadPath> {
    let Paths {
        hive: _,
        nspawn,
        spec,
        state,
        run,
        egress,
        roots,
    } = paths;
    let places = [
        ("@hive@", &hive),
        ("@nspawn@", nspawn),
        ("@spec@", spec),
        ("@state@", state),
        ("@run@", run),
        ("@egress@", egress),
        ("@roots@", roots),
    ];
    for (_, path) in places {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-@:,=~".contains(c);
        if !path.is_absolute() || !path.as_str().chars().all(plain) {
            return Err(BadPath { path: path.clone() });
        }
    }
    let fill = |text: &str| {
        places.iter().fold(text.to_owned(), |text, (place, path)| {
            text.replace(place, path.as_str())
        })
    };
    let files = [
        (
            "systemd/system/hyperhive.service",
            include_str!("units/daemon.service"),
        ),
        (
            "systemd/system/hyperhive-agent@.service",
            include_str!("units/agent.service"),
        ),
        (
            "systemd/system/hyperhive-egress.service",
            include_str!("units/egress.service"),
        ),
        (
            "systemd/system/hyperhive-purge@.service",
            include_str!("units/purge.service"),
        ),
        (
            "polkit-1/rules.d/50-hyperhive.rules",
            include_str!("units/hyperhive.rules"),
        ),
        ("sysusers.d/hyperhive.conf", include_str!("units/sysusers.conf")),
    ];
    let rendered = files.into_iter().map(|(place, text)| File {
        place,
        text: fill(text),
    });
    Ok(rendered.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(spec: &str) -> Paths {
        Paths {
            hive: None,
            nspawn: "/usr/bin/systemd-nspawn".into(),
            spec: spec.into(),
            state: "/var/lib/hyperhive".into(),
            run: "/run/hyperhive".into(),
            egress: EGRESS.into(),
            roots: ROOTS.into(),
        }
    }

    #[test]
    fn no_place_is_left_to_fill_in() {
        let files = files("/bin/hive".into(), &paths("/etc/hyperhive/hive.json")).unwrap();
        for file in &files {
            let left = file.text.split('@').skip(1).step_by(2);
            let names = ["hive", "nspawn", "spec", "state", "run", "egress", "roots"];
            assert!(
                left.into_iter().all(|word| !names.contains(&word)),
                "{}",
                file.text
            );
        }
        let launch = "ExecStart=/bin/hive launch --spec /etc/hyperhive/hive.json";
        assert!(files.iter().any(|file| file.text.contains(launch)));
    }

    #[test]
    fn a_path_that_would_mean_something_to_systemd_is_refused() {
        for spec in ["/etc/a b", "/etc/%i", "/etc/$X", "hive.json", "/etc/\nUser=root"] {
            assert!(files("/bin/hive".into(), &paths(spec)).is_err(), "{spec:?}");
        }
    }
}
