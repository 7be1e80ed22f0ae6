//! One datagram flow.

use std::future::poll_fn;

use bytes::Bytes;

use super::flow::Handle;
use crate::Refusal;

/// One datagram flow. Like UDP it may drop (when its bounded queue is full), never reorder; unlike UDP it is told
/// of a refused port.
pub struct Datagrams {
    handle: Handle,
}

impl Datagrams {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Queues one datagram of at most 65,507 bytes (longer: `Unsupported`); waits while the queue is full. Cancel-safe.
    pub async fn send(&self, datagram: Bytes) -> Result<(), Refusal> {
        poll_fn(|cx| self.handle.shared.lock().poll_send(self.handle.id, &datagram, cx.waker())).await
    }

    /// The next datagram; an error ends the flow ([`Refusal::Refused`]: the port is closed). Cancel-safe.
    pub async fn recv(&self) -> Result<Bytes, Refusal> {
        poll_fn(|cx| self.handle.shared.lock().poll_recv(self.handle.id, cx.waker())).await
    }

    /// Ends it, after what is queued, and tells the other side why.
    pub fn close(self, why: Refusal) {
        self.handle.shared.lock().close_datagrams(self.handle.id, why);
    }
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Datagrams").field(&self.handle.id.0).finish()
    }
}
