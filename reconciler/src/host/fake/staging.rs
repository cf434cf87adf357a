//! Staged files of the fake world.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use shared::canonical::digest_file;
use shared::draft::{StagedFile, StatePath};
use shared::{AgentName, AgentUid, Digest};

use super::World;
use crate::host::{HostError, Staging};

impl World {
    /// What lies in an agent's `/state` because it was staged.
    pub fn laid_down(&self, agent: &AgentName) -> BTreeMap<StatePath, Digest> {
        self.lock().laid.get(agent).cloned().unwrap_or_default()
    }

    /// How many drafts have bytes staged.
    pub fn staged_drafts(&self) -> usize {
        self.lock().staged.len()
    }
}

/// Staging is part of a command, which its caller repeats; so it is no effect that a fault could hit.
#[async_trait]
impl Staging for World {
    async fn stage(&self, uid: AgentUid, bytes: Vec<u8>) -> Result<Digest, HostError> {
        let digest = digest_file(&bytes);
        let mut state = self.lock();
        state.staged.entry(uid).or_default().insert(digest.clone(), bytes);
        Ok(digest)
    }

    async fn read(&self, uid: AgentUid, digest: &Digest) -> Result<Option<Vec<u8>>, HostError> {
        let state = self.lock();
        let bytes = state.staged.get(&uid).and_then(|staged| staged.get(digest));
        Ok(bytes.cloned())
    }

    async fn keep(&self, uid: AgentUid, keep: BTreeSet<Digest>) -> Result<(), HostError> {
        let mut state = self.lock();
        if keep.is_empty() {
            state.staged.remove(&uid);
        } else if let Some(staged) = state.staged.get_mut(&uid) {
            staged.retain(|digest, _| keep.contains(digest));
        }
        Ok(())
    }

    async fn keep_drafts(&self, drafts: BTreeSet<AgentUid>) -> Result<(), HostError> {
        self.lock().staged.retain(|uid, _| drafts.contains(uid));
        Ok(())
    }

    async fn lay_down(
        &self,
        agent: &AgentName,
        uid: AgentUid,
        files: &BTreeMap<StatePath, StagedFile>,
    ) -> Result<(), HostError> {
        self.effect("layDown", agent, "", |state| {
            let staged = state.staged.get(&uid).cloned().unwrap_or_default();
            let laid = state.laid.entry(agent.clone()).or_default();
            state.changes_nothing = true;
            for (path, file) in files {
                if !staged.contains_key(&file.digest) {
                    return Err(HostError::refused(path.as_str(), "its staged bytes are lost"));
                }
                match laid.get(path) {
                    Some(there) if *there != file.digest => {
                        return Err(HostError::refused(path.as_str(), "something else is there"));
                    }
                    Some(_) => {}
                    None => {
                        laid.insert(path.clone(), file.digest.clone());
                        state.changes_nothing = false;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    async fn discard(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.effect("discard", agent, "", |state| {
            state.folders.remove(agent);
            state.laid.remove(agent);
            state.staged.remove(&uid);
            Ok(())
        })
        .await
    }
}
