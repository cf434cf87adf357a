//! Decides what is in force after a look at the file. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use shared::spec::{AgentSpec, HiveSpec, Spec};
use shared::{AgentName, Digest};

use super::{Fault, Parsed, VERSION, digest};

/// What is in force, and what is wrong with the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The file.
    pub path: Utf8PathBuf,
    /// The spec in force. While nothing was ever accepted it declares no agents, which says nothing about which
    /// agents are wanted: ask [`Accepted::in_force`].
    pub spec: Arc<Spec>,
    /// Its digest.
    pub digest: Digest,
    /// Rises by one whenever the digest changes; 0 while nothing was ever accepted.
    pub generation: u64,
    /// The faults of the document.
    pub faults: Vec<Fault>,
    /// Whether the file says something else that was refused.
    pub stale: bool,
    /// The agents whose declaration is faulty. One that is not in `spec` either is new, not removed.
    pub agent_faults: BTreeMap<AgentName, Vec<Fault>>,
}

impl Accepted {
    /// A spec that was accepted by an earlier run of the daemon.
    pub fn restored(path: Utf8PathBuf, spec: Spec, generation: u64) -> Self {
        Self {
            path,
            digest: digest(&spec),
            spec: Arc::new(spec),
            generation: generation.max(1),
            faults: Vec::new(),
            stale: false,
            agent_faults: BTreeMap::new(),
        }
    }

    /// The spec in force; `None` while nothing was ever accepted, and then nothing may be concluded from it.
    pub fn in_force(&self) -> Option<&Arc<Spec>> {
        (self.generation > 0).then_some(&self.spec)
    }

    /// Every fault of the file: those of the document, then those of its agents.
    pub fn all_faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().chain(self.agent_faults.values().flatten())
    }

    /// Whether an agent is declared, be it faultily. Only one that is not was removed.
    pub fn declares(&self, agent: &AgentName) -> bool {
        self.spec.agents.contains_key(agent) || self.agent_faults.contains_key(agent)
    }

    fn nothing(path: Utf8PathBuf) -> Self {
        let spec = empty();
        Self {
            generation: 0,
            ..Self::restored(path, spec, 0)
        }
    }
}

fn empty() -> Spec {
    Spec {
        version: VERSION,
        hive: HiveSpec {
            name: String::new(),
            budget: Default::default(),
        },
        operator: Default::default(),
        runtime: Default::default(),
        builder: Default::default(),
        policy: Default::default(),
        web: Default::default(),
        forge: None,
        egress: Default::default(),
        harness: None,
        programs: Default::default(),
        spawn_defaults: Default::default(),
        max_agents: 0,
        agents: BTreeMap::new(),
    }
}

/// Decides what is in force: a refused document leaves all as it was, a faulty agent keeps what it had.
pub fn accept(previous: Option<&Accepted>, parsed: Parsed, path: &Utf8Path) -> Accepted {
    let Parsed {
        spec,
        faults,
        mut bad_agents,
    } = parsed;
    let path = path.to_owned();
    let Some(mut spec) = spec else {
        let last = previous
            .cloned()
            .unwrap_or_else(|| Accepted::nothing(path.clone()));
        return Accepted {
            path,
            faults,
            stale: true,
            agent_faults: still_faulty(&last, bad_agents),
            ..last
        };
    };
    let last = previous.filter(|last| last.generation > 0);
    for name in bad_agents.keys() {
        if let Some(kept) = last.and_then(|last| last.spec.agents.get(name)) {
            spec.agents.insert(name.clone(), kept.clone());
        }
    }
    if let Some(last) = last {
        refuse_renames(&last.spec, &mut spec, &mut bad_agents);
    }
    let digest = digest(&spec);
    let (spec, generation) = match last {
        Some(last) if last.digest == digest => (Arc::clone(&last.spec), last.generation),
        Some(last) => (Arc::new(spec), last.generation + 1),
        None => (Arc::new(spec), 1),
    };
    Accepted {
        path,
        spec,
        digest,
        generation,
        faults,
        stale: false,
        agent_faults: bad_agents,
    }
}

