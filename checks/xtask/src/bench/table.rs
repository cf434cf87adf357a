//! The table: what was measured, beside what, within which budget. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// One measured number, as the benchmarks print it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    what: String,
    agents: Option<u64>,
    value: f64,
    unit: String,
    anchor: Option<Anchor>,
    budget: Option<Budget>,
    note: String,
}

/// The raw cost, in the unit of the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Anchor {
    what: String,
    value: f64,
}

/// What must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Budget {
    AtMost(f64),
    RatioAtMost(f64),
    RatioAtLeast(f64),
}

/// Whether it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    /// It is.
    Kept,
    /// It is not.
    Broken,
    /// There is none.
    None,
}

impl Row {
    /// The value in units of the anchor.
    fn ratio(&self) -> Option<f64> {
        let anchor = self.anchor.as_ref().map(|anchor| anchor.value);
        anchor
            .filter(|anchor| *anchor > 0.0)
            .map(|anchor| self.value / anchor)
    }

    /// A ratio that could not be measured keeps nothing.
    pub(crate) fn verdict(&self) -> Verdict {
        let kept = match self.budget {
            None => return Verdict::None,
            Some(Budget::AtMost(limit)) => self.value <= limit,
            Some(Budget::RatioAtMost(limit)) => self.ratio().is_some_and(|ratio| ratio <= limit),
            Some(Budget::RatioAtLeast(limit)) => self.ratio().is_some_and(|ratio| ratio >= limit),
        };
        if kept { Verdict::Kept } else { Verdict::Broken }
    }

    /// One line, as soon as it is known.
    pub(crate) fn short(&self) -> String {
        self.cells().join("  ")
    }

    fn cells(&self) -> [String; 7] {
        let measured = |value: f64| format!("{} {}", figure(value), self.unit);
        [
            self.what.clone(),
            self.agents.map(|agents| agents.to_string()).unwrap_or_default(),
            measured(self.value),
            self.anchor
                .as_ref()
                .map(|anchor| format!("{}: {}", anchor.what, measured(anchor.value)))
                .unwrap_or_default(),
            self.ratio()
                .map(|ratio| format!("{}x", figure(ratio)))
                .unwrap_or_default(),
            match self.budget {
                None => String::new(),
                Some(Budget::AtMost(limit)) => format!("at most {limit} {}", self.unit),
                Some(Budget::RatioAtMost(limit)) => format!("at most {limit}x"),
                Some(Budget::RatioAtLeast(limit)) => format!("at least {limit}x"),
            },
            match self.verdict() {
                Verdict::Kept => "kept".to_owned(),
                Verdict::Broken => "BROKEN".to_owned(),
                Verdict::None => String::new(),
            },
        ]
    }
}

/// Three figures, more where there is more before the point.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// The rows with their ratios and verdicts, for programs.
pub(crate) fn judged(rows: &[Row]) -> Vec<serde_json::Value> {
    let judged = |row: &Row| {
        let mut value = serde_json::json!(row);
        value["ratio"] = serde_json::json!(row.ratio());
        value["verdict"] = serde_json::json!(row.verdict());
        value
    };
    rows.iter().map(judged).collect()
}

/// The rows as a table that is Markdown too, and below it how each number came about.
pub(crate) fn render(rows: &[Row]) -> String {
    let heads = [
        "What", "Agents", "Measured", "Beside", "Ratio", "Budget", "Verdict",
    ];
    let cells: Vec<[String; 7]> = rows.iter().map(Row::cells).collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let of_row = |row: &[String; 7]| row[column].chars().count();
            cells
                .iter()
                .map(of_row)
                .chain([heads[column].len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let mut line = |cells: [&str; 7]| {
        for (cell, width) in cells.iter().zip(&widths) {
            // Writing to a text cannot fail.
            let _written = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
    };
    line(heads);
    let rules = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>();
    line(std::array::from_fn(|column| rules[column].as_str()));
    for row in &cells {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    text.push('\n');
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        let agents = row
            .agents
            .map(|agents| format!(" ({agents} agents)"))
            .unwrap_or_default();
        let _written = writeln!(text, "- {}{agents}: {}", row.what, row.note);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, anchor: Option<f64>, budget: Option<Budget>) -> Row {
        let anchor = anchor.map(|value| Anchor {
            what: "raw".to_owned(),
            value,
        });
        Row {
            what: "a thing".to_owned(),
            agents: Some(10),
            value,
            unit: "ms".to_owned(),
            anchor,
            budget,
            note: "measured".to_owned(),
        }
    }

    #[test]
    fn a_budget_is_kept_up_to_its_limit_and_broken_beyond_it() {
        let verdict = |value, anchor, budget| row(value, anchor, Some(budget)).verdict();
        assert_eq!(verdict(0.0, None, Budget::AtMost(0.0)), Verdict::Kept);
        assert_eq!(verdict(0.1, None, Budget::AtMost(0.0)), Verdict::Broken);
        assert_eq!(verdict(4.0, Some(2.0), Budget::RatioAtMost(2.0)), Verdict::Kept);
        assert_eq!(verdict(4.1, Some(2.0), Budget::RatioAtMost(2.0)), Verdict::Broken);
        assert_eq!(verdict(0.7, Some(1.0), Budget::RatioAtLeast(0.7)), Verdict::Kept);
        assert_eq!(
            verdict(0.6, Some(1.0), Budget::RatioAtLeast(0.7)),
            Verdict::Broken
        );
        assert_eq!(row(1.0, None, None).verdict(), Verdict::None);
    }

    #[test]
    fn a_ratio_without_an_anchor_is_never_kept() {
        for anchor in [None, Some(0.0)] {
            assert_eq!(
                row(1.0, anchor, Some(Budget::RatioAtMost(2.0))).verdict(),
                Verdict::Broken
            );
            assert_eq!(
                row(1.0, anchor, Some(Budget::RatioAtLeast(0.5))).verdict(),
                Verdict::Broken
            );
        }
    }

    #[test]
    fn a_number_that_is_none_is_never_kept() {
        let budgets = [
            Budget::AtMost(1.0),
            Budget::RatioAtMost(1.0),
            Budget::RatioAtLeast(1.0),
        ];
        for budget in budgets {
            assert_eq!(row(f64::NAN, Some(1.0), Some(budget)).verdict(), Verdict::Broken);
        }
    }

    #[test]
    fn the_table_is_aligned_and_shows_the_verdict() {
        let rows = [
            row(1.5, Some(1.0), Some(Budget::RatioAtMost(2.0))),
            row(1234.0, None, Some(Budget::AtMost(20.0))),
        ];
        let text = render(&rows);
        let expected = "\
| What    | Agents | Measured | Beside       | Ratio | Budget        | Verdict |
| ------- | ------ | -------- | ------------ | ----- | ------------- | ------- |
| a thing | 10     | 1.50 ms  | raw: 1.00 ms | 1.50x | at most 2x    | kept    |
| a thing | 10     | 1234 ms  |              |       | at most 20 ms | BROKEN  |

- a thing (10 agents): measured
- a thing (10 agents): measured
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_the_benchmarks_print_is_read() {
        let line = r#"{"what":"x","agents":null,"value":2.0,"unit":"/s","anchor":{"what":"y","value":1.0},
                       "budget":{"ratioAtLeast":0.7},"note":""}"#;
        let row: Row = serde_json::from_str(line).expect("a row");
        assert_eq!(row.verdict(), Verdict::Kept);
        assert_eq!(judged(&[row])[0]["ratio"], 2.0);
    }
}
