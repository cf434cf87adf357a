//! An agent's generations: links that keep systems, and what their configs name, from the garbage collector.
//!
//! ```text
//! <profiles>/<agent>/system-3-link        -> <store>/…-nixos-system-alice
//! <profiles>/<agent>/config-3-link[-N]    -> a store path that the effective config names
//! <profiles>/<agent>/system               -> system-3-link, what is deployed
//! <state>/systems/<digest>/toplevel       -> <profiles>/<agent>/system-3-link
//! ```

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use camino::{Utf8Path, Utf8PathBuf};

use crate::host::HostError;

/// How many of the newest generations are kept, besides those that somebody needs.
const KEPT: usize = 5;
/// The link in a system's folder.
const LINK: &str = "toplevel";

/// The generations of one agent.
pub(super) struct Generations {
    folder: Utf8PathBuf,
}

impl Generations {
    /// Makes their folder when there is none.
    pub(super) fn open(folder: Utf8PathBuf) -> Result<Self, HostError> {
        std::fs::create_dir_all(&folder).map_err(HostError::io("make", folder.as_str()))?;
        Ok(Self { folder })
    }

    pub(super) fn system_link(&self, number: u64) -> Utf8PathBuf {
        self.folder.join(format!("system-{number}-link"))
    }

    pub(super) fn config_link(&self, number: u64) -> Utf8PathBuf {
        self.folder.join(format!("config-{number}-link"))
    }

    /// The number that no generation had yet, as far as anybody knows.
    pub(super) fn next(&self) -> Result<u64, HostError> {
        Ok(self.numbers()?.last().map_or(1, |last| last + 1))
    }

    fn names(&self) -> Result<Vec<String>, HostError> {
        let failed = || HostError::io("list", self.folder.as_str());
        let entries = self.folder.read_dir_utf8().map_err(failed())?;
        entries
            .map(|entry| entry.map(|entry| entry.file_name().to_owned()).map_err(failed()))
            .collect()
    }

    fn numbers(&self) -> Result<BTreeSet<u64>, HostError> {
        Ok(self.names()?.iter().filter_map(|name| number(name)).collect())
    }

    /// Deletes the links of all but the newest generations, those of `systems`, and the deployed one. `systems` are
    /// folders of systems; links of others may lead nowhere afterwards, which is how one sees that they are gone.
    pub(super) fn retain(&self, systems: &[Utf8PathBuf]) -> Result<(), HostError> {
        let needed: BTreeSet<u64> = systems
            .iter()
            .filter_map(|system| system.join(LINK).read_link_utf8().ok())
            .filter(|link| link.parent() == Some(&self.folder))
            .filter_map(|link| number(link.file_name()?))
            .collect();
        let newest: BTreeSet<u64> = self.numbers()?.into_iter().rev().take(KEPT).collect();
        for name in self.names()? {
            let is_kept = |n| needed.contains(&n) || newest.contains(&n);
            if number(&name).is_some_and(|n| !is_kept(n)) {
                let link = self.folder.join(name);
                std::fs::remove_file(&link).map_err(HostError::io("remove", link.as_str()))?;
            }
        }
        Ok(())
    }

    /// Makes `system`, a folder of a system, the one that the profile names.
    pub(super) fn deploy(&self, system: &Utf8Path) -> Result<(), HostError> {
        let Ok(link) = system.join(LINK).read_link_utf8() else {
            return Ok(());
        };
        let Some(name) = link.file_name().filter(|_| link.parent() == Some(&self.folder)) else {
            return Ok(());
        };
        replace(Utf8Path::new(name), &self.folder.join("system"))
    }
}

/// The number in `system-3-link` or `config-3-link-2`.
fn number(name: &str) -> Option<u64> {
    let rest = name
        .strip_prefix("system-")
        .or_else(|| name.strip_prefix("config-"))?;
    let (number, rest) = rest.split_once("-link")?;
    (rest.is_empty() || rest.starts_with('-')).then_some(())?;
    number.parse().ok()
}

/// Puts the link into a system's folder that leads to its generation.
pub(super) fn link(system: &Utf8Path, generation: &Utf8Path) -> Result<(), HostError> {
    replace(generation, &system.join(LINK))
}

/// Whether a system's folder leads to a system that is there. One without a link needs none.
pub(super) fn is_there(system: &Utf8Path) -> Result<bool, HostError> {
    let link = system.join(LINK);
    match link.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(HostError::io("look at", link.as_str())(error)),
        Ok(_) => link.try_exists().map_err(HostError::io("look at", link.as_str())),
    }
}

fn replace(target: &Utf8Path, link: &Utf8Path) -> Result<(), HostError> {
    if link.read_link_utf8().is_ok_and(|found| found == target) {
        return Ok(());
    }
    let draft = link.with_file_name(format!(".{}.draft", link.file_name().unwrap_or_default()));
    let failed = || HostError::io("link", link.as_str());
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    symlink(target, &draft).map_err(failed())?;
    std::fs::rename(&draft, link).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        root: Utf8PathBuf,
        generations: Generations,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("UTF-8");
        let generations = Generations::open(root.join("profiles/alice")).expect("a folder");
        Place {
            _folder: folder,
            root,
            generations,
        }
    }

    fn system(place: &Place, number: u64) -> Utf8PathBuf {
        let (store, system) = (
            place.root.join(format!("store-{number}")),
            place.root.join(format!("system{number}")),
        );
        for folder in [&store, &system] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        let generation = place.generations.system_link(number);
        symlink(&store, &generation).expect("a link");
        symlink(&store, place.generations.config_link(number)).expect("a link");
        let more = format!("{}-2", place.generations.config_link(number));
        symlink(&store, more).expect("a link");
        link(&system, &generation).expect("linked");
        system
    }

    #[test]
    fn the_newest_and_the_needed_are_kept() {
        let place = place();
        let systems: Vec<_> = (1..=12).map(|number| system(&place, number)).collect();
        place
            .generations
            .retain(&[systems[1].clone(), systems[11].clone()])
            .expect("retained");
        let numbers: Vec<_> = place.generations.numbers().expect("listed").into_iter().collect();
        assert_eq!(numbers, [2, 8, 9, 10, 11, 12]);
        assert_eq!(
            place.generations.names().expect("listed").len(),
            3 * 6,
            "links of configs go too"
        );
        assert!(is_there(&systems[1]).expect("looked"));
        assert!(!is_there(&systems[0]).expect("looked"), "its link leads nowhere");
        assert_eq!(place.generations.next().expect("a number"), 13);
    }

    #[test]
    fn a_number_is_not_mistaken_for_another() {
        assert_eq!(number("config-1-link-12"), Some(1));
        assert_eq!(number("config-12-link"), Some(12));
        for name in [
            "system",
            "system-link",
            "config-1-linked",
            "system-x-link",
            "other-1-link",
        ] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn a_system_whose_store_path_vanished_is_not_there() {
        let place = place();
        let system = system(&place, 1);
        std::fs::remove_dir(place.root.join("store-1")).expect("removed");
        assert!(!is_there(&system).expect("looked"));
        std::fs::remove_file(system.join(LINK)).expect("removed");
        assert!(!is_there(&system).expect("looked"));
    }

    #[test]
    fn the_profile_names_what_is_deployed() {
        let place = place();
        let systems: Vec<_> = (1..=2).map(|number| system(&place, number)).collect();
        for number in [1, 0] {
            place.generations.deploy(&systems[number]).expect("deployed");
            let named = place
                .root
                .join("profiles/alice/system")
                .read_link_utf8()
                .expect("a link");
            assert_eq!(named, format!("system-{}-link", number + 1));
        }
    }
}
