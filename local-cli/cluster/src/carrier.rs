//! A byte stream to a port of a pod: one port-forward WebSocket of the API server.
//!
//! Our own pump, because kube's has 4 KiB frames and loses a reply that comes after our shutdown. The protocol
//! (`v4.channel.k8s.io`, `v5` alike): every binary message begins with a channel, 0 for data and 1 for an error text;
//! the first message on each holds the port, two bytes little-endian. The kubelet copies every frame through an
//! unbuffered pipe: so one port per WebSocket, and frames of tens of kilobytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use kube::core::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::{
    ClusterError, Connection,
    resource::{Kind, Verb, translate},
};

/// Longest wait for the upgrade to a WebSocket.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// Largest frame that we send, in bytes of payload.
const LARGEST_FRAME: usize = 64 << 10;
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// Opens a byte stream to `port` on the loopback of a pod in the connection's namespace. Whether something listens
/// there shows at the first read: an error of kind `ConnectionRefused`.
pub async fn portforward(
    connection: &Connection,
    pod: &str,
    port: u16,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ClusterError> {
    let request = Request::new(Kind::Pod.path(Some(&connection.namespace))).portforward(pod, &[port]);
    let request = request.map_err(|error| ClusterError::Unreachable {
        url: connection.cluster_url.clone(),
        message: error.to_string(),
    })?;
    match tokio::time::timeout(OPEN_LIMIT, connection.client.connect(request)).await {
        Ok(Ok(upgraded)) => Ok(Carrier::new(upgraded.into_stream(), port)),
        Ok(Err(error)) => {
            let words = match error {
                kube::Error::UpgradeConnection(_) => refusal(connection, pod, port).await,
                _ => None,
            };
            Err(translate(connection, Kind::Pod, Verb::Create, pod, words.unwrap_or(error)))
        }
        Err(_) => Err(ClusterError::no_answer(&connection.cluster_url, Verb::Create, OPEN_LIMIT)),
    }
}

/// Why a port-forward was refused: kube drops the words of an answer that is no upgrade, so they are asked for again.
async fn refusal(connection: &Connection, pod: &str, port: u16) -> Option<kube::Error> {
    let request = Request::new(Kind::Pod.path(Some(&connection.namespace))).portforward(pod, &[port]).ok()?;
    let asked = connection.client.request_text(request);
    match tokio::time::timeout(OPEN_LIMIT, asked).await {
        // 400 is about this request, which upgrades nothing.
        Ok(Err(kube::Error::Api(status))) if status.code != 400 => Some(kube::Error::Api(status)),
        _ => None,
    }
}

/// The byte stream over a port-forward WebSocket. No task of its own.
///
/// There is no half-close in this protocol: shutdown ends both directions.
pub struct Carrier<S> {
    socket: S,
    port: u16,
    /// Received and not yet read.
    rest: Bytes,
    /// Whether the first message of each channel has come.
    begun: [bool; 2],
    ended: bool,
}

impl<S> Carrier<S>
where
    S: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin,
{
    /// A carrier over an upgraded connection that forwards exactly `port`.
    pub fn new(socket: S, port: u16) -> Self {
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
            _ => {
                // "… connect: connection refused" when nothing listens in the pod.
                let text = String::from_utf8_lossy(&message[..message.len().min(1024)]).trim().to_owned();
                let kind = if text.contains("connection refused") {
                    io::ErrorKind::ConnectionRefused
                } else {
                    io::ErrorKind::ConnectionAborted
                };
                Err(io::Error::new(kind, text))
            }
        }
    }
}

impl<S> AsyncRead for Carrier<S>
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

impl<S> AsyncWrite for Carrier<S>
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
