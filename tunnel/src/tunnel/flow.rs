//! One byte stream.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::Shared;
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

/// One byte stream. `shutdown` sends FIN (half-close: reading goes on); dropping it before both directions ended
/// sends RESET. A RESET of the other side is `ConnectionReset` on write at once and on read behind what was written
/// before, as far as the window let it pass; never an end of file.
///
/// Dropped after `shutdown`, what was written still arrives with its end of file; only the other side's writing is
/// reset. When the tunnel ends, what had arrived can still be read, then comes `ConnectionAborted`.
pub struct Flow {
    handle: Handle,
}

impl Flow {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Ends it in both directions, as a RST does: what was written arrives if the other side has room for it now.
    pub fn reset(self) {
        self.handle.shared.lock().reset(self.handle.id);
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

    /// Lets `fill` put bytes into the flow's queue, once there is room for many; it says how many there are, and is called
    /// while the tunnel is locked.
    pub(super) fn poll_fill(
        &self,
        waker: &Waker,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        self.handle.shared.lock().poll_fill(self.handle.id, fill, waker).map_err(Into::into)
    }

    /// Ready when the other side has reset the flow or the tunnel has ended, although nobody reads: for a task that
    /// waits for something else with bytes in hand. Wakes the task as a read does.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.handle.shared.lock().poll_cancelled(self.handle.id, cx.waker())
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Flow").field(&self.handle.id.0).finish()
    }
}

impl AsyncRead for Flow {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let sink = |pieces: &[&[u8]]| {
            let before = buf.remaining();
            for piece in pieces {
                buf.put_slice(&piece[..piece.len().min(buf.remaining())]);
            }
            before - buf.remaining()
        };
        self.poll_take(cx.waker(), sink).map_ok(|_| ())
    }
}

impl AsyncWrite for Flow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.handle.shared.lock().poll_write(self.handle.id, buf, cx.waker()));
        Poll::Ready(written.map_err(Into::into))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver sends what is queued without being asked.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.handle.shared.lock().finish(self.handle.id).map_err(Into::into))
    }
}

impl From<FlowError> for io::Error {
    fn from(error: FlowError) -> Self {
        let kind = match error {
            FlowError::Reset(_) => io::ErrorKind::ConnectionReset,
            FlowError::TunnelEnded => io::ErrorKind::ConnectionAborted,
            FlowError::Finished => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
