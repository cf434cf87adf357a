//! What a command shows: lines and tables of styled text.
//!
//! Text enters a page only through [`Span`], which cleans it; escape sequences leave it only through [`Tone`]. So
//! no renderer can forget to sanitise, and nothing an agent wrote can colour or move anything.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::text::clean;

/// What a piece of text means, which decides how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Ordinary.
    Plain,
    /// A heading or a name.
    Strong,
    /// Good to know, easily skipped.
    Faint,
    /// As wanted.
    Good,
    /// Needs a look.
    Warn,
    /// Broken, or destroys something.
    Bad,
    /// In progress, or a command to run.
    Info,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Info => AnsiColor::Cyan.on_default(),
        }
    }

    /// A piece of text in this tone.
    pub(crate) fn of(self, text: impl AsRef<str>) -> Span {
        Span {
            tone: self,
            text: clean(text.as_ref()),
        }
    }
}

/// A piece of clean text in one tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    tone: Tone,
    text: String,
}

impl Span {
    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn write(&self, out: &mut String) {
        let style = self.tone.style();
        if style == Style::new() || self.text.is_empty() {
            out.push_str(&self.text);
        } else {
            // Writing to a String cannot fail.
            write!(out, "{style}{}{style:#}", self.text).unwrap_or_default();
        }
    }
}

impl From<&str> for Span {
    fn from(text: &str) -> Self {
        Tone::Plain.of(text)
    }
}

impl From<String> for Span {
    fn from(text: String) -> Self {
        Tone::Plain.of(text)
    }
}

/// Lines to show, in order.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// A line of spans, one directly after the other.
    pub(crate) fn line(&mut self, spans: impl IntoIterator<Item = Span>) {
        for span in spans {
            span.write(&mut self.text);
        }
        self.text.push('\n');
    }

    /// An empty line, unless the page is empty or ends with one.
    pub(crate) fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// A heading with a gap above it.
    pub(crate) fn heading(&mut self, text: impl AsRef<str>) {
        self.gap();
        self.line([Tone::Strong.of(text)]);
    }

    /// Text somebody else wrote, behind a bar that it cannot leave.
    pub(crate) fn quote(&mut self, text: &str) {
        self.quote_toned(text, |_| Tone::Plain);
    }

    /// The same, with a tone for each line.
    pub(crate) fn quote_toned(&mut self, text: &str, mut tone: impl FnMut(&str) -> Tone) {
        for line in text.lines() {
            let bar = Tone::Faint.of("  │ ");
            self.line([bar, tone(line).of(line)]);
        }
    }

    /// The rows of a table.
    pub(crate) fn table(&mut self, table: &Table) {
        for row in &table.rows {
            self.text.push_str("  ");
            let filled = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
            for (column, cell) in row.iter().enumerate().take(filled + 1) {
                cell.write(&mut self.text);
                if column < filled {
                    let pad = table.width(column).saturating_sub(cell.width()) + 2;
                    self.text.extend(std::iter::repeat_n(' ', pad));
                }
            }
            self.text.push('\n');
        }
    }

    /// The page with escape sequences for its tones.
    pub(crate) fn as_ansi(&self) -> &str {
        &self.text
    }
}

/// Rows whose columns line up. The last column is never padded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Span>>,
}

impl Table {
    /// A table with a line of column names.
    pub(crate) fn with_header(names: &[&str]) -> Self {
        Self {
            rows: vec![names.iter().map(|name| Tone::Faint.of(name)).collect()],
        }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Span>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter(|row| row.len() > column + 1);
        cells.map(|row| row[column].width()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let mut table = Table::with_header(&["A", "LONG", "C"]);
        table.row(["x".into(), "y".into(), "z".into()]);
        table.row([Tone::Plain.of("wide cell"), "".into(), "".into()]);
        let mut page = Page::default();
        page.table(&table);
        assert_eq!(
            anstream::adapter::strip_str(page.as_ansi()).to_string(),
            "  A          LONG  C\n  x          y     z\n  wide cell\n"
        );
    }

    #[test]
    fn quoted_text_cannot_leave_its_bar_or_colour_anything() {
        let mut page = Page::default();
        page.quote("one\n\x1b[0mDecide\r\nhive gate approve 9");
        let shown = anstream::adapter::strip_str(page.as_ansi()).to_string();
        assert_eq!(shown, "  │ one\n  │ ␛[0mDecide\n  │ hive gate approve 9\n");
    }

    #[test]
    fn the_page_holds_no_escape_sequence_but_its_own() {
        let mut page = Page::default();
        page.line([Tone::Good.of("\x1b[31mred")]);
        assert_eq!(page.as_ansi(), "\x1b[32m␛[31mred\x1b[0m\n");
    }
}
