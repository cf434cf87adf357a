//! Checks of a host whose agents run in containers.

use super::super::containers::{
    Accounts, Cgroups, Containers, FileState, Guarded, Installed, InstalledFile, Machine, Place, Systemd,
    Taken, Unit,
};
use super::*;

fn unit(active: &str) -> Unit {
    Unit {
        load: "loaded".to_owned(),
        active: active.to_owned(),
        enabled: "enabled".to_owned(),
        ..Unit::default()
    }
}

fn file(path: &str) -> InstalledFile {
    InstalledFile {
        path: path.into(),
        needed: true,
        state: Ok(FileState::Same),
    }
}

fn place(path: &str, mode: u32) -> Place {
    Place {
        path: path.into(),
        owner: 0,
        mode,
    }
}

fn containers_well() -> Containers {
    Containers {
        agents: 2,
        limited: Vec::new(),
        installed: Ok(Installed {
            files: vec![
                file("/etc/systemd/system/hyperhive.service"),
                file("/etc/p.rules"),
            ],
            command: "hive units --install".to_owned(),
            elsewhere: Vec::new(),
            hive: "/bin/hive".into(),
            own: "/bin/hive".into(),
            missing: Vec::new(),
        }),
        systemd: Ok(Systemd {
            version: "252.39-1~deb12u1".to_owned(),
            agent: unit("inactive"),
            daemon: unit("active"),
            egress: unit("active"),
            stale: Vec::new(),
        }),
        machines: Ok(vec![Machine {
            name: "hive-alice".to_owned(),
            shift: Some(0x7000_0000),
        }]),
        polkit: Ok(Some(true)),
        accounts: Ok(Accounts {
            daemon: Some(5),
            egress: Some(7),
            missing_groups: Vec::new(),
        }),
        spec_file: Ok(Guarded {
            file: place("/etc/hyperhive/hive.json", 0o100_644),
            folders: vec![place("/etc/hyperhive", 0o40755)],
        }),
        taken: Ok(vec![Taken {
            whose: "bob in /etc/subuid".to_owned(),
            first: 100_000,
            count: 65536,
        }]),
        inotify_instances: Ok(128),
        cgroups: Ok(Cgroups {
            version: 2,
            controllers: ["cpu", "io", "memory", "pids"].map(str::to_owned).into(),
        }),
        roots: Ok(Folder {
            owner: Some(0),
            ..folder("/roots", 0o40700)
        }),
    }
}

/// A host on which all is well, and root looks.
pub(super) fn host() -> Facts {
    Facts {
        user: 0,
        containers: Some(containers_well()),
        run: Ok(folder("/r", 0o40755)),
        ..well()
    }
}

fn ill(change: impl FnOnce(&mut Containers)) -> (&'static str, Level, String) {
    ill_of(host(), |facts| {
        change(facts.containers.as_mut().expect("containers"));
    })
}

fn installed(containers: &mut Containers) -> &mut Installed {
    containers.installed.as_mut().expect("known")
}

fn systemd(containers: &mut Containers) -> &mut Systemd {
    containers.systemd.as_mut().expect("known")
}

#[test]
fn where_all_is_well_every_check_says_so() {
    all_is_well(&host());
    all_is_well(&Facts {
        sandbox: Err("no bwrap, and none is needed".to_owned()),
        ..host()
    });
}

#[test]
fn a_file_that_is_missing_or_another_is_named_with_the_command_that_mends_it() {
    let (check, verdict, text) = ill(|c| installed(c).files[1].state = Ok(FileState::Missing));
    assert_eq!((check, verdict), ("unit files", Level::Fail));
    assert!(
        text.contains("/etc/p.rules") && text.contains("hive units --install &&"),
        "{text}"
    );
    let line = "line 9: User=root".to_owned();
    let (check, verdict, text) = ill(|c| installed(c).files[0].state = Ok(FileState::Differs(line)));
    assert_eq!((check, verdict), ("unit files", Level::Warn));
    assert!(text.contains("hyperhive.service (line 9: User=root)"), "{text}");
    assert!(text.contains("systemctl daemon-reload"), "{text}");
    let (check, _, text) = ill(|c| installed(c).elsewhere.push("--state /srv/s".to_owned()));
    assert_eq!(check, "unit files");
    assert!(text.contains("hive doctor --state /srv/s"), "{text}");
}

#[test]
fn a_file_that_is_not_needed_or_not_readable_is_no_fault() {
    let mut facts = host();
    let files = &mut installed(facts.containers.as_mut().expect("containers")).files;
    files[0].needed = false;
    files[0].state = Ok(FileState::Missing);
    files[1].state = Err("/etc/p.rules (permission denied)".to_owned());
    assert!(examine(&facts).iter().all(|finding| finding.verdict == Level::Ok));
}

