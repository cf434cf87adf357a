//! The files that systemd and polkit need: rendered here, so that the NixOS module, other hosts and the tests have the same.

use camino::Utf8PathBuf;

use super::{EGRESS, EVALUATIONS, ROOTS};

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

impl Default for Paths {
    fn default() -> Self {
        Self {
            hive: None,
            nspawn: "/usr/bin/systemd-nspawn".into(),
            spec: "/etc/hyperhive/hive.json".into(),
            state: "/var/lib/hyperhive".into(),
            run: "/run/hyperhive".into(),
            egress: EGRESS.into(),
            roots: ROOTS.into(),
        }
    }
}

impl Paths {
    fn named(&mut self) -> [(&'static str, &mut Utf8PathBuf); 6] {
        [
            ("--nspawn", &mut self.nspawn),
            ("--spec", &mut self.spec),
            ("--state", &mut self.state),
            ("--run", &mut self.run),
            ("--egress", &mut self.egress),
            ("--roots", &mut self.roots),
        ]
    }

    /// The command that installs the files for these paths.
    pub fn install(&self) -> String {
        let mut command = "hive units --install".to_owned();
        let (mut usual, mut these) = (Self::default(), self.clone());
        for ((_, usual), (flag, path)) in usual.named().into_iter().zip(these.named()) {
            if usual != path {
                command.push_str(&format!(" {flag} {path}"));
            }
        }
        command
    }

    /// What an agent's unit was rendered with; `None`: it was not rendered by [`files`].
    pub fn of_agents_unit(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
        let mut words = line.split_whitespace();
        let mut paths = Self {
            hive: words.next().map(Utf8PathBuf::from),
            ..Self::default()
        };
        if words.next() != Some("launch") {
            return None;
        }
        while let Some(word) = words.next() {
            for (flag, path) in paths.named() {
                if flag == word {
                    *path = words.next()?.into();
                }
            }
        }
        Some(paths)
    }
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

impl File {
    /// Where a host may have it, the place that counts most first.
    pub fn places(&self) -> Vec<Utf8PathBuf> {
        let place = self.place;
        // Rules are for every package below /usr/share, the others below /usr/lib.
        let shipped = if place.starts_with("polkit") {
            "share"
        } else {
            "lib"
        };
        [
            "/etc".to_owned(),
            "/run".to_owned(),
            format!("/usr/local/{shipped}"),
            format!("/usr/{shipped}"),
        ]
        .into_iter()
        .map(|base| Utf8PathBuf::from(base).join(place))
        .collect()
    }

    /// The first line in which a text is another than this one, for a person; `None`: it is the same.
    pub fn first_difference(&self, installed: &str) -> Option<String> {
        if installed == self.text {
            return None;
        }
        let (mut ours, mut theirs) = (self.text.lines(), installed.lines());
        for number in 1_usize.. {
            match (ours.next(), theirs.next()) {
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (None, None) => break,
                (_, Some(theirs)) if !theirs.trim().is_empty() => {
                    return Some(format!("line {number}: {}", crate::untrusted::line(theirs, 100)));
                }
                (ours, _) => {
                    let ours = crate::untrusted::line(ours.unwrap_or_default(), 100);
                    return Some(format!("line {number} lacks: {ours}"));
                }
            }
        }
        Some("its line ends".to_owned())
    }
}

/// The place of the file that agents' units are made from, below `/etc`.
pub const AGENT_UNIT: &str = "systemd/system/hyperhive-agent@.service";
/// The place of the file that makes the users.
pub const USERS: &str = "sysusers.d/hyperhive.conf";

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
    let eval = Utf8PathBuf::from(EVALUATIONS);
    let places = [
        ("@eval@", &eval),
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
        (AGENT_UNIT, include_str!("units/agent.service")),
        (
            "systemd/system/hyperhive-egress.service",
            include_str!("units/egress.service"),
        ),
        (
            "systemd/system/hyperhive-purge@.service",
            include_str!("units/purge.service"),
        ),
        (
            "systemd/system/hyperhive-eval@.service",
            include_str!("units/eval.service"),
        ),
        (
            "polkit-1/rules.d/50-hyperhive.rules",
            include_str!("units/hyperhive.rules"),
        ),
        (USERS, include_str!("units/sysusers.conf")),
        ("tmpfiles.d/hyperhive.conf", include_str!("units/tmpfiles.conf")),
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
            spec: spec.into(),
            ..Paths::default()
        }
    }

    fn agents_unit(paths: &Paths) -> File {
        let files = files("/bin/hive".into(), paths).unwrap();
        files.into_iter().find(|file| file.place == AGENT_UNIT).unwrap()
    }

    #[test]
    fn an_installed_unit_says_what_it_was_rendered_with_and_how_to_render_it_again() {
        let mut paths = paths("/srv/hive.json");
        paths.roots = "/srv/roots".into();
        let text = agents_unit(&paths).text;
        let read = Paths::of_agents_unit(&text).unwrap();
        assert_eq!(read.hive.as_deref(), Some("/bin/hive".into()));
        assert_eq!(
            read.install(),
            "hive units --install --spec /srv/hive.json --roots /srv/roots"
        );
        assert_eq!(agents_unit(&read).text, text);
        assert_eq!(Paths::default().install(), "hive units --install");
        for other in [
            "",
            "[Service]\nExecStart=/bin/sleep 1\n",
            "ExecStart=/bin/hive launch --spec",
        ] {
            assert!(Paths::of_agents_unit(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_first_line_that_differs_is_named() {
        let file = agents_unit(&Paths::default());
        let text = file.text.as_str();
        assert_eq!(file.first_difference(text), None);
        let loose = text.replace("DevicePolicy=closed", "DevicePolicy=auto");
        assert!(
            file.first_difference(&loose)
                .unwrap()
                .ends_with(": DevicePolicy=auto")
        );
        let more = format!("{text}User=root\n");
        assert!(file.first_difference(&more).unwrap().ends_with(": User=root"));
        let less = text.replace("UMask=0022\n", "");
        assert!(
            file.first_difference(&less)
                .unwrap()
                .ends_with(" lacks: UMask=0022")
        );
        assert!(file.first_difference(text.trim_end()).is_some());
    }

    #[test]
    fn a_file_is_looked_for_where_a_host_may_have_it() {
        for file in files("/bin/hive".into(), &Paths::default()).unwrap() {
            let places = file.places();
            assert_eq!(places[0], format!("/etc/{}", file.place));
            let rule = file.place.starts_with("polkit");
            assert!(places[3].starts_with(if rule { "/usr/share" } else { "/usr/lib" }));
        }
    }

    #[test]
    fn no_place_is_left_to_fill_in() {
        let files = files("/bin/hive".into(), &paths("/etc/hyperhive/hive.json")).unwrap();
        for file in &files {
            let left = file.text.split('@').skip(1).step_by(2);
            let names = [
                "eval", "hive", "nspawn", "spec", "state", "run", "egress", "roots",
            ];
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
