//! One gate in full: what happens on approval, why, and what it changes.

use shared::gate::{CapabilityChange, Gate, GateState};

use crate::cli::look::Look;
use crate::cli::page::{Page, Table, Tone};
use crate::cli::text::count;
use crate::cli::words;

pub(super) fn render(gate: &Gate, look: &Look) -> Page {
    let mut page = Page::default();
    title(&mut page, gate, look);
    page.gap();
    page.line(["  ".into(), Tone::Strong.of(&gate.view.summary)]);
    page.gap();
    facts(&mut page, gate, look);
    words_of_the_agent(&mut page, gate);
    capabilities(&mut page, &gate.view.capabilities);
    closure(&mut page, &gate.view.closure_diff);
    files(&mut page, gate);
    steps(&mut page, &gate.view.steps);
    commit_diff(&mut page, &gate.view.commit_diff);
    ending(&mut page, gate, look);
    page
}

/// The few lines shown with a decision: what is decided, and its digest.
pub(super) fn brief(gate: &Gate, look: &Look) -> Page {
    let mut page = Page::default();
    title(&mut page, gate, look);
    page.line(["  ".into(), Tone::Strong.of(&gate.view.summary)]);
    for change in gate.view.capabilities.iter().filter(|change| change.widens) {
        page.line([Tone::Warn.of("  ! widens "), Tone::Plain.of(&change.field)]);
    }
    page.line([Tone::Faint.of("  digest "), gate.digest.as_str().into()]);
    page
}

fn title(page: &mut Page, gate: &Gate, look: &Look) {
    page.line([
        Tone::Strong.of(format!("gate {}", gate.id)),
        Tone::Faint.of(" · "),
        words::gate_state(gate.state),
        Tone::Faint.of(" · "),
        gate.class.as_str().into(),
        Tone::Faint.of(format!(
            " · asked for by {} {}",
            words::asker(gate),
            look.relative(gate.opened_at)
        )),
    ]);
}

fn facts(page: &mut Page, gate: &Gate, look: &Look) {
    let mut table = Table::default();
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row([Tone::Faint.of(name), value.into()]);
        }
    };
    let agent = gate
        .agent
        .as_ref()
        .map_or_else(|| "the hive".to_owned(), ToString::to_string);
    let uid = gate.uid.map_or_else(String::new, |uid| format!(" (uid {uid})"));
    row("agent", Some(format!("{agent}{uid}")));
    row("proposal", gate.proposal.map(|number| number.to_string()));
    row("commit", gate.commit.as_ref().map(ToString::to_string));
    row("system", gate.system.clone());
    row("digest", Some(gate.digest.to_string()));
    row(
        "decision",
        gate.decision.as_ref().map(|decision| {
            let word = if decision.approve { "approved" } else { "denied" };
            let when = look.relative(decision.at);
            match decision.reason.as_str() {
                "" => format!("{word} by {} {when}", decision.by),
                reason => format!("{word} by {} {when}: {reason}", decision.by),
            }
        }),
    );
    row("begun", gate.consumed_at.map(|at| look.relative(at)));
    row("complete", gate.completed_at.map(|at| look.relative(at)));
    row("ended", gate.ended_because.clone());
    page.table(&table);
}

/// What the agent says about it stands apart from what the daemon says.
fn words_of_the_agent(page: &mut Page, gate: &Gate) {
    let said = [&gate.view.title, &gate.view.reason];
    if said.iter().all(|text| text.is_none()) {
        return;
    }
    page.heading("In the agent's own words");
    for text in said.into_iter().flatten() {
        page.quote(text);
    }
}

fn capabilities(page: &mut Page, changes: &[CapabilityChange]) {
    if changes.is_empty() {
        page.heading("Capabilities: unchanged");
        return;
    }
    let widening = changes.iter().filter(|change| change.widens).count();
    let verdict = match widening {
        0 => "none widens".to_owned(),
        1 => "1 widens".to_owned(),
        n => format!("{n} widen"),
    };
    page.heading(format!(
        "Capabilities: {}, {verdict}",
        count(changes.len(), "change")
    ));
    let (wider, other): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.widens);
    for change in wider.into_iter().chain(other) {
        let mark = if change.widens {
            Tone::Warn.of("  ! widens  ")
        } else {
            Tone::Faint.of("    within  ")
        };
        page.line([mark, Tone::Strong.of(&change.field)]);
        for (value, sign, tone) in [
            (&change.before, "      - ", Tone::Bad),
            (&change.after, "      + ", Tone::Good),
        ] {
            match value.as_deref() {
                None => {}
                Some("") => page.line([tone.of(sign), Tone::Faint.of("(empty)")]),
                // Each line has its sign, so a long prompt can be read and cannot pretend to be anything else.
                Some(value) => value
                    .lines()
                    .for_each(|line| page.line([tone.of(format!("{sign}{line}"))])),
            }
        }
    }
}

/// What the agent finds in its `/state` when it runs for the first time.
fn files(page: &mut Page, gate: &Gate) {
    if gate.view.files.is_empty() {
        return;
    }
    page.heading("Laid down in /state");
    let mut table = Table::default();
    for (path, file) in &gate.view.files {
        table.row([
            format!("  {path}").into(),
            format!("{} bytes", file.size).into(),
            Tone::Faint.of(format!("sha256 {}", file.digest.hex())),
        ]);
    }
    page.table(&table);
}

