//! Packets between session and helper: a Unix `SOCK_SEQPACKET` pair, postcard, descriptors by `SCM_RIGHTS`.
//!
//! A packet is a little-endian `u32` number, a byte that says where the message is, and the message. What is too long
//! for a packet (a whole ConfigMap) travels in a memory file, the first of the descriptors.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use devproxy_tunnel::control::FileTree;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Family, Files, Kind, Side, Skipped, Spec, catchers::Inventory, syscall};

/// Most sockets of one answer. The kernel's limit of descriptors per packet is 253.
pub(crate) const MOST_SOCKETS: usize = 64;

/// Longest message inside a packet, in bytes.
const INLINE: usize = 32 << 10;
/// Longest message at all, in bytes; both ends are of one build, so this only bounds a fault of ours.
const LONGEST: u64 = 256 << 20;
const HEADER: usize = 5;

/// Session → helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First and once.
    Create(Spec),
    Sockets(Side, Family, Kind, usize),
    Mount(Files),
    Refresh(FileTree),
}

/// Helper → session, with the number of the request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The gateway's and the shell's catchers and the diag socket follow as descriptors.
    Created(Inventory, Inventory),
    Sockets,
    Mounted(Vec<Skipped>),
    Refreshed,
    Failed {
        step: String,
        errno: i32,
    },
}

/// One packet as it arrived.
#[derive(Debug)]
pub(crate) struct Packet<T> {
    pub(crate) number: u32,
    pub(crate) message: T,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Sends one packet.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    number: u32,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let spill = (body.len() > INLINE).then(|| spill(&body)).transpose()?;
    let fds: Vec<RawFd> =
        spill.iter().map(AsRawFd::as_raw_fd).chain(fds.iter().map(AsRawFd::as_raw_fd)).collect();
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&number.to_le_bytes());
    header[4] = u8::from(spill.is_some());
    let parts = [IoSlice::new(&header), IoSlice::new(if spill.is_some() { &[] } else { &body })];
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one packet; `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Packet<T>>> {
    let mut bytes = vec![0; INLINE + HEADER];
    let mut space = nix::cmsg_space!([RawFd; MOST_SOCKETS + 1]);
    let (length, mut fds) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for control in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                fds.extend(raw.into_iter().map(syscall::adopt));
            }
        }
        (got.bytes, fds)
    };
    if length == 0 {
        return Ok(None);
    }
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let (header, body) = bytes[..length].split_at_checked(HEADER).ok_or_else(malformed)?;
    let number = u32::from_le_bytes(header[..4].try_into().map_err(io::Error::other)?);
    let message = if header[4] == 0 {
        postcard::from_bytes(body)
    } else {
        if fds.is_empty() {
            return Err(malformed());
        }
        postcard::from_bytes(&unspill(fds.remove(0))?)
    };
    Ok(Some(Packet { number, message: message.map_err(io::Error::other)?, fds }))
}

fn spill(body: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(syscall::memory_file()?);
    file.write_all(body)?;
    file.rewind()?;
    Ok(file.into())
}

fn unspill(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    File::from(fd).take(LONGEST).read_to_end(&mut body)?;
    Ok(body)
}

/// Both ends of a new channel: the session's is non-blocking, both are close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    };
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_longer_than_a_packet_arrives_whole_with_its_descriptors() {
        let (one, two) = pair().unwrap();
        let message = vec![7_u8; 3 << 20];
        send(one.as_fd(), 9, &message, &[two.as_fd()]).unwrap();
        let packet: Packet<Vec<u8>> = receive(two.as_fd()).unwrap().unwrap();
        assert_eq!((packet.number, packet.fds.len()), (9, 1));
        assert!(packet.message == message);
    }

    #[test]
    fn a_closed_end_is_told_from_a_message() {
        let (one, two) = pair().unwrap();
        send(one.as_fd(), 1, &(), &[]).unwrap();
        drop(one);
        assert!(receive::<()>(two.as_fd()).unwrap().is_some());
        assert!(receive::<()>(two.as_fd()).unwrap().is_none());
    }
}