#[test]
fn units_that_start_nothing_or_another_program_are_named() {
    let (check, verdict, text) = ill(|c| installed(c).missing.push("/gone/hive".into()));
    assert_eq!((check, verdict), ("unit programs", Level::Fail));
    assert!(text.contains("/gone/hive"), "{text}");
    let (check, verdict, text) = ill(|c| installed(c).hive = "/old/hive".into());
    assert_eq!((check, verdict), ("unit programs", Level::Warn));
    assert!(text.contains("/old/hive"), "{text}");
}

#[test]
fn systemd_is_there_new_enough_and_has_read_the_units() {
    assert_eq!(ill(|c| c.systemd = Err("no bus".to_owned())).0, "systemd");
    let (check, verdict, text) = ill(|c| systemd(c).version = "249.11".to_owned());
    assert_eq!((check, verdict), ("systemd", Level::Fail));
    assert!(text.contains("systemd 252"), "{text}");
    assert_eq!(ill(|c| systemd(c).version = "next".to_owned()).1, Level::Warn);
    for load in ["not-found", "bad-setting", "masked"] {
        let (check, verdict, text) = ill(|c| systemd(c).agent.load = load.to_owned());
        assert_eq!((check, verdict), ("loaded units", Level::Fail));
        assert!(text.contains("hyperhive-agent@.service"), "{text}");
    }
    let (check, verdict, text) = ill(|c| systemd(c).stale.push("hyperhive-agent@alice.service".to_owned()));
    assert_eq!((check, verdict), ("loaded units", Level::Warn));
    assert!(
        text.contains("hyperhive-agent@alice.service: systemctl daemon-reload"),
        "{text}"
    );
}

#[test]
fn a_service_that_does_not_start_with_the_host_is_named_if_it_is_needed() {
    let (check, verdict, text) = ill(|c| systemd(c).daemon.enabled = "disabled".to_owned());
    assert_eq!((check, verdict), ("start of the host", Level::Warn));
    assert!(text.contains("systemctl enable --now hyperhive"), "{text}");
    let mut facts = host();
    systemd(facts.containers.as_mut().expect("containers"))
        .egress
        .enabled = "disabled".to_owned();
    all_is_well(&facts);
    facts.egress = Some(egress::egress_well());
    assert_eq!(ill_of(facts, |_| {}).0, "start of the host");
}

#[test]
fn the_users_are_there_and_the_state_is_the_daemons() {
    let accounts =
        |c: &mut Containers, change: fn(&mut Accounts)| change(c.accounts.as_mut().expect("known"));
    for (change, who) in [
        ((|a| a.egress = None) as fn(&mut Accounts), "user hive-egress"),
        (|a| a.daemon = None, "user hyperhive"),
        (|a| a.missing_groups.push("systemd-journal"), "systemd-journal"),
    ] {
        let (check, verdict, text) = ill(|c| accounts(c, change));
        assert_eq!((check, verdict), ("users", Level::Fail));
        assert!(text.contains(who), "{text}");
    }
    let (check, _, text) = ill(|c| accounts(c, |a| a.daemon = Some(999)));
    assert_eq!(check, "users");
    assert!(text.contains("chown"), "{text}");
}

#[test]
fn polkit_answers_and_lets_the_daemon_start_agents() {
    assert_eq!(ill(|c| c.polkit = Err("not there".to_owned())).1, Level::Fail);
    let (check, verdict, text) = ill(|c| c.polkit = Ok(Some(false)));
    assert_eq!((check, verdict), ("polkit", Level::Fail));
    assert!(text.contains("hive units --install"), "{text}");
    let mut facts = host();
    facts.containers.as_mut().expect("containers").polkit = Ok(None);
    all_is_well(&facts);
}

#[test]
fn the_spec_is_roots_and_the_daemon_can_read_it() {
    fn guarded(c: &mut Containers) -> &mut Guarded {
        c.spec_file.as_mut().expect("known")
    }
    for change in [
        (|g| g.file.owner = 5) as fn(&mut Guarded),
        |g| g.file.mode = 0o100_664,
        |g| g.file.mode = 0o100_600,
        |g| g.folders[0].owner = 5,
        |g| g.folders[0].mode = 0o40775,
        |g| g.folders[0].mode = 0o40700,
    ] {
        let (check, verdict, text) = ill(|c| change(guarded(c)));
        assert_eq!((check, verdict), ("spec file", Level::Fail));
        assert!(text.contains("ch") && text.contains("/etc/hyperhive"), "{text}");
    }
    let mut facts = host();
    // As the Nix store is.
    guarded(facts.containers.as_mut().expect("containers")).folders[0].mode = 0o41775;
    all_is_well(&facts);
}