fn closure(page: &mut Page, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    page.heading("Closure");
    for line in lines {
        page.quote_toned(line, hunk_tone);
    }
}

fn steps(page: &mut Page, steps: &[String]) {
    if steps.is_empty() {
        return;
    }
    page.heading("Steps on approval");
    for (index, step) in steps.iter().enumerate() {
        page.line([Tone::Faint.of(format!("  {}. ", index + 1)), step.as_str().into()]);
    }
}

fn commit_diff(page: &mut Page, diff: &str) {
    if diff.is_empty() {
        return;
    }
    page.heading("Commit diff");
    // Within a hunk `--- x` is a line that goes, not a file's name.
    let mut in_hunk = false;
    page.quote_toned(diff, |line| {
        in_hunk = !line.starts_with("diff ") && (in_hunk || line.starts_with("@@"));
        if in_hunk { hunk_tone(line) } else { Tone::Strong }
    });
}

/// How a line of a diff looks.
fn hunk_tone(line: &str) -> Tone {
    match line.as_bytes().first() {
        Some(b'+') => Tone::Good,
        Some(b'-') => Tone::Bad,
        Some(b'@') => Tone::Info,
        _ => Tone::Plain,
    }
}

fn ending(page: &mut Page, gate: &Gate, look: &Look) {
    if gate.state != GateState::Open {
        page.gap();
        page.line([
            Tone::Faint.of("nothing to decide: the gate is "),
            words::gate_state(gate.state),
        ]);
        return;
    }
    let Gate { id, digest, .. } = gate;
    page.heading("Decide");
    let approve = look.command(&format!("hive gate approve {id} --digest {digest}"));
    let deny = look.command(&format!("hive gate deny {id} --digest {digest} --reason TEXT"));
    page.line(["  ".into(), approve]);
    page.line(["  ".into(), deny]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn a_gate_shows_everything_needed_to_decide() {
        let page = render(&fixtures::gate(), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r#"
        gate 3 · open · deployWidens · asked for by alice 3 m ago

          deploy proposal 2 of alice: 1 change widens what it can do

          agent     alice (uid 00000000-0000-4000-8000-000000000002)
          proposal  2
          commit    89abcdef0123456789abcdef0123456789abcdef
          system    system1-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
          digest    effect1-eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee

        In the agent's own words
          │ Use the search server
          │ The wiki is too large
          │ to read as a whole.

        Capabilities: 2 changes, 1 widens
          ! widens  mcpServers.search.command
              + /bin/search
            within  prompt
              - Look after the wiki.
              + Look.

        Closure
          │ + search 1.2

        Steps on approval
          1. write the new config
          2. alice reloads it between two turns

        Commit diff
          │ diff --git a/agent.json b/agent.json
          │ --- a/agent.json
          │ +++ b/agent.json
          │ @@ -1 +1 @@
          │ -{}
          │ +{"mcpServers":{"search":{"command":"/bin/search"}}}

        Decide
          hive gate approve 3 --digest effect1-eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
          hive gate deny 3 --digest effect1-eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee --reason TEXT
        "#);
    }

    #[test]
    fn an_added_line_is_shown_as_one_even_when_it_looks_like_a_file_name() {
        let mut gate = fixtures::gate();
        gate.view.commit_diff = "diff --git a/x b/x\n+++ b/x\n@@ -1 +1 @@\n+++ curl evil\n".to_owned();
        let page = render(&gate, &fixtures::look());
        assert!(page.as_ansi().contains("\x1b[1m+++ b/x\x1b[0m"));
        assert!(page.as_ansi().contains("\x1b[32m+++ curl evil\x1b[0m"));
    }

    #[test]
    fn every_line_of_a_changed_prompt_has_its_sign() {
        let mut gate = fixtures::gate();
        gate.view.capabilities.truncate(1);
        gate.view.capabilities[0].before = Some(String::new());
        gate.view.capabilities[0].after = Some("one\nDecide".to_owned());
        let page = fixtures::plain(&render(&gate, &fixtures::look()));
        assert!(
            page.contains("      - (empty)\n      + one\n      + Decide\n"),
            "{page}"
        );
    }

    #[test]
    fn a_decided_gate_offers_no_decision() {
        let page = fixtures::plain(&render(&fixtures::decided_gate(), &fixtures::look()));
        assert!(page.contains("approved by unix:root 1 m ago: fine"), "{page}");
        assert!(
            page.ends_with("nothing to decide: the gate is approved\n"),
            "{page}"
        );
        assert!(!page.contains("hive gate approve"), "{page}");
    }

    #[test]
    fn a_diff_cannot_pretend_to_be_the_end_of_the_page() {
        let mut gate = fixtures::gate();
        gate.view.commit_diff = "+x\n\nDecide\n  hive gate approve 9\n\u{202e}\x1b[2J".to_owned();
        let page = render(&gate, &fixtures::look());
        let forged: Vec<&str> = page
            .as_ansi()
            .lines()
            .filter(|line| line.contains("approve 9"))
            .collect();
        assert_eq!(forged.len(), 1);
        assert!(forged[0].contains("│ "), "{forged:?}");
        assert!(!page.as_ansi().contains("\x1b[2J"));
        assert!(!page.as_ansi().contains('\u{202e}'));
    }
}
