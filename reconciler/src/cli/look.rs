//! What a page needs besides the document: the time, and how the operator reaches this daemon.

use jiff::{SignedDuration, Timestamp};

use super::page::{Span, Tone};
use super::text::shell_word;

/// From when, and from where, a page is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Now.
    pub(crate) now: Timestamp,
    /// The socket, when it is not the default one: commands must name it to be exact.
    pub(crate) socket: Option<String>,
}

impl Look {
    /// `3 m ago`, or `in 3 m`.
    pub(crate) fn relative(&self, at: Timestamp) -> String {
        let past = self.now.duration_since(at);
        if past.unsigned_abs().as_secs() == 0 {
            "now".to_owned()
        } else if past.is_positive() {
            format!("{} ago", span(past))
        } else {
            format!("in {}", span(past))
        }
    }

    /// `3 m`, for how long something has lasted.
    pub(crate) fn lasted(&self, since: Timestamp) -> String {
        span(self.now.duration_since(since))
    }

    /// A hint, in which commands are as they must be typed.
    pub(crate) fn hint(&self, hint: &str) -> Span {
        match &self.socket {
            None => hint.into(),
            Some(_) if hint.starts_with("hive ") => self.command(hint),
            Some(socket) => hint
                .replace("`hive ", &format!("`hive --socket {} ", shell_word(socket)))
                .into(),
        }
    }

    /// A command line as it must be typed.
    pub(crate) fn command(&self, command: &str) -> Span {
        let text = match (&self.socket, command.strip_prefix("hive ")) {
            (Some(socket), Some(rest)) => format!("hive --socket {} {rest}", shell_word(socket)),
            _ => command.to_owned(),
        };
        Tone::Info.of(text)
    }
}

/// A length of time in its largest unit.
fn span(duration: SignedDuration) -> String {
    let secs = duration.unsigned_abs().as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} m", secs / 60),
        3_600..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// The time as a log line shows it.
pub(crate) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A length of time as typed: `90s`, `2h`, `1d 12h`; days have 24 hours.
pub(crate) fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    const YEAR: SignedDuration = SignedDuration::from_hours(366 * 24);
    let refused = || format!("{text:?} is not a length of time up to a year, such as 90s, 30m, 2h or 1d");
    let span: jiff::Span = text.parse().map_err(|_| refused())?;
    let duration = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| refused())?;
    if duration.is_positive() && duration <= YEAR {
        Ok(duration)
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().expect("time");
        let look = Look { now, socket: None };
        let shown: Vec<String> = [0, 59, 60, 3_599, 3_600, 172_799, 172_800, -90]
            .iter()
            .map(|secs| look.relative(now - SignedDuration::from_secs(*secs)))
            .collect();
        let expected = [
            "now", "59 s ago", "1 m ago", "59 m ago", "1 h ago", "47 h ago", "2 d ago", "in 1 m",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn lengths_of_time_are_positive_and_at_most_a_year() {
        assert_eq!(parse_duration("2h"), Ok(SignedDuration::from_hours(2)));
        assert_eq!(parse_duration("1d 12h"), Ok(SignedDuration::from_hours(36)));
        for bad in ["", "2", "0s", "-2h", "2h ago", "1mo", "9999d", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn commands_name_a_socket_that_is_not_the_default() {
        let look = Look {
            now: Timestamp::UNIX_EPOCH,
            socket: Some("/tmp/a b.sock".to_owned()),
        };
        let expected = Tone::Info.of("hive --socket '/tmp/a b.sock' gate show 3");
        assert_eq!(look.command("hive gate show 3"), expected);
        assert_eq!(
            look.command("systemctl status x"),
            Tone::Info.of("systemctl status x")
        );
    }
}
