use std::fs::{File, create_dir, create_dir_all, remove_dir_all, remove_file, rename};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::*;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    root: Utf8PathBuf,
    calls: Receiver<()>,
    _watcher: SpecWatcher,
    _guard: tempfile::TempDir,
}

/// A watched `spec`, a path below a folder that `set_up` filled.
fn world(spec: &str, set_up: impl FnOnce(&Path)) -> World {
    let guard = tempfile::tempdir().expect("temp dir");
    let root = Utf8PathBuf::from_path_buf(guard.path().canonicalize().expect("root")).expect("UTF-8");
    set_up(root.as_std_path());
    let (sender, calls) = channel();
    let watcher = watch(root.join(spec), move || {
        // The world may be gone already.
        let _gone = sender.send(());
    })
    .expect("watch");
    World {
        root,
        calls,
        _watcher: watcher,
        _guard: guard,
    }
}

fn put(path: impl AsRef<Path>, text: &str) {
    File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("write");
}

fn swap_link(target: impl AsRef<Path>, link: impl AsRef<Path>) {
    let next = link.as_ref().with_extension("next");
    symlink(target, &next).expect("link");
    rename(&next, link).expect("swap");
}

impl World {
    /// Waits for a call after which the file says `text`; without, until it is gone.
    fn sees(&self, spec: &str, text: Option<&str>) {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.calls.recv_timeout(left) {
                Ok(()) => {
                    if std::fs::read_to_string(self.root.join(spec)).ok().as_deref() == text {
                        return;
                    }
                }
                Err(error) => panic!("no call told of {text:?}: {error}"),
            }
        }
    }
}

/// What a NixOS host has: two generations in a store, `etc/static` a link to one, `etc/hive.json` a link through it.
fn nixos(root: &Path) {
    for generation in ["1", "2"] {
        create_dir_all(root.join("store").join(generation)).expect("store");
        put(root.join("store").join(generation).join("hive.json"), generation);
    }
    create_dir(root.join("etc")).expect("etc");
    symlink(root.join("store/1"), root.join("etc/static")).expect("link");
    symlink("static/hive.json", root.join("etc/hive.json")).expect("link");
}

#[test]
fn a_rewritten_file_is_noticed() {
    let world = world("hive.json", |root| put(root.join("hive.json"), "1"));
    put(world.root.join("hive.json"), "2");
    world.sees("hive.json", Some("2"));
}

#[test]
fn a_file_replaced_by_rename_is_noticed_every_time() {
    let world = world("hive.json", |root| put(root.join("hive.json"), "0"));
    for text in ["1", "2", "3"] {
        put(world.root.join("next"), text);
        rename(world.root.join("next"), world.root.join("hive.json")).expect("rename");
        world.sees("hive.json", Some(text));
    }
}

#[test]
fn a_swapped_link_is_followed() {
    let world = world("etc/hive.json", nixos);
    swap_link(
        world.root.join("store/2/hive.json"),
        world.root.join("etc/hive.json"),
    );
    world.sees("etc/hive.json", Some("2"));
    // The file behind the new link is watched as well as the link.
    put(world.root.join("store/2/hive.json"), "3");
    world.sees("etc/hive.json", Some("3"));
}

#[test]
fn a_swapped_link_in_the_middle_of_the_way_is_followed() {
    let world = world("etc/hive.json", nixos);
    for text in ["2", "1", "2"] {
        swap_link(world.root.join("store").join(text), world.root.join("etc/static"));
        world.sees("etc/hive.json", Some(text));
    }
}

#[test]
fn a_file_that_vanishes_and_comes_back_is_noticed() {
    let world = world("etc/hive.json", nixos);
    remove_file(world.root.join("store/1/hive.json")).expect("remove");
    world.sees("etc/hive.json", None);
    put(world.root.join("store/1/hive.json"), "back");
    world.sees("etc/hive.json", Some("back"));
}

