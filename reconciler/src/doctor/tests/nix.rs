//! Checks of a host that builds with Nix.

use super::super::nix::Nix;
use super::*;

fn host() -> Facts {
    Facts {
        nix: Some(Nix {
            version: Ok("nix (Nix) 2.18.1".to_owned()),
            nix_store: Ok(()),
            nixpkgs_wants: Some("2.18".to_owned()),
            paths: vec![("builder.nixpkgs".to_owned(), Ok(()))],
            daemon: Some(Ok(())),
            store: Ok(Folder {
                owner: Some(0),
                ..folder("/nix/store", 0o41775)
            }),
            profiles: Ok(folder("/nix/var/nix/profiles/hyperhive", 0o40755)),
        }),
        ..containers::host()
    }
}

fn ill(change: impl FnOnce(&mut Nix)) -> (&'static str, Level, String) {
    ill_of(host(), |facts| change(facts.nix.as_mut().expect("nix")))
}

#[test]
fn where_all_is_well_every_check_says_so() {
    all_is_well(&host());
    all_is_well(&Facts {
        containers: None,
        run: Ok(folder("/r", 0o40750)),
        ..host()
    });
}

#[test]
fn programs_are_there_and_new_enough_for_us_and_for_nixpkgs() {
    assert_eq!(ill(|n| n.version = Err("not found".to_owned())).1, Level::Fail);
    assert_eq!(ill(|n| n.nix_store = Err("not found".to_owned())).0, "nix");
    let (check, verdict, text) = ill(|n| n.version = Ok("nix (Nix) 2.8.0".to_owned()));
    assert_eq!((check, verdict), ("nix", Level::Fail));
    assert!(text.contains("builder.nixpkgs needs 2.18"), "{text}");
    let (_, _, text) = ill(|n| n.version = Ok("nix (Nix) 2.7.9".to_owned()));
    assert!(text.contains("2.18"), "{text}");
    assert_eq!(ill(|n| n.version = Ok("nix".to_owned())).1, Level::Warn);
    let mut facts = host();
    let nix = facts.nix.as_mut().expect("nix");
    (nix.version, nix.nixpkgs_wants) = (Ok("nix (Nix) 2.8.0".to_owned()), None);
    all_is_well(&facts);
    let (_, _, text) = ill_of(facts, |f| {
        f.nix.as_mut().expect("nix").version = Ok("nix (Nix) 2.3.16".to_owned());
    });
    assert!(text.contains("the daemon needs 2.8"), "{text}");
}

#[test]
fn nothing_is_evaluated_without_a_sandbox() {
    let (check, verdict, text) = ill_of(host(), |f| f.sandbox = Err("no bwrap".to_owned()));
    assert_eq!((check, verdict), ("sandbox", Level::Fail));
    assert!(text.contains("agent.nix"), "{text}");
}

#[test]
fn the_nix_daemon_answers_or_the_store_is_the_daemons_own() {
    let (check, verdict, text) = ill(|n| n.daemon = Some(Err("it does not answer".to_owned())));
    assert_eq!((check, verdict), ("nix daemon", Level::Fail));
    assert!(text.contains("nix-daemon.socket"), "{text}");
    assert_eq!(ill(|n| n.daemon = None).1, Level::Fail);
    let own = |n: &mut Nix| {
        n.daemon = None;
        n.store.as_mut().expect("known").owner = Some(5);
    };
    assert_eq!(ill(own).1, Level::Warn);
}

#[test]
fn a_declared_path_that_is_gone_is_named() {
    let (check, verdict, text) = ill(|n| n.paths[0].1 = Err("/x is not there".to_owned()));
    assert_eq!((check, verdict), ("nix inputs", Level::Fail));
    assert!(text.contains("builder.nixpkgs: /x is not there"), "{text}");
}

#[test]
fn the_profiles_are_the_daemons_and_the_store_has_room() {
    fn profiles(n: &mut Nix) -> &mut Folder {
        n.profiles.as_mut().expect("known")
    }
    let (check, verdict, text) = ill(|n| profiles(n).owner = None);
    assert_eq!((check, verdict), ("nix profiles", Level::Fail));
    assert!(text.contains("install -d -o hyperhive"), "{text}");
    assert_eq!(ill(|n| profiles(n).owner = Some(0)).0, "nix profiles");
    let (check, verdict, text) = ill(|n| n.store.as_mut().expect("known").free_bytes = 50 << 20);
    assert_eq!((check, verdict), ("nix store", Level::Fail));
    assert!(text.contains("nix-collect-garbage"), "{text}");
}
