//! What `hive spec check` says about a file.

use std::fmt::Write as _;

use camino::Utf8Path;

use super::{Fault, Parsed};

/// The faults of a file for people: one a line, `file:line: path: message`, and the count at the end.
pub fn report(path: &Utf8Path, parsed: &Parsed) -> String {
    let mut text = String::new();
    let mut count = 0_usize;
    for fault in parsed.all_faults() {
        count += 1;
        push_line(&mut text, path, fault);
    }
    let bad = parsed.bad_agents.len();
    let end = match &parsed.spec {
        Some(spec) if count == 0 => format!(
            "{path}: no faults; {} declared",
            counted(spec.agents.len(), "agent")
        ),
        Some(spec) => format!(
            "{path}: {}; {} would be accepted, {bad} would keep what is in force",
            counted(count, "fault"),
            counted(spec.agents.len(), "agent"),
        ),
        None => format!(
            "{path}: {}; the whole document would be refused, and the last good one stay in force",
            counted(count, "fault")
        ),
    };
    text.push_str(&end);
    text.push('\n');
    text
}

fn push_line(text: &mut String, path: &Utf8Path, fault: &Fault) {
    // Writing to a String cannot fail.
    let _infallible = match fault.line {
        Some(line) => writeln!(text, "{path}:{line}: {fault}"),
        None => writeln!(text, "{path}: {fault}"),
    };
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    #[test]
    fn the_report_names_each_fault_on_a_line_and_counts_them() {
        let path = Utf8Path::new("hive.json");
        let text = |document: &str| report(path, &parse(document.as_bytes()));
        insta::assert_snapshot!(text("{\"version\":1,\"hive\":{\"name\":\"h\"},\"agents\":{\"a\":{}}}"), @"hive.json: no faults; 1 agent declared");
        insta::assert_snapshot!(
            text("{\"version\":1,\n\"hive\":{\"name\":\"h\"},\n\"agents\":{\"a\":{},\n\"b\":{\n\"run\":\"pausd\"}}}"),
            @r#"
    hive.json:5: agents.b.run: unknown value "pausd"; did you mean "paused"?
    hive.json: 1 fault; 1 agent would be accepted, 1 would keep what is in force
    "#
        );
        insta::assert_snapshot!(text("{\"version\":1,\n"), @"
    hive.json:2: not valid JSON: EOF while parsing a value (line 2, column 0)
    hive.json: 1 fault; the whole document would be refused, and the last good one stay in force
    ");
    }
}
