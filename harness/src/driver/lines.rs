//! Reads lines of any length without keeping more of them than is of use.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line that is looked at. What is longer is an event with a huge text in it, or no event at all.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// All of it.
    Whole(Vec<u8>),
    /// Its beginning; the rest was too long.
    Cut(Vec<u8>),
}

/// Cuts a stream into lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    stream: R,
    /// Read and not given yet.
    kept: Vec<u8>,
    /// How much of it was searched for an end of line.
    searched: usize,
    /// Whether the beginning of the line that runs was given already.
    skipping: bool,
    limit: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(stream: R) -> Self {
        Self::with_limit(stream, MAX_LINE)
    }

    fn with_limit(stream: R, limit: usize) -> Self {
        Self {
            stream,
            kept: Vec::new(),
            searched: 0,
            skipping: false,
            limit,
        }
    }

    /// The next line, without its end; nothing at the end of the stream. Cancel-safe.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.take() {
                return Ok(Some(piece));
            }
            let mut chunk = vec![0; CHUNK];
            let count = self.stream.read(&mut chunk).await?;
            if count == 0 {
                let last = std::mem::take(&mut self.kept);
                self.searched = 0;
                let some = !last.is_empty() && !self.skipping;
                return Ok(some.then_some(Piece::Whole(last)));
            }
            self.kept
                .extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    /// A line that is there already.
    fn take(&mut self) -> Option<Piece> {
        loop {
            let unsearched = self.kept.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.kept.len();
                return self.cut();
            };
            let end = self.searched + end;
            let rest = self.kept.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.kept, rest);
            self.searched = 0;
            line.pop();
            // The end of a line whose beginning was given.
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            return Some(Piece::Whole(line));
        }
    }

    fn cut(&mut self) -> Option<Piece> {
        if self.skipping {
            self.kept.clear();
            self.searched = 0;
            return None;
        }
        if self.kept.len() <= self.limit {
            return None;
        }
        self.skipping = true;
        self.searched = 0;
        let mut line = std::mem::take(&mut self.kept);
        line.truncate(1000);
        Some(Piece::Cut(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], limit: usize) -> Vec<Piece> {
        let mut lines = Lines::with_limit(text, limit);
        let mut all = Vec::new();
        while let Some(piece) = lines.next().await.expect("read") {
            all.push(piece);
        }
        all
    }

    fn whole(text: &str) -> Piece {
        Piece::Whole(text.into())
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_the_last_needs_no_end() {
        assert_eq!(lines(b"", 10).await, []);
        assert_eq!(lines(b"a\n\nb", 10).await, [whole("a"), whole(""), whole("b")]);
    }

    #[tokio::test]
    async fn of_a_line_that_is_too_long_only_the_beginning_is_given_and_the_next_is_whole() {
        let long = "x".repeat(3 * CHUNK);
        let text = format!("a\n{long}\nb\n");
        let pieces = lines(text.as_bytes(), CHUNK).await;
        assert_eq!(pieces.len(), 3, "{}", pieces.len());
        assert_eq!(pieces[0], whole("a"));
        assert_eq!(pieces[1], Piece::Cut(vec![b'x'; 1000]));
        assert_eq!(pieces[2], whole("b"));
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_once() {
        let long = "x".repeat(5 * CHUNK);
        let pieces = lines(long.as_bytes(), CHUNK).await;
        assert_eq!(pieces, [Piece::Cut(vec![b'x'; 1000])]);
    }
}
