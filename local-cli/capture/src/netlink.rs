//! Netlink: a socket in tokio's reactor, and the two framings that all of its protocols share.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{MsgFlags, send};
use tokio::net::UdpSocket;

const HEADER: usize = 16;

/// A non-blocking netlink socket of any protocol, talking to the kernel.
///
/// To the reactor, and to `send` and `recv`, it is a datagram socket like another; so no unsafe code is needed.
pub(crate) struct Netlink(UdpSocket);

impl Netlink {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        UdpSocket::from_std(std::net::UdpSocket::from(socket)).map(Self)
    }

    /// Cancel-safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// `WouldBlock` when nothing waits.
    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_recv(buffer)
    }

    /// The kernel handles the messages before this returns: there is nothing to wait for.
    pub(crate) fn send(&self, messages: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), messages, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

/// Splits the first netlink message off: its type, its body, the rest.
pub(crate) fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Splits the first netlink attribute off: its type, its value, the rest.
pub(crate) fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
    let value = bytes.get(4..length)?;
    Some((kind, value, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}
