//! What a built system shows the operator: units, programs, users and packages, and how two systems differ in them.
//!
//! A system is made by an agent's own code: its links may lead anywhere, its files may hold anything. Only what lies in
//! the store is read, a bounded part of it, and what is shown is tame.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::host::HostError;
use crate::untrusted::line;

/// The most entries of one folder that are looked at.
const MAX_ENTRIES: usize = 5000;
/// The most of one file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// The most lines of a difference.
const MAX_LINES: usize = 300;
/// The most characters of one line.
const MAX_LINE: usize = 240;
/// Where a system keeps its units.
const UNITS: &str = "etc/systemd/system";
/// What the harness's unit must say, whatever options say.
const HARNESS: (&str, [&str; 2]) = (
    "hive-harness.service",
    ["ExecStart=/config/hive-harness serve", "User=agent"],
);

/// What of a system matters for whoever approves it. Each value says enough to see that it changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Surface {
    units: BTreeMap<String, String>,
    programs: BTreeMap<String, String>,
    users: BTreeMap<String, String>,
    packages: BTreeMap<String, String>,
}

/// Checks that a built system can be started, and starts the harness.
pub(super) fn check(store: &Utf8Path, top: &Utf8Path) -> Result<(), HostError> {
    let refused = |what: &str| Err(HostError::refused("the system", what));
    let init = inside(store, &top.join("init"));
    let is_program = |file: &Utf8PathBuf| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if !init.as_ref().is_some_and(is_program) {
        return refused("it has no program `init`");
    }
    let (unit, wanted) = HARNESS;
    let text = read(store, &top.join(UNITS).join(unit)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    for wanted in wanted {
        let (key, _) = wanted.split_once('=').unwrap_or_default();
        let said: Vec<_> = text
            .lines()
            .filter(|said| said.split_once('=').is_some_and(|(found, _)| found.trim() == key))
            .collect();
        if said != [wanted] {
            let said = line(&said.join("; "), 200);
            return refused(&format!("its unit {unit} must say {wanted:?}, and says {said:?}"));
        }
    }
    Ok(())
}

impl Surface {
    /// Reads a system. `closure`: the store paths it needs.
    pub(super) fn read(store: &Utf8Path, top: &Utf8Path, closure: &[Utf8PathBuf]) -> Self {
        let units = entries(store, &top.join(UNITS))
            .into_iter()
            .map(|(name, file)| {
                let text = read(store, &file).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                (name, text)
            })
            .filter(|(_, text)| !text.is_empty());
        let programs = entries(store, &top.join("sw/bin"))
            .into_iter()
            .map(|(name, file)| (name, inside(store, &file).map(String::from).unwrap_or_default()));
        let users = closure
            .iter()
            .filter(|path| path.as_str().ends_with("-users-groups.json"))
            .filter_map(|path| serde_json::from_slice(&read(store, path)?).ok())
            .flat_map(|json: Value| accounts(&json))
            .take(MAX_ENTRIES);
        let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in closure.iter().take(10 * MAX_ENTRIES) {
            let (name, version) = package(path);
            packages.entry(name).or_default().push(version);
        }
        let packages = packages.into_iter().map(|(name, mut versions)| {
            versions.sort();
            versions.dedup();
            (name, versions.join(", "))
        });
        Self {
            units: units.collect(),
            programs: programs.collect(),
            users: users.collect(),
            packages: packages.collect(),
        }
    }

    /// How `self` differs from an earlier one, in lines for people.
    pub(super) fn since(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        changes("unit", &before.units, &self.units, unit, &mut lines);
        changes(
            "user or group",
            &before.users,
            &self.users,
            |_, new| new.to_owned(),
            &mut lines,
        );
        changes("program", &before.programs, &self.programs, program, &mut lines);
        changes("package", &before.packages, &self.packages, version, &mut lines);
        let more = lines.len().saturating_sub(MAX_LINES);
        lines.truncate(MAX_LINES);
        if more > 0 {
            lines.push(format!("and {more} differences more"));
        }
        lines
    }
}

fn changes(
    what: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    words: fn(Option<&str>, &str) -> String,
    lines: &mut Vec<String>,
) {
    let mut say = |sign: &str, name: &str, words: String| {
        let words = if words.is_empty() {
            words
        } else {
            format!(": {words}")
        };
        lines.push(line(&format!("{sign} {what} {name}{words}"), MAX_LINE));
    };
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        say("-", name, String::new());
    }
    for (name, new) in after {
        match before.get(name) {
            None => say("+", name, words(None, new)),
            Some(old) if old != new => say("~", name, words(Some(old), new)),
            Some(_) => {}
        }
    }
}

