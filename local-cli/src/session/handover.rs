//! When the program is ready to take the traffic over.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use devproxy_capture::{Capture, Listeners};
use devproxy_cluster::ReadyMode;
use devproxy_namespaces::{Family, Kind, Namespaces, Side};
use devproxy_tunnel::control::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::Failure;

/// Pause between two HTTP probes.
const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// How long one HTTP probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Waits until the program listens on one of `ports` (as numbered on the laptop) and, with [`ReadyMode::Http`], answers
/// there; the port it is. Cancel-safe.
pub async fn program_ready(
    capture: &Capture,
    namespaces: &Namespaces,
    ready: &ReadyMode,
    ports: &BTreeSet<u16>,
) -> Result<u16, Failure> {
    let mut listeners = capture.listeners();
    loop {
        let found = first(&listeners.borrow_and_update(), ports);
        match (found, ready) {
            (Some(port), ReadyMode::Listen) => return Ok(port),
            (Some(port), ReadyMode::Http(path)) => {
                if timeout(PROBE_LIMIT, probe(namespaces, port, path))
                    .await
                    .is_ok_and(|answer| answer.unwrap_or(false))
                {
                    return Ok(port);
                }
                sleep(PROBE_PAUSE).await;
            }
            (None, _) => {
                let gone = |_| Failure::new("DP-SESSION-ENDED", "the shell's namespaces are gone");
                listeners.changed().await.map_err(gone)?;
            }
        }
    }
}

fn first(listeners: &Listeners, ports: &BTreeSet<u16>) -> Option<u16> {
    listeners
        .iter()
        .filter(|listener| listener.protocol == Protocol::Tcp)
        .map(|listener| listener.port)
        .find(|port| ports.contains(port))
}

/// One GET on the shell's loopback; whether its status is below 400.
async fn probe(namespaces: &Namespaces, port: u16, path: &str) -> std::io::Result<bool> {
    let mut stream = connect(namespaces, port).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    Ok(status_below_400(&head))
}

fn status_below_400(head: &[u8; 12]) -> bool {
    head.starts_with(b"HTTP/1.") && matches!(head[9], b'1'..=b'3')
}

async fn connect(namespaces: &Namespaces, port: u16) -> std::io::Result<TcpStream> {
    let mut sockets =
        namespaces.sockets(Side::Shell, Family::V4, Kind::Tcp, 1).await.map_err(std::io::Error::other)?;
    let socket: OwnedFd = sockets.pop().ok_or_else(|| std::io::Error::other("no socket"))?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_ready_and_an_error_is_not() {
        assert!(status_below_400(b"HTTP/1.1 200"));
        assert!(status_below_400(b"HTTP/1.0 302"));
        assert!(!status_below_400(b"HTTP/1.1 503"));
        assert!(!status_below_400(b"SSH-2.0-Open"));
    }
}
