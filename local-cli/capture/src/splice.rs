//! Copies between two streams, both ways, with half-close and reset.
//!
//! An idle connection holds no buffer: each thread has one, a read that leads to a complete write never leaves it,
//! and only what the other end does not take at once is kept beside the connection until it is taken.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use devproxy_tunnel::Flow;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::scratch;

/// Chunks per poll and direction before the other connections of the thread get their turn.
const TURNS: usize = 8;

/// A stream that can be ended as a RST ends it.
pub(crate) trait Abort {
    /// Ends both directions at once; the other end sees a reset.
    fn abort(self);
}

impl Abort for TcpStream {
    fn abort(self) {
        // Closing a socket that lingers for zero seconds sends RST. Where that fails the close below is all there is.
        let _ = self.set_zero_linger();
    }
}

impl Abort for Flow {
    fn abort(self) {
        self.reset();
    }
}

/// Copies until both directions have ended. Returns the error of the end that failed; then the other end has been
/// reset. Dropping the future drops both streams.
pub(crate) async fn splice<A, B>(mut a: A, mut b: B, forth: &AtomicU64, back: &AtomicU64) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let mut to_b = Direction::new(forth);
    let mut to_a = Direction::new(back);
    let ended = poll_fn(|cx| {
        let first = to_b.poll(cx, &mut a, &mut b)?;
        let second = to_a.poll(cx, &mut b, &mut a)?;
        if first.is_ready() && second.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    if ended.is_err() {
        a.abort();
        b.abort();
    }
    ended
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Copying,
    Closing,
    Ended,
}

/// One of the two directions.
struct Direction<'a> {
    stage: Stage,
    /// Read but not yet taken by the writer, from `taken` on.
    rest: Vec<u8>,
    taken: usize,
    unflushed: bool,
    bytes: &'a AtomicU64,
}

impl<'a> Direction<'a> {
    fn new(bytes: &'a AtomicU64) -> Self {
        Self { stage: Stage::Copying, rest: Vec::new(), taken: 0, unflushed: false, bytes }
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.stage == Stage::Ended {
            return Poll::Ready(Ok(()));
        }
        scratch::with(|buffer| self.poll_with(cx, from, to, buffer))
    }

    fn poll_with<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        room: &mut [u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURNS {
            ready!(self.poll_rest(cx, to))?;
            if self.stage == Stage::Closing {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.stage = Stage::Ended;
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(room);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(read) => read?,
            }
            if buffer.filled().is_empty() {
                self.stage = Stage::Closing;
                continue;
            }
            self.unflushed = true;
            self.poll_chunk(cx, buffer.filled(), to)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what it can and keeps the rest.
    fn poll_chunk<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        mut chunk: &[u8],
        to: &mut W,
    ) -> io::Result<()> {
        while !chunk.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, chunk) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.bytes.fetch_add(count as u64, Ordering::Relaxed);
                    chunk = &chunk[count..];
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.rest = chunk.to_vec();
                    self.taken = 0;
                    break;
                }
            }
        }
        Ok(())
    }

    fn poll_rest<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.taken < self.rest.len() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.taken..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.bytes.fetch_add(count as u64, Ordering::Relaxed);
                    self.taken += count;
                }
            }
        }
        if !self.rest.is_empty() {
            self.rest = Vec::new();
            self.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
