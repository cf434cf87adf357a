//! Facts about a host that builds with Nix.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;

use camino::Utf8Path;
use shared::spec::{BuilderKind, Spec};

use super::{Programs, folder, version};
use crate::doctor::nix::Nix;
use crate::host::nix::{PROFILES, Store};
use crate::model::inventory::Known;

/// Gathers what the checks of the nix builder look at; `None`: nothing is built with it.
pub(super) async fn gather(spec: Option<&Spec>, programs: &Programs<'_>) -> Option<Nix> {
    let spec = spec.filter(|spec| spec.builder.kind == BuilderKind::Nix)?;
    let version = match programs.find("nix") {
        Ok(nix) => version(&nix).await,
        Err(why) => Err(why),
    };
    let store = Store::of_machine();
    let daemon = match store.socket.clone() {
        Some(socket) => Some(
            super::blocking(move || answers(&socket))
                .await
                .and_then(|known| known),
        ),
        None => None,
    };
    Some(Nix {
        version,
        nix_store: programs.find("nix-store").map(drop),
        nixpkgs_wants: spec.builder.nixpkgs.as_deref().and_then(wanted),
        paths: paths(spec),
        daemon,
        store: folder(&store.dir),
        profiles: folder(Utf8Path::new(PROFILES)),
    })
}

/// Whether something listens there. What connects says nothing.
pub(super) fn answers(socket: &Utf8Path) -> Known<()> {
    UnixStream::connect(socket)
        .map(drop)
        .map_err(|error| format!("{socket} does not answer: {error}"))
}

/// The oldest Nix that can evaluate this nixpkgs, by its own word.
fn wanted(nixpkgs: &str) -> Option<String> {
    let lib = Utf8Path::new(nixpkgs).join("lib");
    if let Ok(text) = std::fs::read_to_string(lib.join("minver.nix")) {
        let number = text.lines().find_map(|line| line.trim().strip_prefix('"'));
        return number.map(|number| number.trim_end_matches('"').to_owned());
    }
    // What came in its place lists features, all of which 2.18 has.
    lib.join("minfeatures.nix").is_file().then(|| "2.18".to_owned())
}

fn paths(spec: &Spec) -> Vec<(String, Known<()>)> {
    let builder = &spec.builder;
    let single = [
        ("builder.nixpkgs", &builder.nixpkgs),
        ("builder.guestModule", &builder.guest_module),
    ];
    let single = single
        .into_iter()
        .filter_map(|(field, path)| Some((field.to_owned(), path.as_ref()?)));
    let inputs = builder.inputs.iter();
    let inputs = inputs.map(|(name, path)| (format!("builder.inputs.{name}"), path));
    let modules = spec.agents.iter().flat_map(|(agent, spec)| {
        let modules = spec.modules.iter().enumerate();
        modules.map(move |(number, path)| (format!("agents.{agent}.modules[{number}]"), path))
    });
    let all = single.chain(inputs).chain(modules);
    all.map(|(field, path)| (field, there(path))).collect()
}

fn there(path: &str) -> Known<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("{path} is not there")),
        Err(error) => Err(format!("{path} cannot be looked at: {error}")),
    }
}
