//! What agents are allowed of the outside, as a file: a projection of what is deployed for each.
//!
//! Nothing is decided here. What an agent may do was decided when its system was deployed; the file follows, and is
//! written only when it says something else than before.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use shared::spec::EgressSpec;
use tokio::sync::{mpsc, watch};

use super::{Key, PassError, Reconciler};
use crate::egress::policy::{AgentPolicy, Policy};
use crate::host::HostError;
use crate::host::folders::{read_bounded, write_atomic};
use crate::host::layout::Layout;
use crate::model::records::{AgentLife, AgentRecord};

/// Passes in such a short time are one change.
const QUIET: Duration = Duration::from_millis(20);
/// The service that reads it is another user; it holds no secret.
const MODE: u32 = 0o644;
/// The largest file that is compared with.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What agents with these records are allowed.
fn policy(records: &[AgentRecord], egress: Option<&EgressSpec>) -> Policy {
    let agents = records.iter().filter_map(|record| {
        let output = &record.deployed.as_ref()?.output;
        let goes_out = record.life == AgentLife::Active && output.launch.goes_out_by_sockets();
        let allowed = || AgentPolicy {
            network: output.launch.network,
            hosts: output.host_side.egress.clone(),
        };
        goes_out.then(|| (record.name.clone(), allowed()))
    });
    Policy {
        agents: agents.collect(),
        provider: egress.and_then(|egress| egress.model_url.clone()),
        api_key_file: egress.and_then(|egress| egress.api_key_file.clone().map(Utf8PathBuf::from)),
    }
}

/// Keeps the file as the ledger says, and `needed` whether anybody needs the service. Each key that comes is a reason to
/// look.
pub(super) async fn project(
    reconciler: Arc<Reconciler>,
    layout: Layout,
    mut passed: mpsc::UnboundedReceiver<Key>,
    needed: watch::Sender<bool>,
) {
    let mut seen = None;
    // What the file says. It is read once: reading it again would be a write of the time of access.
    let mut there = None;
    loop {
        let now = (
            reconciler.ledger().writes(),
            reconciler.accepted().map(|accepted| accepted.generation),
        );
        if seen != Some(now) {
            match look(&reconciler, &layout, &mut there).await {
                Ok(is_needed) => {
                    seen = Some(now);
                    needed.send_if_modified(|needed| std::mem::replace(needed, is_needed) != is_needed);
                }
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::error!(error, "what agents may reach was not written down");
                }
            }
        }
        if passed.recv().await.is_none() {
            return;
        }
        tokio::time::sleep(QUIET).await;
        while passed.try_recv().is_ok() {}
    }
}

/// Writes the file if it is to say something else.
async fn look(
    reconciler: &Reconciler,
    layout: &Layout,
    there: &mut Option<Vec<u8>>,
) -> Result<bool, PassError> {
    let records = reconciler.ledger().agents().await?.items;
    let accepted = reconciler.accepted();
    let spec = accepted.as_ref().and_then(|accepted| accepted.in_force());
    let policy = policy(&records, spec.map(|spec| &spec.egress));
    let is_needed = !policy.agents.is_empty();
    let path = layout.egress_policy();
    let before = there.take();
    let written = tokio::task::spawn_blocking(move || {
        let mut text = serde_json::to_vec_pretty(&policy)
            .map_err(|error| HostError::failed(path.as_str(), error.to_string()))?;
        text.push(b'\n');
        let before = match before {
            Some(before) => Some(before).filter(|_| path.exists()),
            None => read_bounded(&path, MAX_FILE)?,
        };
        if before.as_ref() != Some(&text) {
            write_atomic(&path, &text, MODE)?;
        }
        Ok(text)
    });
    let written = written.await;
    *there = Some(written.unwrap_or_else(|error| Err(HostError::failed("egress.json", error.to_string())))?);
    Ok(is_needed)
}
