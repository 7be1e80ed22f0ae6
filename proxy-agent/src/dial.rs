//! TCP connections that the program in the shell opens.

use std::{io, net::SocketAddr, time::Duration};

use devproxy_tunnel::{Refusal, Request};
use nix::errno::Errno;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    listener::unmapped,
    relay::{self, Connection},
};

/// Linux gives up after 6 retransmitted SYNs: 127 s. The kernel's own answer comes first.
const LIMIT: Duration = Duration::from_secs(130);

/// Dials `target` from the pod, answers the request with what the kernel says, copies until both ends have closed.
pub(crate) async fn serve(request: Request, target: SocketAddr, tunnel_port: u16) {
    let dialled = tokio::select! {
        dialled = dial(target, tunnel_port) => dialled,
        () = request.cancelled() => return,
    };
    match dialled {
        Ok(stream) => relay::relay(Connection::new(stream), request.accept()).await,
        Err(why) => request.refuse(why),
    }
}

async fn dial(target: SocketAddr, tunnel_port: u16) -> Result<TcpStream, Refusal> {
    let target = unmapped(target);
    // Connecting to the unspecified address reaches the loopback.
    if target.port() == tunnel_port && (target.ip().is_loopback() || target.ip().is_unspecified()) {
        return Err(Refusal::Refused);
    }
    match tokio::time::timeout(LIMIT, connect(target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(refusal(&e, target)),
        Err(_) => Err(Refusal::TimedOut),
    }
}

/// Connects, and refuses a connection with itself: to a closed port of the ephemeral range on the loopback the kernel
/// may choose the same number as source, which is TCP's simultaneous open.
pub(crate) async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let stream = socket.connect(target).await?;
    if target.ip().is_loopback() && stream.local_addr().is_ok_and(|local| local == target) {
        return Err(Errno::ECONNREFUSED.into());
    }
    Ok(stream)
}

/// The answer that makes the laptop's kernel give the same errno.
pub(crate) fn refusal(error: &io::Error, target: SocketAddr) -> Refusal {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else { return Refusal::HostUnreachable };
    match errno {
        Errno::ECONNREFUSED | Errno::ECONNRESET => Refusal::Refused,
        Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EAFNOSUPPORT | Errno::EINVAL => {
            Refusal::NetworkUnreachable
        }
        // A pod without IPv6 has no source address for it; with IPv4 it means that no local port is free.
        Errno::EADDRNOTAVAIL if target.is_ipv6() => Refusal::NetworkUnreachable,
        Errno::EACCES | Errno::EPERM => Refusal::Prohibited,
        Errno::ETIMEDOUT => Refusal::TimedOut,
        Errno::EADDRNOTAVAIL
        | Errno::EAGAIN
        | Errno::EMFILE
        | Errno::ENFILE
        | Errno::ENOBUFS
        | Errno::ENOMEM => Refusal::Overloaded,
        _ => Refusal::HostUnreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_of_the_pod_has_its_answer() {
        let answer = |errno: Errno, target: &str| refusal(&errno.into(), target.parse().unwrap());
        for (errno, expected) in [
            (Errno::ECONNREFUSED, Refusal::Refused),
            (Errno::EHOSTUNREACH, Refusal::HostUnreachable),
            (Errno::ENETUNREACH, Refusal::NetworkUnreachable),
            (Errno::EACCES, Refusal::Prohibited),
            (Errno::EPERM, Refusal::Prohibited),
            (Errno::ETIMEDOUT, Refusal::TimedOut),
            (Errno::EMFILE, Refusal::Overloaded),
            (Errno::EADDRNOTAVAIL, Refusal::Overloaded),
        ] {
            assert_eq!(answer(errno, "10.0.0.1:80"), expected, "{errno}");
        }
        // A pod without IPv6.
        assert_eq!(answer(Errno::EADDRNOTAVAIL, "[fd00::1]:80"), Refusal::NetworkUnreachable);
        assert_eq!(answer(Errno::EAFNOSUPPORT, "[fd00::1]:80"), Refusal::NetworkUnreachable);
    }
}
