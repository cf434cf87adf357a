//! Prometheus' text format, version 0.0.4: families with a help line, a type, and samples.

use std::fmt::{Display, Write as _};

/// What kind of number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only rises, until the daemon ends.
    Counter,
}

/// The text under construction.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// The family that samples go to. One without samples leaves no trace.
pub(super) struct Family<'a> {
    text: &'a mut String,
    /// Help and type, until the first sample.
    head: Option<String>,
    name: String,
}

impl Exposition {
    /// Begins a family.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        Family {
            text: &mut self.text,
            head: Some(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")),
            name: name.to_owned(),
        }
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        if let Some(head) = self.head.take() {
            self.text.push_str(&head);
        }
        self.text.push_str(&self.name);
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        if !labels.is_empty() {
            // Writing to a String cannot fail.
            write!(self.text, "{{{}}}", labels.join(",")).unwrap_or_default();
        }
        writeln!(self.text, " {value}").unwrap_or_default();
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_head_once_and_none_without_samples() {
        let mut out = Exposition::default();
        out.family("empty", Kind::Gauge, "Nothing.");
        let mut family = out.family("a_total", Kind::Counter, "Of two\nlines \\ and a bar.");
        family.sample(&[("who", "al\"ice\\\n"), ("b", "c")], 1);
        family.sample(&[], "2.5");
        assert_eq!(
            out.into_text(),
            "# HELP a_total Of two\\nlines \\\\ and a bar.\n# TYPE a_total counter\n\
             a_total{who=\"al\\\"ice\\\\\\n\",b=\"c\"} 1\na_total 2.5\n"
        );
    }
}
