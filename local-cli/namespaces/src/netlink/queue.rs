//! The NFQUEUE in which SYNs wait for the answer of the agent's dial.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{libc, sys::socket::SockProtocol};

use super::{ACK, Attributes, Netlink, message};
use crate::syscall;

/// Number of the queue, in each of the two network namespaces.
pub(crate) const NUMBER: u16 = 0;

/// Bytes of each packet that come up: headers, and what ICMP errors quote.
const COPY_RANGE: u32 = 256;
/// Held packets; the kernel's own 1024 were seen to drop SYNs of 4000 connections at once.
const LENGTH: u32 = 16384;

const CONFIGURE: u16 = 3 << 8 | 2;
const NETLINK_NO_ENOBUFS: i32 = 5;

/// A socket bound to the queue of the caller's network namespace.
pub(crate) fn bind() -> io::Result<OwnedFd> {
    let netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    // As far as net.core.rmem_max lets us.
    syscall::set_option(netlink.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 8 << 20)?;
    let number = NUMBER.to_be_bytes();
    let configure = |attributes: Attributes| {
        netlink.ask(&message(CONFIGURE, ACK, &[0, 0, number[0], number[1]], &attributes))
    };
    configure(Attributes::default().put(1, &[1, 0, 0, 0]))?; // NFQNL_CFG_CMD_BIND
    let [a, b, c, d] = COPY_RANGE.to_be_bytes();
    configure(Attributes::default().put(2, &[a, b, c, d, 2]))?; // NFQNL_COPY_PACKET
    configure(Attributes::default().network(3, LENGTH))?;
    syscall::set_option(netlink.as_fd(), libc::SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)?;
    Ok(netlink.into_fd())
}
