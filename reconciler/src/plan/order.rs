//! What a manager ordered about an agent: a step of its own, whose gate is the policy's or the operator's.

use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateView, Verdict};
use shared::spec::AgentSpec;

use super::agent::Planner;
use crate::gate;
use crate::model::draft::Standing;
use crate::model::step::{Action, Authority};

impl Planner<'_> {
    /// Carries out an order that is allowed, and ends one that cannot be.
    pub(super) fn order(&mut self, spec: &AgentSpec) -> Result<(), NotCanonical> {
        let Some(order) = self.inputs.ledger.record.order.as_deref() else {
            return Ok(());
        };
        if !order.is_pending() {
            return Ok(());
        }
        let (number, class) = (order.number, order.verb.class());
        let (verdict, rule) = gate::verdict(&self.inputs.facts.policy, class, Asker::Manager);
        let void = match self.inputs.standing {
            Standing::Void(reason) => Some(reason.clone()),
            Standing::Fine | Standing::Named => {
                (verdict == Verdict::Never).then(|| format!("the policy {rule} forbids it"))
            }
        };
        if let Some(reason) = void {
            return self.free(Action::EndOrder { number, reason });
        }
        let action = Action::Obey {
            number,
            verb: order.verb,
            declared: spec.run,
        };
        let view = GateView {
            summary: order.line(self.name()),
            reason: Some(order.reason.clone()).filter(|reason| !reason.is_empty()),
            ..GateView::default()
        };
        let asked_by = Asker::Manager;
        self.step(action, Authority::Class { class, asked_by }, view)
    }
}
