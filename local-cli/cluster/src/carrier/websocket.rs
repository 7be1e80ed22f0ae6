//! Port-forward by WebSocket (`v4.channel.k8s.io`, `v5` alike): every binary message begins with a channel, 0 for data
//! and 1 for an error text; the first message on each holds the port, two bytes little-endian. The runtime copies every
//! frame through an unbuffered pipe: so one port per WebSocket, and frames of tens of kilobytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        protocol::{Role, WebSocketConfig},
    },
};

/// Largest frame that we send, in bytes of payload.
const LARGEST_FRAME: usize = 64 << 10;
/// Largest message that we take; the runtime sends what it read at once, 32 KiB.
const LARGEST_MESSAGE: usize = 1 << 20;
/// Bytes asked of the connection at once. All of them are cleared before each read, so that kube's 128 KiB cost more
/// than the small messages that come this way.
const READ: usize = 16 << 10;
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// The byte stream over a port-forward WebSocket. No task of its own.
///
/// There is no half-close in this protocol: shutdown ends both directions.
pub(super) struct WebSocket<S> {
    socket: S,
    port: u16,
    /// Received and not yet read.
    rest: Bytes,
    /// Whether the first message of each channel has come.
    begun: [bool; 2],
    ended: bool,
}

/// A carrier over an upgraded connection that forwards exactly `port`, of which nothing has been read.
pub(super) async fn begin<S>(upgraded: S, port: u16) -> WebSocket<WebSocketStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    WebSocket::new(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await, port)
}

impl<S> WebSocket<S>
where
    S: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin,
{
    /// A carrier over an upgraded connection that forwards exactly `port`.
    fn new(socket: S, port: u16) -> Self {
        Self { socket, port, rest: Bytes::new(), begun: [false; 2], ended: false }
    }

    /// Takes a message apart: the payload of a data message; empty for all that is none.
    fn payload(&mut self, mut message: Bytes) -> io::Result<Bytes> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("port-forward: {what}"));
        if message.is_empty() {
            return Err(bad("a message without a channel"));
        }
        let channel = message.get_u8();
        let begun = self.begun.get_mut(usize::from(channel)).ok_or_else(|| bad("an unknown channel"))?;
        if !std::mem::replace(begun, true) {
            return match message[..] {
                [low, high] if u16::from_le_bytes([low, high]) == self.port => Ok(Bytes::new()),
                _ => Err(bad("not the port that was asked for")),
            };
        }
        match channel {
            DATA => Ok(message),
            ERROR if message.is_empty() => Ok(message),
            _ => Err(super::refused(&message)),
        }
    }
}

impl<S> AsyncRead for WebSocket<S>
where
    S: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.rest.is_empty() {
                let length = self.rest.len().min(buffer.remaining());
                buffer.put_slice(&self.rest.split_to(length));
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(message))) => self.rest = self.payload(message)?,
                // Pongs are answered by the WebSocket itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => self.ended = true,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "port-forward: a text message",
                    )));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
    }
}

impl<S> AsyncWrite for WebSocket<S>
where
    S: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
        let length = bytes.len().min(LARGEST_FRAME);
        let mut message = Vec::with_capacity(1 + length);
        message.push(DATA);
        message.extend_from_slice(&bytes[..length]);
        Pin::new(&mut self.socket).start_send(Message::Binary(message.into())).map_err(io_error)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}

fn io_error(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests;
