//! Connections of the pod, and what relays them to a flow or to each other with TCP's own endings: an end of file is passed
//! on as a half-close, a reset as a reset.

use std::{future::poll_fn, io, net::SocketAddr, task::Poll, time::Duration};

use devproxy_tunnel::{CopyEnd, Flow, Opening, copy};
use socket2::{SockRef, TcpKeepalive};
use tokio::{io::ReadBuf, net::TcpStream};

/// A connection that is reset when it is dropped, unless it was [`Connection::finished`]: whatever ends a task early
/// (loss of the tunnel, a refusal, the agent's own end) must not look like an end of file to the peer.
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// A connection that was dialled.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self::prepare(&SockRef::from(&stream));
        Self(stream)
    }

    /// A connection from a listener that was [prepared](Self::prepare): Linux hands a listener's options on.
    pub(crate) fn accepted(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Sets what every connection has.
    pub(crate) fn prepare(socket: &socket2::Socket) {
        // SO_LINGER with 0 s makes close() send RST. Set at once: there is no later moment when a process is killed.
        let _ = socket.set_linger(Some(Duration::ZERO));
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_keepalive(&keepalive());
    }

    /// Our end's address.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Resolves when the peer has reset the connection.
    pub(crate) async fn reset(&self) {
        let _ = self.0.stopped().await;
    }

    /// The beginning of what the peer has said, once it has, for a look without taking it. Waits for ever if the
    /// connection ends before; [`Self::reset`] tells of that.
    pub(crate) async fn peek<T>(&self, mut look: impl FnMut(&[u8]) -> T) -> T {
        poll_fn(|cx| {
            let mut buffer = [0; Opening::EARLY];
            let mut seen = ReadBuf::new(&mut buffer);
            match self.0.poll_peek(cx, &mut seen) {
                Poll::Ready(Ok(_)) if !seen.filled().is_empty() => Poll::Ready(look(seen.filled())),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Takes `count` bytes that [`Self::peek`] has shown. An end before shows itself to whoever reads next.
    pub(crate) async fn skip(&self, mut count: usize) {
        while count > 0 {
            // The buffer is none of the future's: those of idle connections would each hold one.
            let read = poll_fn(|cx| {
                let mut buffer = [0; Opening::EARLY];
                self.0.poll_read(cx, &mut buffer[..count.min(Opening::EARLY)])
            });
            match read.await {
                Ok(read @ 1..) => count -= read,
                _ => return,
            }
        }
    }

    /// Both directions have ended: an ordinary close from now on.
    fn finished(self) {
        let _ = SockRef::from(&self.0).set_linger(None);
    }
}

/// The program's own keep-alive ends at its laptop's kernel; this one finds a peer that has vanished from the cluster.
/// Six minutes: longer than the failovers that idle connections survive in a pod.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_mins(2))
        .with_interval(Duration::from_secs(30))
        .with_retries(8)
}

/// Copies until both directions have ended, or one failed; then the connection is reset and the flow dropped, as it is
/// when this is cancelled.
pub(crate) async fn relay(connection: Connection, flow: Flow) {
    if copy(&connection.0, &flow, |_| (), |_| ()).await.is_ok() {
        connection.finished();
    }
}

/// As [`relay`] between two connections.
pub(crate) async fn relay_connections(first: Connection, second: Connection) {
    if copy(&first.0, &second.0, |_| (), |_| ()).await.is_ok() {
        first.finished();
        second.finished();
    }
}

#[cfg(test)]
mod tests;
