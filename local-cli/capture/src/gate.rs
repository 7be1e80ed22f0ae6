//! What `cargo xtask gate` counts: a connection of the program from where it was caught.

use std::io;

use devproxy_tunnel::Flow;
use tokio::net::TcpStream;

use crate::{counters::Counters, splice::splice};

/// Copies between a caught connection and its flow until both have ended.
pub async fn carry(stream: TcpStream, flow: Flow, counters: &Counters) -> io::Result<()> {
    splice(stream, flow, &counters.bytes_out, &counters.bytes_in).await
}
