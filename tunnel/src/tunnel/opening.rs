//! A byte stream that was asked for and not answered yet.

use std::task::{Poll, Waker};

use super::flow::{Flow, Handle};
use crate::{Refusal, proto::window::EARLY};

/// An open on its way. Dropping it takes the open back.
pub struct Opening {
    handle: Handle,
}

impl Opening {
    /// Bytes that may leave ahead of the answer.
    pub const EARLY: usize = EARLY as usize;

    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Sends the beginning of `bytes`, at most [`Self::EARLY`] of them, ahead of the answer; those of a second call may
    /// wait for it. Returns how many are sent: none after a refusal. When the answer is a refusal nobody has read them.
    pub fn send_early(&self, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(Self::EARLY)];
        // No waker: what does not fit now is for the flow.
        let written = self.handle.shared.lock().poll_write(self.handle.id, bytes, Waker::noop());
        if let Poll::Ready(Ok(sent)) = written { sent } else { 0 }
    }

    /// Waits for the answer. Cancel-safe.
    pub async fn answer(&self) -> Result<(), Refusal> {
        self.handle.answer().await
    }

    /// The flow, after the answer. Reading and writing before it waits for the answer.
    pub fn into_flow(self) -> Flow {
        Flow::new(self.handle)
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Opening").field(&self.handle.id.0).finish()
    }
}
