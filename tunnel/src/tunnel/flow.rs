//! One byte stream.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{CopyEnd, shared::Shared};
use crate::{
    Refusal,
    proto::{FlowError, FlowId, connection::ReadOutcome},
};

/// The right to one flow of the state machine; dropping it gives the flow up.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) id: FlowId,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>, id: FlowId) -> Self {
        Self { shared, id }
    }

    /// The answer to our open. Not to be asked for again after a refusal.
    pub(super) async fn answer(&self) -> Result<(), Refusal> {
        poll_fn(|cx| self.shared.lock().poll_answer(self.id, cx.waker())).await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().release(self.id);
    }
}

/// One byte stream. `shutdown` sends FIN (half-close: reading goes on); dropping it before that sends RESET behind as
/// much of what was written as the other side has room for now. A RESET of the other side is `ConnectionReset` on write at
/// once and on read behind what was written before; never an end of file.
///
/// Dropped after `shutdown`, what was written still arrives with its end of file; only the other side's writing fails,
/// with `BrokenPipe`, and its reading goes on. When the tunnel ends, what had arrived can still be read, then comes
/// `ConnectionAborted`.
pub struct Flow {
    handle: Handle,
}

impl Flow {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Shows what has arrived to `sink`, which says how many of the bytes it took; it is called while the tunnel is locked.
    /// Pending when it took none, unless the flow was reset. 0 at the end.
    pub(super) fn poll_take(
        &self,
        waker: &Waker,
        sink: impl FnOnce(&[&[u8]]) -> usize,
    ) -> Poll<io::Result<usize>> {
        self.handle.shared.lock().poll_read(self.handle.id, sink, waker).map(|outcome| match outcome? {
            ReadOutcome::Bytes(count) => Ok(count),
            ReadOutcome::End => Ok(0),
        })
    }

    /// As [`Self::poll_take`], into a buffer.
    fn poll_take_into(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        self.poll_take(cx.waker(), |pieces| {
            let before = buf.remaining();
            for piece in pieces {
                buf.put_slice(&piece[..piece.len().min(buf.remaining())]);
            }
            before - buf.remaining()
        })
    }

    /// Lets `fill` put bytes into the flow's queue, once there is room for many; it says how many there are, and is called
    /// while the tunnel is locked.
    pub(super) fn poll_fill(
        &self,
        waker: &Waker,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        self.handle.shared.lock().poll_fill(self.handle.id, fill, waker).map_err(Into::into)
    }

    /// Whether nothing more can arrive for it, as the other side has reset it or the tunnel has ended.
    pub(super) fn is_over(&self) -> bool {
        self.handle.shared.lock().is_over(self.handle.id)
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Flow").field(&self.handle.id.0).finish()
    }
}

impl CopyEnd for Flow {
    fn as_flow(&self) -> Option<&Flow> {
        Some(self)
    }

    fn poll_readable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_take_into(cx, &mut ReadBuf::new(room))
    }

    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
        self.handle.shared.lock().poll_write(self.handle.id, first, cx.waker()).map_err(Into::into)
    }

    fn end(&self) -> io::Result<()> {
        self.handle.shared.lock().finish(self.handle.id).map_err(Into::into)
    }

    async fn stopped(&self) -> io::Result<()> {
        Ok(poll_fn(|cx| self.handle.shared.lock().poll_stopped(self.handle.id, cx.waker())).await?)
    }

    fn unsent(&self) -> usize {
        0
    }
}

impl AsyncRead for Flow {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_take_into(cx, buf).map_ok(|_| ())
    }
}

impl AsyncWrite for Flow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        CopyEnd::poll_write(&*self, cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver sends what is queued without being asked.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}

impl From<FlowError> for io::Error {
    fn from(error: FlowError) -> Self {
        let kind = match error {
            FlowError::Reset(_) => io::ErrorKind::ConnectionReset,
            FlowError::TunnelEnded => io::ErrorKind::ConnectionAborted,
            FlowError::Stopped | FlowError::Finished => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