/// An agent that vanishes while another appears that is declared exactly alike was probably meant to be renamed. State,
/// repo and history belong to the name: the old one would be stopped and the new one begin with nothing. So the old one
/// is kept, and the new one is at fault.
fn refuse_renames(last: &Spec, spec: &mut Spec, faults: &mut BTreeMap<AgentName, Vec<Fault>>) {
    let mut vanished: BTreeMap<&AgentName, &AgentSpec> = last.agents.iter().collect();
    vanished.retain(|name, _| !spec.agents.contains_key(*name) && !faults.contains_key(*name));
    let appeared: Vec<AgentName> = spec.agents.keys().cloned().collect();
    for to in appeared.iter().filter(|name| !last.agents.contains_key(*name)) {
        let alike = vanished
            .iter()
            .find(|(_, was)| spec.agents.get(to) == Some(**was));
        let Some((from, _)) = alike.map(|(from, was)| (*from, *was)) else {
            continue;
        };
        let message = format!(
            "it is declared exactly as {from} was, which is gone: an agent cannot be renamed, its state and its config \
             repo stay with its name. Keep the name {from}; or declare {to} beside {from} first, and take {from} out \
             once {to} runs: {to} then begins with nothing"
        );
        let fault = Fault::new(format!("agents.{to}"), message);
        spec.agents.remove(to);
        faults.insert(to.clone(), vec![fault]);
        if let Some(kept) = vanished.remove(from) {
            spec.agents.insert(from.clone(), kept.clone());
        }
    }
}

