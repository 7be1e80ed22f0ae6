//! The sockets that are made inside and used outside: a socket keeps the namespace it was made in.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
};

use nix::{libc, sys::socket::SockProtocol};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Family, Kind, NamespaceError, OWN,
    failure::At,
    netlink::{Netlink, queue},
    syscall,
};

/// Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 16384;
const RECEIVE_BUFFER: usize = 8 << 20;

/// A catcher and the port it got.
pub(super) struct Caught {
    pub(super) fd: OwnedFd,
    pub(super) port: u16,
}

/// A TPROXY listener or UDP socket on an ephemeral port of the wildcard address.
pub(super) fn catcher(family: Family, kind: Kind) -> io::Result<Caught> {
    let socket = transparent(family, kind)?;
    let any: SocketAddr = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    match kind {
        Kind::Tcp => {
            socket.bind(&any.into())?;
            socket.listen(BACKLOG)?;
        }
        Kind::Udp => {
            let (level, name) = match family {
                Family::V4 => (libc::SOL_IP, libc::IP_RECVORIGDSTADDR),
                Family::V6 => (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR),
            };
            syscall::set_option(socket.as_fd(), level, name, 1)?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            socket.bind(&any.into())?;
        }
    }
    let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
    Ok(Caught { fd: socket.into(), port })
}

/// An unbound socket for a foreign source address.
pub(super) fn plain(family: Family, kind: Kind) -> Result<OwnedFd, NamespaceError> {
    let socket = transparent(family, kind).at("make a transparent socket")?;
    socket.set_mark(OWN).at("SO_MARK")?;
    Ok(socket.into())
}

/// For answers that no socket of the kernel would give: RST and ICMP errors.
pub(super) fn raw(family: Family) -> io::Result<OwnedFd> {
    let socket = Socket::new(domain(family), Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(OWN)?;
    // Only for sending; without a filter it would collect nothing anyway, as IPPROTO_RAW receives nothing.
    Ok(socket.into())
}

/// Bound to the queue, `None` where the kernel has no NFQUEUE.
pub(super) fn queue() -> Option<OwnedFd> {
    queue::bind().ok()
}

pub(super) fn diag() -> io::Result<OwnedFd> {
    Netlink::open(SockProtocol::NetlinkSockDiag).map(Netlink::into_fd)
}

/// Whether the kernel has the family at all (`ipv6.disable=1` takes IPv6 away).
pub(super) fn supported(family: Family) -> bool {
    Socket::new(domain(family), Type::DGRAM, None).is_ok()
}

fn transparent(family: Family, kind: Kind) -> io::Result<Socket> {
    let (kind, protocol) = match kind {
        Kind::Tcp => (Type::STREAM, Protocol::TCP),
        Kind::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(domain(family), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    match family {
        Family::V4 => socket.set_ip_transparent_v4(true)?,
        Family::V6 => {
            socket.set_only_v6(true)?;
            syscall::set_option(socket.as_fd(), libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1)?;
        }
    }
    Ok(socket)
}

fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}
