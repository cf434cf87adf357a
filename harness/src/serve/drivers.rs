//! The drivers of this build, by kind.

use std::sync::Arc;

use shared::spec::{DriverKind, DriverSpec, ScriptRule};

use super::Settings;
use crate::children::Children;
use crate::driver::Driver;
use crate::driver::acp::Acp;
use crate::driver::claude::Claude;
use crate::driver::program::Setup;
use crate::driver::scripted::Scripted;
use crate::host_client::HostClient;
use crate::repo::ConfigRepo;

/// One of each kind.
#[derive(Clone)]
pub(super) struct Drivers {
    acp: Arc<dyn Driver>,
    claude: Arc<dyn Driver>,
    scripted: Arc<dyn Driver>,
}

impl Drivers {
    pub(super) fn new(
        settings: &Settings,
        rules: Option<Arc<[ScriptRule]>>,
        client: &Arc<HostClient>,
        children: &Children,
    ) -> Self {
        let state = &settings.state;
        let repo = ConfigRepo::new(state.clone(), children.clone());
        let setup = Setup::new(settings.programs.clone(), state.clone(), children.clone());
        Self {
            acp: Arc::new(Acp::new(Arc::clone(&setup))),
            claude: Arc::new(Claude::new(setup)),
            scripted: Arc::new(Scripted::new(Arc::clone(client), repo, rules)),
        }
    }

    pub(super) fn of(&self, kind: DriverKind) -> &Arc<dyn Driver> {
        match kind {
            DriverKind::Acp => &self.acp,
            DriverKind::Claude => &self.claude,
            DriverKind::Scripted => &self.scripted,
        }
    }

    /// Makes all of them ready, the one that is no longer wanted too: what it left must not run on. Returns why the one
    /// that is wanted cannot run a turn, if so. Blocks.
    pub(super) fn prepare(&self, wanted: &DriverSpec) -> Option<String> {
        let all = [&self.acp, &self.claude, &self.scripted];
        let [acp, claude, scripted] = all.map(|driver| driver.prepare(wanted));
        match wanted.kind {
            DriverKind::Acp => acp,
            DriverKind::Claude => claude,
            DriverKind::Scripted => scripted,
        }
    }
}
