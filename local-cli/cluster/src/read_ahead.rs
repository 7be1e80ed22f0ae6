//! A connection that is read in large pieces. rustls asks its socket for 4 KiB at a time: four system calls for a TLS
//! record of 16 KiB.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// Bytes of one read: what a carrier has under way in a moment of load.
const PIECE: usize = 64 << 10;

/// Wraps the socket below TLS. Its buffer is made at the first read.
pub(crate) struct ReadAhead<S> {
    socket: S,
    /// `piece[start..end]` is read and not yet taken.
    piece: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, piece: Box::default(), start: 0, end: 0 }
    }
}

impl<S: Read + Unpin> Read for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start == this.end {
            if this.piece.is_empty() {
                this.piece = vec![0; PIECE].into_boxed_slice();
            }
            let mut buffer = hyper::rt::ReadBuf::new(&mut this.piece);
            ready!(Pin::new(&mut this.socket).poll_read(cx, buffer.unfilled()))?;
            (this.start, this.end) = (0, buffer.filled().len());
        }
        let taken = into.remaining().min(this.end - this.start);
        into.put_slice(&this.piece[this.start..this.start + taken]);
        this.start += taken;
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }
}

impl<S: Connection> Connection for ReadAhead<S> {
    fn connected(&self) -> Connected {
        self.socket.connected()
    }
}
