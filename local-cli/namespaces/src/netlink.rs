//! Netlink, synchronous and small: messages, and sockets that wait for the kernel's acknowledgement.

pub(crate) mod nftables;
pub(crate) mod queue;
pub(crate) mod route;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
    },
};

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// Type-length-value attributes, each padded to four bytes.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A nul-terminated string.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// A number in the machine's order, as rtnetlink has them.
    pub(crate) fn native(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// A number in network order, as netfilter has them.
    pub(crate) fn network(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.put(kind | NESTED, &inner.0)
    }

    /// Attributes of equal kind one after another, for lists.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One message: netlink header, the family's own header, attributes.
pub(crate) fn message(kind: u16, flags: u16, header: &[u8], attributes: &Attributes) -> Vec<u8> {
    let length = (HEADER + header.len()).next_multiple_of(4) + attributes.0.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]); // sequence number and port: one request is under way at a time
    bytes.extend(header);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(&attributes.0);
    bytes
}

/// A netlink socket of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            protocol,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(fd))
    }

    /// Sends messages, of which at least one asks for an [`ACK`], and reads all answers; the first error is returned.
    ///
    /// The kernel works a request off within `send`, so all answers are there when it returns.
    pub(crate) fn ask(&self, messages: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), messages, MsgFlags::empty())?;
        let mut answered = false;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => answered |= acknowledged(&buffer[..length])?,
                Err(nix::Error::EAGAIN) if answered => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether an acknowledgement is among the messages of one datagram.
fn acknowledged(mut bytes: &[u8]) -> io::Result<bool> {
    let mut answered = false;
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
        let Some(message) = bytes.get(HEADER..length) else { break };
        if let (libc::NLMSG_ERROR, Some((code, _))) = (kind, message.split_first_chunk::<4>()) {
            let code = i32::from_ne_bytes(*code);
            if code != 0 {
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            answered = true;
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        let attributes = Attributes::default().text(3, "lo").put(1, &[5]);
        assert_eq!(attributes.bytes(), [7, 0, 3, 0, b'l', b'o', 0, 0, 5, 0, 1, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn the_first_error_among_answers_is_returned() {
        let answer = |code: i32| {
            let mut bytes = message(2, 0, &code.to_ne_bytes(), &Attributes::default());
            bytes[6] = 0;
            bytes
        };
        assert!(acknowledged(&answer(0)).unwrap());
        let both = [answer(0), answer(-libc::EPERM)].concat();
        assert_eq!(acknowledged(&both).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(!acknowledged(&[1, 2, 3]).unwrap());
    }
}
