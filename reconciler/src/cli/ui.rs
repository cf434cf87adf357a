//! Where output goes. Data goes to standard output, everything else to standard error.

use std::io::Write;

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;
use serde_json::json;

use super::error::CliError;
use super::look::Look;
use super::page::{Page, Tone};
use super::text::escape_json;

// The variants have no item docs, because clap would print them as a long list in every `--help`.
/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// How much is printed, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Pages for people.
    Human,
    /// JSON documents.
    Json,
    /// Nothing but errors.
    Quiet,
}

/// The two output streams.
pub(crate) struct Ui {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    form: Form,
}

impl Ui {
    /// Standard output and standard error.
    pub(crate) fn standard(form: Form, color: Color) -> Self {
        Self {
            out: Box::new(AutoStream::new(std::io::stdout(), color.into())),
            err: Box::new(AutoStream::new(std::io::stderr(), color.into())),
            form,
        }
    }

    /// Any two streams; what is written has its escape sequences.
    #[cfg(test)]
    pub(crate) fn of(form: Form, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self { out, err, form }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Shows `document` as JSON, or the page that `render` makes of it.
    pub(crate) fn show<T: Serialize>(
        &mut self,
        document: &T,
        render: impl FnOnce() -> Page,
    ) -> Result<(), CliError> {
        match self.form {
            Form::Human => self.page(&render()),
            Form::Json => self.raw_json(document),
            Form::Quiet => Ok(()),
        }
    }

    /// Prints a document that has no other form than JSON.
    pub(crate) fn raw_json<T: Serialize>(&mut self, document: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(document).map_err(std::io::Error::from)?;
        self.print(&format!("{}\n", escape_json(&text)))
    }

    /// The same as [`Self::show`] with the document on one line, for streams of documents.
    pub(crate) fn show_line<T: Serialize>(
        &mut self,
        document: &T,
        render: impl FnOnce() -> Page,
    ) -> Result<(), CliError> {
        if self.form != Form::Json {
            return self.show(document, render);
        }
        let text = serde_json::to_string(document).map_err(std::io::Error::from)?;
        self.print(&format!("{}\n", escape_json(&text)))
    }

    /// Shows a page to people only.
    pub(crate) fn page(&mut self, page: &Page) -> Result<(), CliError> {
        match self.form {
            Form::Human => self.print(page.as_ansi()),
            Form::Json | Form::Quiet => Ok(()),
        }
    }

    /// Prints text that is meant for a program, as it is.
    pub(crate) fn raw_text(&mut self, text: &str) -> Result<(), CliError> {
        self.print(text)
    }

    /// Shows text that is meant for a program: as it is, or in a document.
    pub(crate) fn show_text<T: Serialize>(&mut self, document: &T, text: &str) -> Result<(), CliError> {
        match self.form {
            Form::Human => self.print(text),
            Form::Json => self.raw_json(document),
            Form::Quiet => Ok(()),
        }
    }

    fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }

    /// Says something that is not part of the output.
    pub(crate) fn note(&mut self, text: &str) -> Result<(), CliError> {
        let mut page = Page::default();
        page.line([Tone::Warn.of("note:"), " ".into(), text.into()]);
        match self.form {
            Form::Human => self.err.write_all(page.as_ansi().as_bytes())?,
            Form::Json => writeln!(self.err, "{}", escape_json(&json!({ "note": text }).to_string()))?,
            Form::Quiet => {}
        }
        Ok(())
    }

    /// Reports why the command failed. When even that fails there is nobody left to tell.
    pub(crate) fn error(&mut self, error: &CliError, look: &Look) {
        let error = error.to_wire();
        let text = if self.form == Form::Json {
            let text = serde_json::to_string(&error).unwrap_or_else(|_| error.message.clone());
            format!("{}\n", escape_json(&text))
        } else {
            let mut page = Page::default();
            page.line([Tone::Bad.of("error:"), " ".into(), error.message.as_str().into()]);
            if let Some(hint) = &error.hint {
                page.line([Tone::Info.of("hint:"), " ".into(), look.hint(hint)]);
            }
            page.as_ansi().to_owned()
        };
        self.err
            .write_all(text.as_bytes())
            .and_then(|()| self.err.flush())
            .unwrap_or_default();
    }
}
