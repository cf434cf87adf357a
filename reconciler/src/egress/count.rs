//! Counting what goes over a connection to the outside.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use shared::egress::Traffic;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of one agent.
#[derive(Debug, Default)]
pub(super) struct Counter {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counter {
    /// Takes what was counted.
    pub(super) fn take(&self) -> Traffic {
        Traffic {
            sent: self.sent.swap(0, Ordering::Relaxed),
            received: self.received.swap(0, Ordering::Relaxed),
        }
    }
}

/// A connection to the outside whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    inner: S,
    counter: Arc<Counter>,
    /// Whether anything went over it since this was asked last.
    moved: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, counter: Arc<Counter>) -> Self {
        Self {
            inner,
            counter,
            moved: Arc::default(),
        }
    }

    /// How many bytes went over it, both ways.
    pub(super) fn moved(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moved)
    }

    fn note(&self, bytes: usize, of: &AtomicU64) {
        of.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.note(buffer.filled().len() - before, &self.counter.received);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &outcome {
            self.note(*written, &self.counter.sent);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