/// The lines of a unit that are new; of a whole unit those that say what runs, and as whom.
fn unit(old: Option<&str>, new: &str) -> String {
    let known: Vec<&str> = old.unwrap_or_default().lines().collect();
    let telling = ["ExecStart", "User", "Listen", "OnCalendar"];
    let lines = new.lines().filter(|text| {
        !text.trim().is_empty()
            && match old {
                Some(_) => !known.contains(text),
                None => telling.iter().any(|start| text.starts_with(start)),
            }
    });
    lines.collect::<Vec<_>>().join("; ")
}

fn program(_: Option<&str>, new: &str) -> String {
    if new.is_empty() {
        "it leads out of the store".to_owned()
    } else {
        new.to_owned()
    }
}

fn version(old: Option<&str>, new: &str) -> String {
    match old {
        Some(old) => format!("{old} -> {new}"),
        None => new.to_owned(),
    }
}

/// Name and version of a store path; the version is empty where there is none.
fn package(path: &Utf8Path) -> (String, String) {
    let base = path.file_name().unwrap_or_default();
    let name = base.split_once('-').map_or(base, |(_, name)| name);
    let begin = name
        .match_indices('-')
        .find(|(at, _)| name[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    match begin {
        Some((at, _)) => (name[..at].to_owned(), name[at + 1..].to_owned()),
        None => (name.to_owned(), String::new()),
    }
}

fn accounts(json: &Value) -> Vec<(String, String)> {
    let mut accounts = Vec::new();
    for (field, what) in [("users", "user"), ("groups", "group")] {
        for account in json.get(field).and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = account.get("name").and_then(Value::as_str) {
                accounts.push((format!("{what} {name}"), account.to_string()));
            }
        }
    }
    accounts
}

/// Where a path really leads, if that is in the store.
fn inside(store: &Utf8Path, path: &Utf8Path) -> Option<Utf8PathBuf> {
    let real = path.canonicalize_utf8().ok()?;
    let store = store.canonicalize_utf8().ok()?;
    real.starts_with(store).then_some(real)
}

fn entries(store: &Utf8Path, folder: &Utf8Path) -> Vec<(String, Utf8PathBuf)> {
    let Some(listed) = inside(store, folder).and_then(|folder| folder.read_dir_utf8().ok()) else {
        return Vec::new();
    };
    let mut entries: Vec<_> = listed
        .take(MAX_ENTRIES)
        .filter_map(Result::ok)
        .map(|entry| (entry.file_name().to_owned(), entry.path().to_owned()))
        .collect();
    entries.sort();
    entries
}

fn read(store: &Utf8Path, file: &Utf8Path) -> Option<Vec<u8>> {
    let file = inside(store, file)?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).ok()?;
    opened.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        store: Utf8PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("UTF-8");
        let store = root.join("store");
        fs::create_dir(&store).expect("a folder");
        fs::File::create(root.join("secret")).expect("a file");
        Place {
            _folder: folder,
            store,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "files of a test")]
    fn write(path: &Utf8Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    fn system(place: &Place, name: &str) -> Utf8PathBuf {
        let top = place.store.join(name);
        write(&top.join("init"), "#!/bin/sh\n");
        fs::set_permissions(top.join("init"), fs::Permissions::from_mode(0o755)).expect("made a program");
        write(
            &top.join(UNITS).join(HARNESS.0),
            "[Service]\nExecStart=/config/hive-harness serve\nUser=agent\n",
        );
        top
    }

    #[test]
    fn what_two_systems_differ_in_is_named() {
        let place = place();
        let (old, new) = (system(&place, "old"), system(&place, "new"));
        write(&old.join(UNITS).join("gone.service"), "[Service]\nExecStart=/a\n");
        write(&old.join(UNITS).join("same.service"), "[Service]\nExecStart=/a\n");
        write(
            &new.join(UNITS).join("same.service"),
            "[Service]\nExecStart=/b\x1b[2J\n",
        );
        write(
            &new.join(UNITS).join("new.service"),
            "[Service]\nExecStart=/c\nUser=root\nX=1\n",
        );
        write(&new.join("sw/bin/tool"), "");
        symlink(place.store.join("../secret"), new.join("sw/bin/leak")).expect("a link");
        let users = place.store.join("0-users-groups.json");
        write(
            &users,
            r#"{"users":[{"name":"bob","uid":0}],"groups":"nonsense"}"#,
        );
        let store = |name: &str| place.store.join(name);
        let before = Surface::read(&place.store, &old, &[store("h-wiki-1.0"), store("h-x")]);
        let after = Surface::read(&place.store, &new, &[store("h-wiki-1.1"), store("h-y-2"), users]);
        assert_eq!(
            after.since(&before),
            [
                "- unit gone.service".to_owned(),
                "+ unit new.service: ExecStart=/c; User=root".to_owned(),
                "~ unit same.service: ExecStart=/b\u{fffd}[2J".to_owned(),
                r#"+ user or group user bob: {"name":"bob","uid":0}"#.to_owned(),
                "+ program leak: it leads out of the store".to_owned(),
                format!("+ program tool: {new}/sw/bin/tool"),
                "- package x".to_owned(),
                "+ package users-groups.json".to_owned(),
                "~ package wiki: 1.0 -> 1.1".to_owned(),
                "+ package y: 2".to_owned(),
            ]
        );
        assert_eq!(after.since(&after), [""; 0]);
    }

    #[test]
    fn a_system_without_init_or_with_another_harness_is_refused() {
        let place = place();
        let top = system(&place, "good");
        check(&place.store, &top).expect("it is good");
        let unit = top.join(UNITS).join(HARNESS.0);
        for text in [
            "",
            "ExecStart=/config/hive-harness serve\n",
            "ExecStart=/config/hive-harness serve\nUser=root\n",
            "ExecStart=/config/hive-harness serve\nUser=agent\nUser=root\n",
            "ExecStart=\nExecStart=/config/hive-harness serve\nUser=agent\n",
            "ExecStart=/bin/sh\nUser=agent\n",
        ] {
            write(&unit, text);
            let error = check(&place.store, &top).expect_err(text);
            assert!(
                error.chain().contains("hive-harness.service"),
                "{}",
                error.chain()
            );
        }
        fs::remove_file(top.join("init")).expect("removed");
        symlink("/bin/sh", top.join("init")).expect("a link");
        let error = check(&place.store, &top).expect_err("init leads out of the store");
        assert!(error.chain().contains("init"), "{}", error.chain());
    }

    #[test]
    fn a_difference_is_bounded() {
        let many = |count: usize| Surface {
            packages: (0..count)
                .map(|n| (format!("p{n}"), "x".repeat(10_000)))
                .collect(),
            ..Surface::default()
        };
        let lines = many(1000).since(&many(0));
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert!(lines.iter().all(|text| text.chars().count() <= MAX_LINE + 1));
        assert_eq!(lines[MAX_LINES], "and 700 differences more");
    }
}
