//! A byte stream to a port of a pod: one port-forward connection of the API server.
//!
//! Two protocols carry it, each for what it is good at. A *WebSocket* gets through gateways that know no other upgrade,
//! and stands a round trip sooner. But the runtime reads each of its frames into five times its size of garbage and
//! unmasks it byte by byte: *SPDY*, which it speaks itself, carries bulk, where it gets through.
//!
//! Our own pumps of both, because kube's has 4 KiB frames and loses a reply that comes after our shutdown.

mod spdy;
mod websocket;

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use kube::core::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::either::Either;

use crate::{
    ClusterError, Connection,
    resource::{Kind, Verb, translate},
};

/// Longest wait for an upgraded connection.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// Bytes of the other side's words about an error that are read.
const WORDS: usize = 1024;

/// What a carrier is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Small messages, by WebSocket.
    Interactive,
    /// Many bytes, by SPDY if that gets through.
    Bulk,
}

/// What got through to this API server, kept for its next carriers.
#[derive(Debug, Default)]
pub(crate) struct Known {
    no_spdy: AtomicBool,
}

/// Opens a byte stream to `port` on the loopback of a pod in the connection's namespace. Whether something listens
/// there shows at the first read: an error of kind `ConnectionRefused`. There is no half-close: shutdown ends both
/// directions, after what was written has reached the pod.
pub async fn portforward(
    connection: &Connection,
    pod: &str,
    port: u16,
    purpose: Purpose,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ClusterError> {
    match tokio::time::timeout(OPEN_LIMIT, open(connection, pod, port, purpose)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(translate(connection, Kind::Pod, Verb::Create, pod, error)),
        Err(_) => Err(ClusterError::no_answer(&connection.cluster_url, Verb::Create, OPEN_LIMIT)),
    }
}

async fn open(
    connection: &Connection,
    pod: &str,
    port: u16,
    purpose: Purpose,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, kube::Error> {
    let (client, known) = (&connection.client, &connection.carriers);
    let request = Request::new(Kind::Pod.path(Some(&connection.namespace)))
        .portforward(pod, &[port])
        .map_err(kube::Error::BuildRequest)?;
    if purpose == Purpose::Bulk && !known.no_spdy.load(Ordering::Relaxed) {
        match spdy::open(client, &request, port).await {
            Ok(stream) => return Ok(Either::Left(stream)),
            Err(error) if !is_about_spdy(&error) => return Err(error),
            Err(error) => tracing::info!(%error, "no port-forward by SPDY, trying a WebSocket"),
        }
    }
    let upgraded = client.connect(request).await?;
    if purpose == Purpose::Bulk {
        known.no_spdy.store(true, Ordering::Relaxed);
    }
    Ok(Either::Right(websocket::begin(upgraded.into_stream().into_inner(), port).await))
}

/// Whether another protocol may get through: not when the answer is about login, rights or the pod, nor when there was
/// none.
fn is_about_spdy(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 400 | 405 | 426 | 501 | 502),
        error => matches!(error, kube::Error::UpgradeConnection(_)),
    }
}

/// The runtime's words about a port that it could not reach: "… connect: connection refused" when nothing listens.
fn refused(words: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(&words[..words.len().min(WORDS)]).trim().to_owned();
    let kind = if text.contains("connection refused") {
        io::ErrorKind::ConnectionRefused
    } else {
        io::ErrorKind::ConnectionAborted
    };
    io::Error::new(kind, text)
}
