use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use camino::Utf8Path;

use super::*;
use crate::children::Children;
use crate::driver::files;
use crate::driver::program::OwnServer;
use crate::secrets::Secrets;

fn settings(program: Option<&Utf8Path>, path: &Utf8Path) -> Settings {
    Settings {
        claude: program.map(Utf8Path::to_owned),
        environment: [("PATH".to_owned(), path.as_str().into())].into(),
        secrets: Secrets::default(),
        own_server: OwnServer {
            program: "/nonexistent".into(),
            args: Vec::new(),
        },
        ways: crate::relay::Ways::default(),
        silence: Duration::from_secs(60),
        grace: Duration::from_secs(10),
    }
}

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8");
    (dir, path)
}

#[test]
fn the_program_is_found_where_it_is_named_or_in_the_search_path() {
    let (_dir, folder) = folder();
    let program = folder.join("claude");
    files::write(&program, b"#!/bin/sh\n").expect("written");
    let error = find(&settings(None, &folder)).expect_err("it cannot be run");
    assert!(error.contains("there is no program `claude` in"), "{error}");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    assert_eq!(find(&settings(None, &folder)).as_ref(), Ok(&program));
    let elsewhere = Utf8Path::new("/nonexistent");
    assert_eq!(find(&settings(Some(&program), elsewhere)).as_ref(), Ok(&program));
    let error = find(&settings(Some(elsewhere), &folder)).expect_err("the named one counts");
    assert!(error.contains("correct programs.claude in the spec"), "{error}");
}

#[test]
fn a_login_that_is_written_anew_is_another() {
    let (_dir, state) = folder();
    let setup = Setup::new(settings(None, &state), state.clone(), Children::default());
    let driver = Claude::new(setup);
    let none = driver.login();
    assert_eq!(driver.login(), none);
    files::write(&state.join("claude/.credentials.json"), b"{}").expect("written");
    let first = driver.login();
    assert_ne!(first, none);
    files::write(&state.join("claude/.credentials.json"), b"{ }").expect("written");
    assert_ne!(driver.login(), first);
}