/// A refused document shows everything that is wrong with it, but takes no agent away: one that was faulty before and
/// never in force stays known.
fn still_faulty(
    last: &Accepted,
    mut faults: BTreeMap<AgentName, Vec<Fault>>,
) -> BTreeMap<AgentName, Vec<Fault>> {
    for (name, earlier) in &last.agent_faults {
        if !last.spec.agents.contains_key(name) {
            faults.entry(name.clone()).or_insert_with(|| earlier.clone());
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::parse;

    fn look(previous: Option<&Accepted>, agents: Value) -> Accepted {
        let document = json!({ "version": 1, "hive": { "name": "home" }, "agents": agents });
        accept(
            previous,
            parse(document.to_string().as_bytes()),
            Utf8Path::new("/etc/hyperhive/hive.json"),
        )
    }

    fn refuse(previous: Option<&Accepted>) -> Accepted {
        accept(previous, parse(b"{"), Utf8Path::new("/etc/hyperhive/hive.json"))
    }

    fn name(text: &str) -> AgentName {
        text.parse().expect("a name")
    }

    #[test]
    fn the_generation_rises_only_when_something_changed() {
        let first = look(None, json!({ "a": {} }));
        let same = look(Some(&first), json!({ "a": { "run": "running" } }));
        let other = look(Some(&same), json!({ "a": { "run": "paused" } }));
        let back = look(Some(&other), json!({ "a": {} }));
        assert_eq!(
            [&first, &same, &other, &back].map(|accepted| accepted.generation),
            [1, 1, 2, 3]
        );
        assert_eq!(first.digest, back.digest);
    }

    #[test]
    fn a_refused_document_leaves_the_last_good_one_in_force() {
        let good = look(None, json!({ "a": {} }));
        let stale = refuse(Some(&good));
        assert_eq!(stale.spec, good.spec);
        assert_eq!((stale.generation, stale.stale), (1, true));
        assert_eq!(stale.faults.len(), 1);
        let mended = look(Some(&stale), json!({ "a": {} }));
        assert_eq!((mended.generation, mended.stale), (1, false));
        assert_eq!(mended.faults, []);
    }

    #[test]
    fn a_first_document_that_is_refused_puts_nothing_in_force() {
        let stale = refuse(None);
        assert_eq!((stale.generation, stale.stale), (0, true));
        assert_eq!(stale.in_force(), None);
        assert!(stale.spec.agents.is_empty());
        // Nor does looking again.
        assert_eq!(refuse(Some(&stale)).in_force(), None);
        let first = look(Some(&stale), json!({}));
        assert_eq!(first.generation, 1);
        assert!(first.in_force().is_some());
    }

    #[test]
    fn a_faulty_agent_keeps_what_it_had_while_the_others_move_on() {
        let good = look(None, json!({ "a": { "prompt": "old" }, "b": {} }));
        let bad = look(
            Some(&good),
            json!({ "a": { "prompt": 1 }, "b": { "prompt": "new" } }),
        );
        assert_eq!(bad.spec.agents["a"].prompt, "old");
        assert_eq!(bad.spec.agents["b"].prompt, "new");
        assert_eq!((bad.generation, bad.stale), (2, false));
        assert_eq!(bad.agent_faults[&name("a")].len(), 1);
        // And so it does the time after.
        let still = look(
            Some(&bad),
            json!({ "a": { "prompt": 2 }, "b": { "prompt": "new" } }),
        );
        assert_eq!(still.spec.agents["a"].prompt, "old");
        assert_eq!(still.generation, 2);
        let mended = look(Some(&still), json!({ "a": { "prompt": "mended" }, "b": {} }));
        assert_eq!(mended.spec.agents["a"].prompt, "mended");
        assert!(mended.agent_faults.is_empty());
    }

    #[test]
    fn a_new_agent_that_is_faulty_is_not_the_same_as_one_that_was_removed() {
        let first = look(None, json!({ "gone": {} }));
        let accepted = look(Some(&first), json!({ "new": { "run": 1 } }));
        assert!(accepted.spec.agents.is_empty());
        assert!(accepted.declares(&name("new")));
        assert!(!accepted.declares(&name("gone")));
        // A refused document takes back neither.
        let stale = refuse(Some(&accepted));
        assert!(stale.declares(&name("new")));
        assert!(!stale.declares(&name("gone")));
    }

    #[test]
    fn a_renamed_agent_is_refused_and_keeps_its_old_name() {
        let tended = json!({ "prompt": "tend the wiki" });
        let first = look(None, json!({ "alice": tended, "queen": { "role": "manager" } }));
        let renamed = json!({ "bob": tended, "queen": { "role": "manager", "prompt": "new" } });
        let mut accepted = look(Some(&first), renamed.clone());
        for _ in 0..2 {
            assert!(
                accepted.spec.agents.contains_key("alice"),
                "{:?}",
                accepted.spec.agents
            );
            assert!(!accepted.spec.agents.contains_key("bob"));
            assert_eq!(accepted.spec.agents["queen"].prompt, "new", "the others move on");
            let fault = &accepted.agent_faults[&name("bob")][0];
            assert_eq!(fault.path, "agents.bob");
            assert!(fault.message.contains("Keep the name alice"), "{fault}");
            assert_eq!(accepted.generation, 2);
            // Nor does looking again let it through.
            accepted = look(Some(&accepted), renamed.clone());
        }
        let back = look(Some(&accepted), json!({ "alice": tended, "queen": {} }));
        assert!(back.agent_faults.is_empty(), "{:?}", back.agent_faults);
    }

    #[test]
    fn an_agent_is_replaced_by_one_alike_in_two_steps() {
        let tended = json!({ "prompt": "tend the wiki" });
        let first = look(None, json!({ "alice": tended }));
        let both = look(Some(&first), json!({ "alice": tended, "bob": tended }));
        let replaced = look(Some(&both), json!({ "bob": tended }));
        for accepted in [&both, &replaced] {
            assert!(accepted.agent_faults.is_empty(), "{:?}", accepted.agent_faults);
        }
        assert!(!replaced.declares(&name("alice")));
    }

    #[test]
    fn each_vanished_agent_explains_one_that_appeared() {
        let first = look(None, json!({ "a": {}, "b": {} }));
        let swapped = look(Some(&first), json!({ "c": {}, "d": {}, "e": {} }));
        let names: Vec<&str> = swapped.spec.agents.keys().map(AgentName::as_str).collect();
        assert_eq!(names, ["a", "b", "e"]);
        assert_eq!(swapped.agent_faults.len(), 2);
    }

    #[test]
    fn a_restored_spec_is_in_force_before_the_first_look() {
        let good = look(None, json!({ "a": {} }));
        let restored = Accepted::restored(good.path.clone(), Spec::clone(&good.spec), 7);
        assert_eq!(refuse(Some(&restored)).spec, good.spec);
        assert_eq!(look(Some(&restored), json!({ "a": {} })).generation, 7);
    }
}
