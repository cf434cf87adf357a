//! What a system is composed of, brought into the store.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Building, NixBuilder, lines};
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::folders::write_atomic;
use crate::host::nix::fault::Stage;
use crate::host::nix::flake::{self, Input, Sources};
use crate::host::nix::store::StorePath;
use crate::host::plain::remake;
use crate::model::build::{BuildRequest, NixInputs};

/// The name of what evaluators take as input, so that they do not copy it under another.
const SOURCE: &str = "source";

#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "x86_64-linux";
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "aarch64-linux";

impl NixBuilder {
    /// Adds a file or folder to the store.
    async fn add(&self, job: &Building<'_>, path: &Utf8Path) -> Result<StorePath, HostError> {
        let words = vec!["--add".to_owned(), path.to_string()];
        let ended = self.store(job, Stage::Adding, words).await?;
        self.options
            .store
            .path(lines(&ended.stdout).first().copied().unwrap_or_default())
    }

    /// What the operator declared, as a path in the store.
    pub(super) async fn declared(
        &self,
        job: &Building<'_>,
        field: &str,
        path: &str,
    ) -> Result<StorePath, HostError> {
        let dir = self.options.store.dir.clone();
        let (name, given) = (field.to_owned(), Utf8PathBuf::from(path));
        let real = blocking(field.to_owned(), move || {
            // Links in the store are what they are named; elsewhere they are ways to something.
            let found = if given.starts_with(&dir) {
                given.symlink_metadata().map(|_| given.clone())
            } else {
                given.canonicalize_utf8()
            };
            found.map_err(|error| match error.kind() {
                ErrorKind::NotFound => HostError::failed(
                    name,
                    format!("{given} is not there: put it back, or name another in the spec"),
                ),
                _ => HostError::io("find", given.as_str())(error),
            })
        })
        .await?;
        if real.starts_with(&self.options.store.dir) {
            self.options.store.path(real.as_str())
        } else {
            self.add(job, &real).await
        }
    }

    pub(super) async fn sources(&self, job: &Building<'_>, nix: &NixInputs) -> Result<Sources, HostError> {
        let mut modules = Vec::new();
        for (number, path) in job.request.spec.modules.iter().enumerate() {
            let field = format!("agents.{}.modules[{number}]", job.request.agent);
            modules.push(self.declared(job, &field, path).await?);
        }
        let mut inputs = BTreeMap::new();
        for (name, path) in &nix.inputs {
            let path = self
                .declared(job, &format!("builder.inputs.{name}"), path)
                .await?;
            let file = path.root().join(path.below()).join("flake.nix");
            let is_flake = blocking(file.to_string(), move || Ok(file.is_file())).await?;
            inputs.insert(name.clone(), Input { path, is_flake });
        }
        Ok(Sources {
            agent: job.request.agent.clone(),
            platform: PLATFORM,
            nixpkgs: self.declared(job, "builder.nixpkgs", &nix.nixpkgs).await?,
            guest: self
                .declared(job, "builder.guestModule", &nix.guest_module)
                .await?,
            modules,
            inputs,
            tree: job.tree.clone(),
        })
    }

    /// Writes the commit's raw blobs and adds them to the store.
    pub(super) async fn add_tree(&self, job: &Building<'_>) -> Result<StorePath, HostError> {
        let folder = job.folder.join("tree");
        remake(&folder).await?;
        let target = folder.join(SOURCE);
        let BuildRequest { agent, commit, .. } = job.request;
        self.repos.write_tree(agent, commit, &target).await?;
        let added = self.add(job, &target).await;
        remove(folder).await?;
        added
    }

    pub(super) async fn add_flake(
        &self,
        job: &Building<'_>,
        sources: &Sources,
    ) -> Result<StorePath, HostError> {
        let folder = job.folder.join("meta");
        remake(&folder.join(SOURCE)).await?;
        let target = folder.join(SOURCE);
        let (file, text) = (target.join("flake.nix"), flake::text(sources));
        blocking(file.to_string(), move || {
            write_atomic(&file, text.as_bytes(), 0o644)
        })
        .await?;
        let added = self.add(job, &target).await;
        remove(folder).await?;
        added
    }
}

async fn remove(folder: Utf8PathBuf) -> Result<(), HostError> {
    blocking(folder.to_string(), move || {
        std::fs::remove_dir_all(&folder).map_err(HostError::io("remove", folder.as_str()))
    })
    .await
}
