//! What the tag of a proposal's phase says, in both directions. Pure.
//!
//! ```text
//! denied/7
//!
//! gate: 12
//! digest: effect1-5f3c…
//! by: unix:root
//! reason: the bank has a keeper
//! ```
//!
//! The ledger is the truth, and tags are written from it. Should it be lost, they are what is left of its decisions.

use jiff::Timestamp;
use shared::ProposalNumber;
use shared::agent_api::ProposalPhase;

use crate::model::records::Mark;

/// The phases that have a tag.
const PHASES: [ProposalPhase; 6] = [
    ProposalPhase::Proposed,
    ProposalPhase::Building,
    ProposalPhase::Approved,
    ProposalPhase::Deployed,
    ProposalPhase::Failed,
    ProposalPhase::Denied,
];

/// The tag of a phase that a proposal reached, without `refs/tags/`.
pub fn name(phase: ProposalPhase, number: ProposalNumber) -> String {
    format!("{}/{number}", phase.as_str())
}

/// The phase and the number that a tag is about; `None` when it is not one of the daemon's.
pub fn parse_name(name: &str) -> Option<(ProposalPhase, ProposalNumber)> {
    let (folder, digits) = name.split_once('/')?;
    let phase = PHASES.into_iter().find(|phase| phase.as_str() == folder)?;
    let number = ProposalNumber(digits.parse().ok()?);
    // One number, one name: neither `+7` nor `007` is ours.
    (number.0 > 0 && number.to_string() == digits).then_some((phase, number))
}

/// Whether a tag lies in a folder that belongs to the daemon.
pub fn is_ours(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(folder, _)| PHASES.iter().any(|phase| phase.as_str() == folder))
}

/// What the tag called `name` says: enough to rebuild the decision from the tag alone.
pub fn annotation(name: &str, mark: &Mark) -> String {
    let mut text = format!("{name}\n");
    let mut line = |key: &str, value: &str| {
        text.push('\n');
        text.push_str(key);
        text.push_str(": ");
        // One line a field, whatever the text holds and whoever splits it, so that no reason can forge another field.
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        text.extend(value.chars().map(|c| if breaks(c) { ' ' } else { c }));
    };
    if let Some(gate) = mark.gate {
        line("gate", &gate.to_string());
    }
    if let Some(digest) = &mark.digest {
        line("digest", digest.as_str());
    }
    if let Some(by) = &mark.by {
        line("by", by);
    }
    if !mark.reason.is_empty() {
        line("reason", &mark.reason);
    }
    text.push('\n');
    text
}

/// Reads an annotation back; `at` is the time in the tag. `None` when it is not what [`annotation`] writes.
pub fn parse_annotation(name: &str, text: &str, at: Timestamp) -> Option<Mark> {
    let mut mark = Mark {
        at,
        gate: None,
        digest: None,
        by: None,
        reason: String::new(),
    };
    let fields = match text.strip_prefix(name)? {
        "" => "",
        rest => rest.strip_prefix('\n')?,
    };
    for line in fields.split('\n').filter(|line| !line.is_empty()) {
        match line.split_once(": ")? {
            ("gate", id) => mark.gate = Some(shared::GateId(id.parse().ok()?)),
            ("digest", digest) => mark.digest = Some(digest.parse().ok()?),
            ("by", by) => mark.by = Some(by.to_owned()),
            ("reason", reason) => mark.reason = reason.to_owned(),
            _ => return None,
        }
    }
    // What does not read back to the same bytes was not written by us.
    let written = annotation(name, &mark);
    (written.trim_end_matches('\n') == text.trim_end_matches('\n')).then_some(mark)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::GateId;

    use super::*;

    fn marks() -> impl Strategy<Value = Mark> {
        let digest = proptest::option::of(any::<u64>());
        (
            proptest::option::of(any::<u64>()),
            digest,
            proptest::option::of(".*"),
            ".*",
        )
            .prop_map(|(gate, digest, by, reason)| Mark {
                at: Timestamp::UNIX_EPOCH,
                gate: gate.map(GateId),
                digest: digest.map(|n| format!("effect1-{n:064x}").parse().expect("a digest")),
                by,
                reason,
            })
    }

    /// As it reads after one line has been made of each field.
    fn flat(mark: &Mark) -> Mark {
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let flat = |text: &str| -> String { text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect() };
        Mark {
            by: mark.by.as_deref().map(flat),
            reason: flat(&mark.reason),
            ..mark.clone()
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_is_written_the_same_again(mark in marks(), number in 1_u64..) {
            let name = name(ProposalPhase::Denied, ProposalNumber(number));
            let text = annotation(&name, &mark);
            // Git ends a message with one line feed, and readers take one away.
            for stored in [text.as_str(), text.trim_end_matches('\n')] {
                let read = parse_annotation(&name, stored, mark.at).expect("it was written here");
                prop_assert_eq!(&read, &flat(&mark));
                prop_assert_eq!(annotation(&name, &read), text.clone());
            }
        }

        #[test]
        fn whatever_a_tag_says_it_is_read_or_refused(text in any::<String>()) {
            if let Some(mark) = parse_annotation("proposal/1", &text, Timestamp::UNIX_EPOCH) {
                let written = annotation("proposal/1", &mark);
                prop_assert_eq!(written.trim_end_matches('\n'), text.trim_end_matches('\n'));
            }
        }

        #[test]
        fn every_phase_and_number_has_one_name(number in 1_u64.., index in 0..PHASES.len()) {
            let number = ProposalNumber(number);
            let name = name(PHASES[index], number);
            prop_assert_eq!(parse_name(&name), Some((PHASES[index], number)));
            prop_assert!(is_ours(&name));
        }
    }

    #[test]
    fn a_tag_of_somebody_else_is_no_decision() {
        for name in [
            "v1.0",
            "approved/",
            "approved/0",
            "approved/07",
            "approved/+7",
            "approved/7/8",
            "mine/7",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
        for text in [
            "",
            "approved/8\n\nby: unix:root\n",
            "approved/7\n\nby: unix:root\nmerge: yes\n",
            "approved/7\n\nreason: it is good\nby: unix:root\n",
            "approved/7\n\ngate: 007\n",
            "approved/7\n\nby: a\nby: b\n",
        ] {
            assert_eq!(
                parse_annotation("approved/7", text, Timestamp::UNIX_EPOCH),
                None,
                "{text:?}"
            );
        }
    }
}
