//! Flows that the other side opens.

use std::{future::poll_fn, sync::Arc, task::Poll};

use super::{Datagrams, Flow, KeepOpen, flow::Handle, shared::Shared};
use crate::{Open, Refusal};

/// Flows that the other side opens. A bounded queue: when nobody takes them, further opens are refused as overloaded.
/// Once it is dropped, all are refused as closed.
pub struct Incoming {
    shared: Arc<Shared>,
    _open: Arc<KeepOpen>,
}

impl Incoming {
    pub(super) fn new(shared: Arc<Shared>, open: Arc<KeepOpen>) -> Self {
        Self { shared, _open: open }
    }

    /// The next request, `None` when the tunnel has ended or is closing. Cancel-safe.
    pub async fn next(&mut self) -> Option<Request> {
        let (id, open) = poll_fn(|cx| self.shared.lock().poll_request(cx.waker())).await?;
        Some(Request { handle: Handle::new(Arc::clone(&self.shared), id), open })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.shared.lock().refuse_requests();
    }
}

/// An open of the other side that waits for its answer. Dropping it refuses it as [`Refusal::Closed`].
pub struct Request {
    handle: Handle,
    open: Open,
}

impl Request {
    /// What is asked for.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Answers *connected*: a byte stream. (A datagram request is refused as unsupported and the flow is dead.)
    pub fn accept(self) -> Flow {
        self.answer(false);
        Flow::new(self.handle)
    }

    /// Answers *connected*: a datagram flow. (A stream request is refused as unsupported and the flow is dead.)
    pub fn accept_datagrams(self) -> Datagrams {
        self.answer(true);
        Datagrams::new(self.handle)
    }

    /// Answers with the reason.
    pub fn refuse(self, why: Refusal) {
        self.handle.shared.lock().refuse(self.handle.id, why);
    }

    /// Resolves when the other side gave up waiting (its client went away). Cancel-safe.
    pub async fn cancelled(&self) {
        poll_fn(|cx| -> Poll<()> { self.handle.shared.lock().poll_cancelled(self.handle.id, cx.waker()) })
            .await;
    }

    fn answer(&self, datagrams: bool) {
        let mut connection = self.handle.shared.lock();
        if self.open.is_datagram() == datagrams {
            connection.accept(self.handle.id);
        } else {
            connection.refuse(self.handle.id, Refusal::Unsupported);
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("id", &self.handle.id.0).field("open", &self.open).finish()
    }
}
