//! The tokio side. (Contract first: bodies follow.)

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Open, Refusal, SessionKey};

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

/// A byte stream on which both ends have proved the session key: a lane of the tunnel `id`.
pub struct Carrier {
    _todo: (),
}

impl Carrier {
    /// Handshake over `io`. Cancel-safe in the sense that dropping it only loses `io`. Limited to 10 s.
    pub async fn handshake<S>(_io: S, _role: Role, _key: &SessionKey, _id: TunnelId) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        todo!()
    }

    /// The tunnel it belongs to (on the agent: as the laptop said it).
    pub fn id(&self) -> TunnelId {
        todo!()
    }
}

/// A tunnel's handle, cheap to clone. When the last handle and the [`Incoming`] are gone, the tunnel closes.
#[derive(Clone)]
pub struct Tunnel {
    _todo: (),
}

impl Tunnel {
    /// A tunnel over its first carrier. The future drives it; who calls owns it (a `JoinSet`) and learns from its end
    /// why the tunnel ended. Dropping the future resets all flows.
    pub fn new(_role: Role, _carrier: Carrier) -> (Self, Incoming, impl Future<Output = io::Result<()>> + Send + 'static) {
        (Self { _todo: () }, Incoming { _todo: () }, async { todo!() })
    }

    /// Adds a lane.
    pub async fn attach(&self, _carrier: Carrier) -> Result<(), Refusal> {
        todo!()
    }

    /// Opens a byte stream and waits for the answer. Dropping the future cancels the open (a RESET follows).
    pub async fn open(&self, _open: Open) -> Result<Flow, Refusal> {
        todo!()
    }

    /// Opens a datagram flow and waits for the answer.
    pub async fn open_datagrams(&self, _open: Open) -> Result<Datagrams, Refusal> {
        todo!()
    }

    /// Smoothed round-trip time of the tunnel's own pings, once there was one.
    pub fn round_trip(&self) -> Option<Duration> {
        todo!()
    }

    /// Resolves when the tunnel has ended. Cancel-safe.
    pub async fn closed(&self) {
        todo!()
    }

    /// Says GOAWAY, lets queued bytes leave (at most 1 s), ends the tunnel.
    pub fn close(&self) {
        todo!()
    }
}

/// Flows that the other side opens. A bounded queue: when nobody takes them, further opens are refused as overloaded.
pub struct Incoming {
    _todo: (),
}

impl Incoming {
    /// The next request, `None` when the tunnel has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Request> {
        todo!()
    }
}

/// An open of the other side that waits for its answer. Dropping it refuses it as [`Refusal::Closed`].
pub struct Request {
    _todo: (),
}

impl Request {
    /// What is asked for.
    pub fn open(&self) -> &Open {
        todo!()
    }

    /// Answers *connected*: a byte stream.
    pub fn accept(self) -> Flow {
        todo!()
    }

    /// Answers *connected*: a datagram flow.
    pub fn accept_datagrams(self) -> Datagrams {
        todo!()
    }

    /// Answers with the reason.
    pub fn refuse(self, _why: Refusal) {
        todo!()
    }

    /// Resolves when the other side gave up waiting (its client went away). Cancel-safe.
    pub async fn cancelled(&self) {
        todo!()
    }
}

/// One byte stream. `shutdown` sends FIN (half-close: reading goes on); dropping it before both directions ended
/// sends RESET. A RESET of the other side is `ConnectionReset` on read and write, never an end of file.
pub struct Flow {
    _todo: (),
}

impl Flow {
    /// Ends it at once in both directions, as a RST does.
    pub fn reset(self) {
        todo!()
    }
}

impl AsyncRead for Flow {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncWrite for Flow {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

/// One datagram flow. Like UDP it may drop (when its bounded queue is full), never reorder; unlike UDP it is told
/// of a refused port.
pub struct Datagrams {
    _todo: (),
}

impl Datagrams {
    /// Queues one datagram of at most 65,507 bytes; waits while the queue is full. Cancel-safe.
    pub async fn send(&self, _datagram: Bytes) -> Result<(), Refusal> {
        todo!()
    }

    /// The next datagram; an error ends the flow ([`Refusal::Refused`]: the port is closed). Cancel-safe.
    pub async fn recv(&self) -> Result<Bytes, Refusal> {
        todo!()
    }

    /// Ends it and tells the other side why.
    pub fn close(self, _why: Refusal) {
        todo!()
    }
}
