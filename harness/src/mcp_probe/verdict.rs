//! What a turn found of a server, held against its probe (pure).

use std::collections::BTreeSet;

use shared::status::{McpHealth, McpServerState};

use crate::driver::ServerInTurn;
use crate::driver::tools::plain;

/// The most names that are told.
const MAX_TOLD: usize = 5;

/// The state of a server that was probed, and that a turn has used since. `may_use` says of a tool whether the agent may.
pub(super) fn of(
    probed: &McpServerState,
    in_turn: &ServerInTurn,
    may_use: impl Fn(&str) -> bool,
) -> McpServerState {
    let answered = probed.health == McpHealth::Healthy;
    if let Some(fault) = &in_turn.fault {
        let error = match &probed.error {
            _ if answered => {
                format!("does not work in turns ({fault}), although it answered when it was probed")
            }
            Some(error) => format!("{error}; it does not work in turns either ({fault})"),
            None => format!("does not work in turns ({fault})"),
        };
        return McpServerState {
            health: McpHealth::Failed,
            error: Some(error),
            ..probed.clone()
        };
    }
    let found = in_turn.tools.as_ref();
    if answered {
        let difference = found.and_then(|found| difference(probed, found, may_use));
        return McpServerState {
            health: difference
                .as_ref()
                .map_or(McpHealth::Healthy, |_| McpHealth::Differs),
            error: difference,
            ..probed.clone()
        };
    }
    // It was too slow for the probe, or cannot be probed.
    McpServerState {
        tools: found
            .map(|found| found.iter().cloned().collect())
            .unwrap_or_default(),
        ..McpServerState::of(McpHealth::Healthy)
    }
}

/// In what a turn's tools are others than the probe's, if they are. What the agent may not use need not be there.
fn difference(
    probed: &McpServerState,
    found: &BTreeSet<String>,
    may_use: impl Fn(&str) -> bool,
) -> Option<String> {
    if probed.more_tools > 0 {
        return None;
    }
    let known: BTreeSet<String> = probed.tools.iter().map(|tool| plain(tool)).collect();
    let missing = known.difference(found).filter(|tool| may_use(tool));
    let parts = [
        ("without", told(missing)),
        ("besides", told(found.difference(&known))),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(word, names)| Some(format!("{word} {}", names?)))
        .collect();
    (!parts.is_empty()).then(|| format!("turns find other tools than the probe: {}", parts.join(", ")))
}

fn told<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let told = names.get(..MAX_TOLD.min(names.len()))?.join(", ");
    match names.len() {
        0 => None,
        count if count > MAX_TOLD => Some(format!("{told} and {} more", count - MAX_TOLD)),
        _ => Some(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(tools: &[&str]) -> McpServerState {
        McpServerState {
            tools: tools.iter().map(|&tool| tool.to_owned()).collect(),
            schema_tokens: Some(7),
            ..McpServerState::of(McpHealth::Healthy)
        }
    }

    fn failed(error: &str) -> McpServerState {
        McpServerState {
            error: Some(error.to_owned()),
            ..McpServerState::of(McpHealth::Failed)
        }
    }

    fn works(tools: &[&str]) -> ServerInTurn {
        ServerInTurn {
            fault: None,
            tools: Some(tools.iter().map(|&tool| tool.to_owned()).collect()),
        }
    }

    fn verdict(
        probed: &McpServerState,
        allowed: &[&str],
        in_turn: &ServerInTurn,
    ) -> (McpHealth, Option<String>) {
        let state = of(probed, in_turn, |tool| {
            allowed == ["*"] || allowed.contains(&tool)
        });
        (state.health, state.error)
    }

    #[test]
    fn a_server_that_fails_in_a_turn_does_not_work_however_it_was_probed() {
        let broken = ServerInTurn {
            fault: Some("failed".to_owned()),
            tools: None,
        };
        for (probed, expected) in [
            (
                probed(&["look"]),
                "does not work in turns (failed), although it answered when it was probed",
            ),
            (
                failed("it ended"),
                "it ended; it does not work in turns either (failed)",
            ),
            (
                McpServerState::of(McpHealth::Unprobed),
                "does not work in turns (failed)",
            ),
        ] {
            let found = verdict(&probed, &["*"], &broken);
            assert_eq!(found, (McpHealth::Failed, Some(expected.to_owned())));
        }
    }

    #[test]
    fn the_same_tools_are_fine_and_names_are_compared_as_programs_give_them() {
        let found = verdict(&probed(&["draw", "we.ird"]), &["*"], &works(&["draw", "we_ird"]));
        assert_eq!(found, (McpHealth::Healthy, None));
    }

    #[test]
    fn what_is_not_allowed_may_be_missing() {
        let two = probed(&["draw", "look"]);
        assert_eq!(
            verdict(&two, &["look"], &works(&["look"])),
            (McpHealth::Healthy, None)
        );
        assert_eq!(
            verdict(&two, &["look"], &works(&["draw", "look"])),
            (McpHealth::Healthy, None)
        );
    }

    #[test]
    fn other_tools_are_told_by_name() {
        let found = verdict(&probed(&["draw", "look"]), &["*"], &works(&["look", "steal"]));
        let error = "turns find other tools than the probe: without draw, besides steal";
        assert_eq!(found, (McpHealth::Differs, Some(error.to_owned())));
        let many = works(&["a", "b", "c", "d", "e", "f", "g", "look"]);
        let (_, error) = verdict(&probed(&["look"]), &["*"], &many);
        assert_eq!(
            error.as_deref(),
            Some("turns find other tools than the probe: besides a, b, c, d, e and 2 more")
        );
    }

    #[test]
    fn a_list_that_was_cut_is_compared_with_nothing() {
        let cut = McpServerState {
            more_tools: 1,
            ..probed(&["look"])
        };
        assert_eq!(
            verdict(&cut, &["*"], &works(&["steal"])),
            (McpHealth::Healthy, None)
        );
    }

    #[test]
    fn a_turn_in_which_a_server_works_is_the_better_witness() {
        for probed in [failed("too slow"), McpServerState::of(McpHealth::Unprobed)] {
            let state = of(&probed, &works(&["look"]), |_| true);
            assert_eq!((state.health, state.error), (McpHealth::Healthy, None));
            assert_eq!(
                (state.tools.as_slice(), state.schema_tokens),
                (["look".to_owned()].as_slice(), None)
            );
        }
    }
}
