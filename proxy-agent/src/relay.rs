//! Copies bytes between a socket and another stream with TCP's own endings: an end of file is passed on as a
//! half-close, a reset as a reset.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use devproxy_tunnel::{CopyEnd, Duplex, Flow, Opening};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// How long a socket may take for the last bytes of an ended tunnel.
const LATE: Duration = Duration::from_secs(30);

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
        // EPOLLERR is set by a RST (sk_err), never by data or FIN.
        let _ = self.0.ready(Interest::ERROR).await;
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
            let read = poll_fn(|cx| {
                let mut buffer = [0; Opening::EARLY];
                let mut taken = ReadBuf::new(&mut buffer[..count.min(Opening::EARLY)]);
                Pin::new(&mut Socket(&self.0)).poll_read(cx, &mut taken).map_ok(|()| taken.filled().len())
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

/// Copies until both directions have ended, or one failed; then the connection is reset and the other stream dropped
/// (which resets it as well if it is a flow). Cancelling does the same.
pub(crate) async fn relay<S: Stream>(connection: Connection, mut other: S) {
    if copy(&connection, &mut other).await.is_ok() {
        connection.finished();
    }
}

/// As [`relay`] between two sockets.
pub(crate) async fn relay_connections(first: Connection, second: Connection) {
    if copy(&first, &mut Socket(&second.0)).await.is_ok() {
        first.finished();
        second.finished();
    }
}

async fn copy<S: Stream>(connection: &Connection, other: &mut S) -> io::Result<()> {
    let mut socket = Socket(&connection.0);
    let mut copy = Duplex::default();
    let mut reset = pin!(connection.reset());
    let mut late = None;
    poll_fn(|cx| {
        if copy.poll(cx, &mut socket, other, |_| (), |_| ())?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        // Reads tell of a reset only until the end of file was read; and not before, as bytes that arrived ahead of
        // a RST can still be read and belong to the other side.
        let reset = copy.forth.has_read_all() && reset.as_mut().poll(cx).is_ready();
        // A socket that takes no bytes keeps us from reading the other stream.
        let given_up = copy.back.is_blocked() && poll_given_up(cx, other, &mut late).is_ready();
        if reset || given_up {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Ready when bytes in hand need not be delivered any more: at once after a reset; [`LATE`] after the end of the
/// tunnel, which may have come in peace behind the last bytes.
fn poll_given_up<S: Stream>(
    cx: &mut Context<'_>,
    other: &mut S,
    late: &mut Option<Pin<Box<Sleep>>>,
) -> Poll<()> {
    match ready!(other.poll_end(cx)) {
        End::Reset => Poll::Ready(()),
        End::Over => late.get_or_insert_with(|| Box::pin(tokio::time::sleep(LATE))).as_mut().poll(cx),
    }
}

/// What a connection is copied to and from.
pub(crate) trait Stream: CopyEnd {
    /// Ready when the stream has ended before its time, without reading it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End>;
}

/// How a [`Stream`] ended before its time.
pub(crate) enum End {
    /// The other side has reset it.
    Reset,
    /// What carries it is gone.
    Over,
}

impl Stream for Flow {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        ready!(self.poll_ended(cx));
        // Writing nothing costs nothing and tells which it was.
        match Pin::new(self).poll_write(cx, &[]) {
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => Poll::Ready(End::Reset),
            _ => Poll::Ready(End::Over),
        }
    }
}

impl Stream for Socket<'_> {
    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<End> {
        // Between two pods at the session's end; the pod's own end ends it.
        Poll::Pending
    }
}

/// A [`TcpStream`] by shared reference, so that its readiness can be awaited beside.
struct Socket<'a>(&'a TcpStream);

impl CopyEnd for Socket<'_> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }
}

impl AsyncRead for Socket<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(into.initialize_unfilled()) {
                Ok(read) => {
                    into.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl Socket<'_> {
    fn poll_written(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(self.0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for Socket<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |socket| socket.try_write(from))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |socket| socket.try_write_vectored(from))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.0).shutdown(std::net::Shutdown::Write))
    }
}

#[cfg(test)]
mod tests;
