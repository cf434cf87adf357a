//! A build that wants hosts which the operator did not declare: it is asked about, with exactly these.

use std::collections::BTreeSet;

use shared::Digest;
use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateClass, GateView};

use super::agent::Planner;
use crate::model::build::BuildRequest;
use crate::model::records::Proposal;
use crate::model::step::{Action, Authority};

impl Planner<'_> {
    /// Builds once more, with these hosts. Whatever the policy says to builds, a person decides
    /// ([`crate::gate::verdict_on`]).
    pub(super) fn fetch(
        &mut self,
        key: Digest,
        request: BuildRequest,
        proposal: Option<&Proposal>,
        hosts: &BTreeSet<String>,
        asked_by: Asker,
    ) -> Result<(), NotCanonical> {
        let action = Action::Build {
            key,
            request: Box::new(request),
            proposal: proposal.map(|proposal| proposal.number),
            hosts: hosts.clone(),
        };
        let view = GateView {
            summary: format!("{}: {}", self.name(), super::view::action(&action)),
            title: proposal.map(|proposal| proposal.title.clone()),
            reason: proposal
                .map(|proposal| proposal.reason.clone())
                .filter(|reason| !reason.is_empty()),
            steps: vec![
                "it is built once more, and this build alone may fetch from these hosts; builder.hosts of the spec allows \
                 hosts to every build"
                    .to_owned(),
                "Nix checks by its hash what comes back. It does not hold a build to the hosts that it names".to_owned(),
                "what is built then is deployed under a gate of its own".to_owned(),
            ],
            ..GateView::default()
        };
        let class = GateClass::Build;
        self.step(action, Authority::Class { class, asked_by }, view)
    }
}
