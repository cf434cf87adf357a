//! Which builder the daemon has, as the spec says when it starts.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use shared::Digest;
use shared::spec::{BuilderKind, RuntimeKind};

use super::ServeError;
use crate::host::layout::Layout;
use crate::host::nix::evaluate::{Evaluate, Evaluated, Job, Limits, Log, Sandboxed, Unit};
use crate::host::nix::{NixBuilder, NixOptions, PROFILES, Store};
use crate::host::nspawn::EVALUATIONS;
use crate::host::plain::PlainBuilder;
use crate::host::process::Sandbox;
use crate::host::{Builder, HostError, Repos};

/// How long a system may take to be built.
const BUILD_TIME: Duration = Duration::from_secs(3600);

/// The builder of this kind. What it evaluates is limited as agents are: by systemd, or by a sandbox of its own.
pub(super) async fn builder(
    kind: BuilderKind,
    runtime: RuntimeKind,
    layout: &Layout,
    repos: &Arc<dyn Repos>,
    search_path: &OsStr,
    hive: Utf8PathBuf,
) -> Result<Arc<dyn Builder>, ServeError> {
    if kind == BuilderKind::Plain {
        return Ok(Arc::new(PlainBuilder::new(layout.clone(), Arc::clone(repos))));
    }
    let store = Store::of_machine();
    let limits = Limits::default();
    // Without Nix's daemon whoever evaluates has to be the store's owner, and a unit's user is nobody.
    let in_units = runtime == RuntimeKind::Nspawn && store.socket.is_some();
    let evaluator: Arc<dyn Evaluate> = if in_units {
        Arc::new(Unit::new(Utf8Path::new(EVALUATIONS).join("jobs"), limits).await)
    } else {
        match Sandbox::probe(search_path).await {
            Sandbox::Bwrap(bwrap) => Arc::new(Sandboxed {
                hive,
                bwrap,
                store: store.clone(),
                jobs: layout.builds(),
                limits,
            }),
            Sandbox::None { why } => Arc::new(NoEvaluator(why)),
        }
    };
    let options = NixOptions {
        layout: layout.clone(),
        store,
        profiles: PROFILES.into(),
        settings: Vec::new(),
        evaluator,
        time: BUILD_TIME,
    };
    let builder = NixBuilder::new(options, Arc::clone(repos), search_path).ok_or(ServeError::NoProgram(
        "nix and nix-store, which builder.kind \"nix\" needs",
    ))?;
    Ok(Arc::new(builder))
}

/// Stands where nothing can be evaluated within limits. What is prebuilt is deployed all the same.
struct NoEvaluator(String);

#[async_trait]
impl Evaluate for NoEvaluator {
    async fn evaluate(&self, _: &Digest, _: Job, _: &Log) -> Result<Evaluated, HostError> {
        Err(HostError::failed(
            "the evaluator",
            format!("nothing limits an evaluation here: {}", self.0),
        ))
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }
}
