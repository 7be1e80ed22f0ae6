//! The load of the bench, both ends. Neither may be the bottleneck: large buffers, no allocation per byte, one thread
//! with an event loop for each kind of load.
//!
//! No measurement runs out of ports: connections that are opened again and again go to eight server ports in turn, and
//! the server closes first, so that the waiting ends of closed connections are on its side.
//!
//! - [`server`]: every kind of load on a port of its own;
//! - [`client`]: one measurement from the command line, its result as a line of JSON;
//! - [`bulk`], [`latency`], [`churn`], [`http1`], [`http2`], [`datagram`], [`idle`]: the kinds of load;
//! - [`result`]: what they give.

pub mod bulk;
pub mod churn;
pub mod client;
pub mod datagram;
pub mod http1;
pub mod http2;
pub mod idle;
pub mod latency;
pub mod result;
pub mod server;

use std::future::Future;
use std::io::{Error, Result};
use std::time::Duration;

/// Ports on which connections are answered once and closed.
pub const CHURN_PORTS: std::ops::Range<u16> = 7000..7008;
/// Bulk in either direction.
pub const BULK_PORT: u16 = 7010;
/// What comes is sent back.
pub const ECHO_PORT: u16 = 7011;
/// HTTP/1.1 with connections that are kept.
pub const HTTP1_PORT: u16 = 7012;
/// HTTP/2 without TLS.
pub const HTTP2_PORT: u16 = 7013;
/// Connections on which nothing happens.
pub const IDLE_PORT: u16 = 7014;
/// Datagrams are sent back.
pub const UDP_PORT: u16 = 7020;

/// Bytes of a small request and of its answer.
pub const SMALL: usize = 64;

/// How long any step may take before the measurement counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// All TCP ports.
pub fn tcp_ports() -> impl Iterator<Item = u16> {
    CHURN_PORTS.chain([BULK_PORT, ECHO_PORT, HTTP1_PORT, HTTP2_PORT, IDLE_PORT])
}

/// `step` with the limit of the bench.
async fn patiently<T>(step: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, step).await.map_err(|_| Error::other("nothing came for 20 s"))?
}
