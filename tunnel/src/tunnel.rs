//! The tokio side: handles that share the state machine with the future that drives it.

mod carrier;
mod copy;
mod datagrams;
mod driver;
mod flow;
mod incoming;
mod opening;
mod shared;
mod socket;

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

pub use carrier::Carrier;
pub use copy::{CopyEnd, copy};
pub use datagrams::Datagrams;
pub use flow::Flow;
pub use incoming::{Incoming, Request};
pub use opening::Opening;

use self::{driver::Driver, flow::Handle, shared::Shared};
use crate::{Open, Refusal, proto::Limits};

/// Which end this is. The laptop connects, the agent accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Starts the handshake, opens even flow ids.
    Laptop,
    /// Answers the handshake, opens odd flow ids.
    Agent,
}

/// Names one tunnel of a session: carriers of the same id are lanes of the same tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TunnelId(pub u64);

/// A tunnel's handle, cheap to clone. When the last handle and the [`Incoming`] are gone, the tunnel closes.
#[derive(Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
    _open: Arc<KeepOpen>,
}

/// Closes the tunnel when its last copy is dropped.
struct KeepOpen(Arc<Shared>);

impl Drop for KeepOpen {
    fn drop(&mut self) {
        self.0.lock().close(shared::now());
    }
}

impl Tunnel {
    /// A tunnel over its first carrier. The future drives it; who calls owns it (a `JoinSet`) and learns from its end
    /// why the tunnel ended: `Ok` when either side closed it, `UnexpectedEof` or the carrier's own error when a
    /// carrier was lost, `TimedOut` when one fell silent, `InvalidData` when the other side broke the protocol.
    /// Dropping the future ends all flows with an error.
    pub fn new(
        role: Role,
        carrier: Carrier,
    ) -> (Self, Incoming, impl Future<Output = io::Result<()>> + Send + 'static) {
        Self::with_limits(role, carrier, Limits::default())
    }

    /// As [`Self::new`] with other bounds: an agent in a small container holds less.
    pub fn with_limits(
        role: Role,
        carrier: Carrier,
        limits: Limits,
    ) -> (Self, Incoming, impl Future<Output = io::Result<()>> + Send + 'static) {
        let shared = Arc::new(Shared::new(role, limits, carrier.id()));
        let driver = Driver::new(Arc::clone(&shared), carrier);
        let open = Arc::new(KeepOpen(Arc::clone(&shared)));
        let incoming = Incoming::new(Arc::clone(&shared), Arc::clone(&open));
        (Self { shared, _open: open }, incoming, driver)
    }

    /// Adds a lane. Refused as `Unsupported` when the carrier is of another tunnel, as `Overloaded` beyond 16 lanes.
    #[expect(clippy::unused_async, reason = "a later lane may have to be agreed with the other side")]
    pub async fn attach(&self, carrier: Carrier) -> Result<(), Refusal> {
        self.shared.attach(carrier)
    }

    /// Opens a byte stream and waits for the answer. Dropping the future cancels the open (a RESET follows).
    pub async fn open(&self, open: Open) -> Result<Flow, Refusal> {
        let opening = self.begin(&open)?;
        opening.answer().await?;
        Ok(opening.into_flow())
    }

    /// Asks for a byte stream; bytes may follow before the answer.
    pub fn begin(&self, open: &Open) -> Result<Opening, Refusal> {
        if open.is_datagram() {
            return Err(Refusal::Unsupported);
        }
        Ok(Opening::new(self.ask(open)?))
    }

    /// Opens a datagram flow and waits for the answer.
    pub async fn open_datagrams(&self, open: Open) -> Result<Datagrams, Refusal> {
        if !open.is_datagram() {
            return Err(Refusal::Unsupported);
        }
        let handle = self.ask(&open)?;
        handle.answer().await?;
        Ok(Datagrams::new(handle))
    }

    /// Smoothed round-trip time of the tunnel's own pings, once there was one.
    pub fn round_trip(&self) -> Option<Duration> {
        self.shared.lock().round_trip()
    }

    /// Resolves when the tunnel has ended. Cancel-safe.
    pub async fn closed(&self) {
        poll_fn(|cx| match self.shared.lock().poll_ended(cx.waker()) {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        })
        .await;
    }

    /// Says GOAWAY, lets queued bytes leave (at most 1 s), ends the tunnel.
    pub fn close(&self) {
        self.shared.lock().close(shared::now());
    }

    fn ask(&self, open: &Open) -> Result<Handle, Refusal> {
        let id = self.shared.lock().open(open)?;
        Ok(Handle::new(Arc::clone(&self.shared), id))
    }
}