#[test]
fn user_ids_of_agents_are_nobody_elses() {
    let taken = |c: &mut Containers, first, count| {
        let whose = "bob in /etc/subuid".to_owned();
        c.taken
            .as_mut()
            .expect("known")
            .push(Taken { whose, first, count });
    };
    for (first, count) in [
        (0x7000_0000, 1),
        (0x6fff_ffff, 2),
        (0x7ffd_ffff, 1),
        (0, u64::MAX),
    ] {
        let (check, verdict, text) = ill(|c| taken(c, first, count));
        assert_eq!((check, verdict), ("user ids", Level::Fail));
        assert!(text.contains("bob"), "{text}");
    }
    let mut facts = host();
    let containers = facts.containers.as_mut().expect("containers");
    taken(containers, 0x6fff_ffff, 1);
    taken(containers, 0x7ffe_0000, 65536);
    all_is_well(&facts);
    let (check, _, text) = ill(|c| {
        c.machines.as_mut().expect("known").push(Machine {
            name: "web".to_owned(),
            shift: Some(0x7000_0000),
        });
    });
    assert_eq!(
        (check, text.contains("machine web")),
        ("user ids", true),
        "{text}"
    );
}

#[test]
fn there_are_inotify_instances_for_every_declared_agent() {
    let verdict = |agents, there| {
        let (check, verdict, text) = ill(|c| (c.agents, c.inotify_instances) = (agents, Ok(there)));
        assert_eq!(check, "inotify instances");
        assert!(
            text.contains("sysctl fs.inotify.max_user_instances=1024"),
            "{text}"
        );
        verdict
    };
    assert_eq!(verdict(22, 128), Level::Fail);
    assert_eq!(verdict(21, 128), Level::Warn);
    assert_eq!(verdict(17, 128), Level::Warn);
    let mut facts = host();
    facts.containers.as_mut().expect("containers").agents = 16;
    all_is_well(&facts);
}

#[test]
fn a_controller_that_is_missing_is_worse_when_a_limit_needs_it() {
    fn without(c: &mut Containers, controller: &str) {
        c.cgroups.as_mut().expect("known").controllers.remove(controller);
    }
    assert_eq!(ill(|c| without(c, "pids")).1, Level::Warn);
    let (check, verdict, text) = ill(|c| {
        without(c, "memory");
        c.limited.push(("memory", name("alice")));
    });
    assert_eq!((check, verdict), ("control groups", Level::Fail));
    assert!(text.contains("the limit of alice"), "{text}");
    assert_eq!(ill(|c| c.cgroups = Err("none".to_owned())).0, "control groups");
}

#[test]
fn containers_have_machined_and_a_folder_of_roots_and_none_is_unknown() {
    fn roots(c: &mut Containers) -> &mut Folder {
        c.roots.as_mut().expect("known")
    }
    assert_eq!(ill(|c| c.machines = Err("not there".to_owned())).0, "containers");
    for change in [
        (|f| f.mode = 0o40755) as fn(&mut Folder),
        |f| f.owner = Some(5),
        |f| f.read_only = true,
        |f| f.file_system = "nfs".to_owned(),
    ] {
        let (check, verdict, _) = ill(|c| change(roots(c)));
        assert_eq!((check, verdict), ("containers", Level::Fail));
    }
    assert_eq!(ill(|c| roots(c).free_bytes = 500 << 20).0, "space");
    let (check, verdict, text) =
        ill(|c| c.machines.as_mut().expect("known")[0].name = "hive-mallory".to_owned());
    assert_eq!((check, verdict), ("containers", Level::Warn));
    assert!(text.contains("mallory"), "{text}");
}

#[test]
fn the_run_folder_is_open_to_the_egress_service_and_shut_to_writers() {
    let (check, verdict, text) = ill_of(host(), |f| f.run.as_mut().expect("known").mode = 0o40777);
    assert_eq!((check, verdict), ("run folder", Level::Fail));
    assert!(text.contains("chmod 755"), "{text}");
}

#[test]
fn secrets_are_looked_at_by_root_who_hands_them_over() {
    let mut facts = host();
    facts.secrets[0].1 = Err("it cannot be read".to_owned());
    assert_eq!(ill_of(facts.clone(), |_| {}).0, "secrets");
    facts.user = 5;
    all_is_well(&facts);
}
