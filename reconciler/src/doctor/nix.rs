//! What the nix builder needs of a host.

use super::judgement::{Judgement, fail, known_unit, ok, warn};
use super::{Facts, Folder, room};
use crate::model::inventory::Known;

/// The oldest Nix that builds.
const OLDEST: (u32, u32) = (2, 8);

/// What is looked at where agents are built with Nix.
#[derive(Debug, Clone)]
pub struct Nix {
    /// What `nix` says of itself.
    pub version: Known<String>,
    /// Whether `nix-store` is beside it.
    pub nix_store: Known<()>,
    /// The oldest Nix that the declared nixpkgs can be evaluated by, as it says itself.
    pub nixpkgs_wants: Option<String>,
    /// Each path that is declared for builds: where in the spec, and whether it is there.
    pub paths: Vec<(String, Known<()>)>,
    /// Nix's daemon: whether it answers; `None`: this host has none.
    pub daemon: Option<Known<()>>,
    /// The store.
    pub store: Known<Folder>,
    /// The folder of agents' profiles.
    pub profiles: Known<Folder>,
}

/// A check: what it is called, and how it judges.
pub(super) type Check = (&'static str, fn(&Nix, &Facts) -> Judgement);

/// All checks, in the order in which they are shown.
pub(super) const CHECKS: [Check; 5] = [
    ("nix", program),
    ("nix daemon", daemon),
    ("nix inputs", inputs),
    ("nix profiles", profiles),
    ("nix store", store),
];

fn program(nix: &Nix, _: &Facts) -> Judgement {
    let put = "install Nix, and have the daemon find it: set PATH with systemctl edit hyperhive";
    let version = match &nix.version {
        Ok(version) => version,
        Err(why) => return fail(why, put),
    };
    if let Err(why) = &nix.nix_store {
        return known_unit(&Err(why.clone()), "", put);
    }
    let Some(number) = number(version) else {
        return warn(
            format!("{version:?} is no version that is known"),
            "make sure that it is Nix 2.8 or newer",
        );
    };
    let wanted = nix.nixpkgs_wants.as_deref();
    let newest = wanted.and_then(self::number).unwrap_or(OLDEST).max(OLDEST);
    if number >= newest {
        return ok(version);
    }
    let (major, minor) = newest;
    let who = if newest == OLDEST {
        "the daemon"
    } else {
        "builder.nixpkgs"
    };
    fail(
        format!("{version} is too old: {who} needs {major}.{minor}"),
        format!("install Nix {major}.{minor} or newer, or name an older nixpkgs"),
    )
}

/// The first two numbers of a version, wherever in the text it stands.
fn number(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_matches('"').split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// The user who runs the daemon, as far as it is known.
fn daemons_user(facts: &Facts) -> Option<u32> {
    let named = facts
        .containers
        .as_ref()
        .and_then(|it| it.accounts.as_ref().ok()?.daemon);
    named.or_else(|| facts.state.as_ref().ok()?.owner)
}

fn daemon(nix: &Nix, facts: &Facts) -> Judgement {
    match &nix.daemon {
        Some(Ok(())) => ok("it answers"),
        Some(Err(why)) => fail(why, "systemctl start nix-daemon.socket"),
        None => {
            let owner = nix.store.as_ref().ok().and_then(|store| store.owner);
            if owner.is_some() && owner == daemons_user(facts) {
                warn(
                    "there is none, and what evaluates an agent's module can write to the store",
                    "install the Nix daemon: systemctl enable --now nix-daemon.socket",
                )
            } else {
                fail(
                    "there is none, and the store is not the daemon's user's: nothing can be built",
                    "install the Nix daemon: systemctl enable --now nix-daemon.socket",
                )
            }
        }
    }
}

fn inputs(nix: &Nix, _: &Facts) -> Judgement {
    let missing = nix.paths.iter().filter_map(|(field, found)| {
        let why = found.as_ref().err()?;
        Some(format!("{field}: {why}"))
    });
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return ok(format!(
            "{} are there",
            super::count(nix.paths.len(), "declared path")
        ));
    }
    fail(
        missing.join("; "),
        "put them where the spec says, or change the spec; until then nothing is built from them",
    )
}

fn profiles(nix: &Nix, facts: &Facts) -> Judgement {
    let folder = match &nix.profiles {
        Ok(folder) => folder,
        Err(why) => return fail(why, "look at that folder"),
    };
    let daemon = daemons_user(facts);
    let path = &folder.path;
    let make = format!("as root: install -d -o hyperhive -g hyperhive {path}");
    match folder.owner {
        None => fail(format!("there is no {path}, where built systems are kept"), make),
        Some(owner) if daemon.is_some_and(|daemon| daemon != owner) => fail(
            format!("{path} belongs to user {owner}, and the daemon cannot write there"),
            format!("{make} && chown -Rh hyperhive:hyperhive {path}"),
        ),
        Some(_) => ok(path.as_str()),
    }
}

fn store(nix: &Nix, _: &Facts) -> Judgement {
    match &nix.store {
        Err(why) => fail(why, "install Nix"),
        Ok(store) if store.owner.is_none() => fail(format!("there is no {}", store.path), "install Nix"),
        Ok(store) => room(
            store,
            "nix-collect-garbage; min-free and max-free in nix.conf have Nix do it by itself",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_wherever_it_stands() {
        assert_eq!(number("nix (Nix) 2.8.0"), Some((2, 8)));
        assert_eq!(number("nix (Nix) 2.34.8pre1"), Some((2, 34)));
        assert_eq!(number("\"2.18\""), Some((2, 18)));
        assert_eq!(number("nix (Nix)"), None);
    }
}