#[test]
fn folders_that_vanish_and_come_back_are_noticed() {
    let world = world("a/b/hive.json", |root| {
        create_dir_all(root.join("a/b")).expect("folders");
        put(root.join("a/b/hive.json"), "1");
    });
    remove_dir_all(world.root.join("a")).expect("remove");
    world.sees("a/b/hive.json", None);
    create_dir_all(world.root.join("a/b")).expect("folders");
    put(world.root.join("a/b/hive.json"), "2");
    world.sees("a/b/hive.json", Some("2"));
}

#[test]
fn a_file_that_was_never_there_is_waited_for() {
    let world = world("a/b/hive.json", |_| {});
    create_dir_all(world.root.join("a/b")).expect("folders");
    put(world.root.join("a/b/hive.json"), "1");
    world.sees("a/b/hive.json", Some("1"));
}

#[test]
fn a_folder_far_above_that_is_exchanged_is_noticed() {
    let world = world("a/b/c/hive.json", |root| {
        for top in ["a", "next"] {
            create_dir_all(root.join(top).join("b/c")).expect("folders");
            put(root.join(top).join("b/c/hive.json"), top);
        }
    });
    rename(world.root.join("a"), world.root.join("old")).expect("away");
    rename(world.root.join("next"), world.root.join("a")).expect("in its place");
    world.sees("a/b/c/hive.json", Some("next"));
}

#[test]
fn neighbours_and_readers_do_not_concern_it() {
    let guard = tempfile::tempdir().expect("temp dir");
    let root = guard.path().canonicalize().expect("root");
    nixos(&root);
    let armed = Armed::new(root.join("etc/hive.json")).expect("arm");
    for folder in ["", "etc", "store", "store/1"] {
        put(root.join(folder).join("other"), "x");
        rename(root.join(folder).join("other"), root.join(folder).join("another")).expect("rename");
    }
    std::fs::read(root.join("etc/hive.json")).expect("read");
    std::fs::read_dir(root.join("etc")).expect("list");
    // The kernel queues events before the call that causes them returns.
    assert!(!armed.concerns_us().expect("events"));
    put(root.join("etc/hive.json"), "x");
    assert!(armed.concerns_us().expect("events"));
}

#[test]
fn what_is_no_longer_on_the_way_is_no_longer_watched() {
    let guard = tempfile::tempdir().expect("temp dir");
    let root = guard.path().canonicalize().expect("root");
    nixos(&root);
    let mut armed = Armed::new(root.join("etc/hive.json")).expect("arm");
    let watched = armed.watches.len();
    for generation in ["2", "1", "2"] {
        swap_link(root.join("store").join(generation), root.join("etc/static"));
        assert!(armed.concerns_us().expect("events"));
        armed.arm().expect("arm");
        assert_eq!(armed.watches.len(), watched);
        // Removing a watch is an event too, and none of ours.
        assert!(!armed.concerns_us().expect("events"));
    }
    put(root.join("store/1/hive.json"), "x");
    assert!(!armed.concerns_us().expect("events"));
}

#[test]
fn a_storm_of_changes_ends_with_a_call_that_sees_the_last() {
    let world = world("hive.json", |root| put(root.join("hive.json"), "0"));
    for i in 1..=2000 {
        put(world.root.join("next"), &i.to_string());
        rename(world.root.join("next"), world.root.join("hive.json")).expect("rename");
    }
    world.sees("hive.json", Some("2000"));
}

#[test]
fn dropping_the_watcher_ends_its_thread() {
    let guard = tempfile::tempdir().expect("temp dir");
    let root = Utf8PathBuf::from_path_buf(guard.path().to_owned()).expect("UTF-8");
    let (sender, calls) = channel::<()>();
    let watcher = watch(root.join("hive.json"), move || {
        let _gone = sender.send(());
    })
    .expect("watch");
    drop(watcher);
    // The thread owned the sender.
    assert_eq!(calls.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
}
