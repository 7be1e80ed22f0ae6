//! Listening sockets of the pod.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use devproxy_tunnel::control::Scope;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// After a failed accept. EMFILE and ENOMEM leave the connection in the queue, so the socket stays readable: without a
/// pause this would be a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// TCP listeners for a port: one dual-stack or IPv4 socket for [`Scope::Pod`], one a loopback address else. Their
/// connections have the options that `prepare` sets.
pub(crate) fn tcp(scope: Scope, port: u16, prepare: fn(&Socket)) -> io::Result<Vec<TcpListener>> {
    bind(scope, port, Type::STREAM, Protocol::TCP)?
        .into_iter()
        .map(|socket| {
            prepare(&socket);
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        })
        .collect()
}

/// UDP sockets for a port, as [`tcp`].
pub(crate) fn udp(scope: Scope, port: u16) -> io::Result<Vec<UdpSocket>> {
    bind(scope, port, Type::DGRAM, Protocol::UDP)?
        .into_iter()
        .map(|socket| UdpSocket::from_std(socket.into()))
        .collect()
}

/// Why one could not be opened: `Address in use`, without Rust's `(os error 98)`.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

fn bind(scope: Scope, port: u16, kind: Type, protocol: Protocol) -> io::Result<Vec<Socket>> {
    let bind = |address: IpAddr| bind_one(SocketAddr::new(address, port), kind, protocol);
    match scope {
        Scope::Pod => match bind(Ipv6Addr::UNSPECIFIED.into()) {
            Err(e) if is_absent(&e) => Ok(vec![bind(Ipv4Addr::UNSPECIFIED.into())?]),
            socket => Ok(vec![socket?]),
        },
        Scope::Loopback => match (bind(Ipv4Addr::LOCALHOST.into()), bind(Ipv6Addr::LOCALHOST.into())) {
            (v4, Err(e)) if is_absent(&e) => Ok(vec![v4?]),
            (Err(e), v6) if is_absent(&e) => Ok(vec![v6?]),
            (v4, v6) => Ok(vec![v4?, v6?]),
        },
    }
}

fn bind_one(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking().cloexec(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // For UDP it would let a second socket take the port's datagrams.
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The pod has not this family: `ipv6.disable=1` knows no such family, `net.ipv6.conf.all.disable_ipv6=1` no such
/// address.
fn is_absent(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EPROTONOSUPPORT))
}

/// The next connection with its client's address. Never fails: what cannot be accepted now is tried again.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// `10.0.0.1` instead of `::ffff:10.0.0.1`, as a dual-stack socket gives it.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(v6.ip().to_canonical(), v6.port())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_shown_as_ipv4() {
        let shown = |text: &str| unmapped(text.parse().unwrap()).to_string();
        assert_eq!(shown("[::ffff:10.0.0.1]:80"), "10.0.0.1:80");
        assert_eq!(shown("[fd00::1]:80"), "[fd00::1]:80");
        assert_eq!(shown("10.0.0.1:80"), "10.0.0.1:80");
    }
}
