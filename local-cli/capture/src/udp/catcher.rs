//! The TPROXY UDP socket: each datagram comes with the address that the program sent it to.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use bytes::Bytes;
use devproxy_tunnel::scratch;
use nix::{
    cmsg_space,
    libc::{sockaddr_in, sockaddr_in6},
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg},
};
use tokio::{io::Interest, net::UdpSocket};

use super::Datagram;

/// Datagrams per wake-up.
const BATCH: usize = 32;

pub(crate) struct Catcher {
    socket: UdpSocket,
}

impl Catcher {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        UdpSocket::from_std(std::net::UdpSocket::from(socket)).map(|socket| Self { socket })
    }

    /// The datagrams that wait. Cancel-safe.
    pub(crate) async fn datagrams(&self) -> io::Result<Vec<Datagram>> {
        self.socket.readable().await?;
        let mut datagrams = Vec::new();
        while datagrams.len() < BATCH {
            match self.socket.try_io(Interest::READABLE, || receive(&self.socket)) {
                Ok(datagram) => datagrams.extend(datagram),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => break,
                    // An ICMP error about an answer that nobody takes any more is told to this socket too.
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(datagrams)
    }
}

/// One datagram; `None` if the kernel did not say where it was sent to.
fn receive(socket: &UdpSocket) -> io::Result<Option<Datagram>> {
    scratch::with(|buffer| {
        let mut control = cmsg_space!(sockaddr_in6, sockaddr_in6);
        let mut room = [IoSliceMut::new(buffer)];
        let (length, program, target) = {
            let message = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut room,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let target = message.cmsgs().ok().and_then(|mut all| all.find_map(|one| original(&one)));
            (message.bytes, message.address.as_ref().and_then(address), target)
        };
        Ok(program.zip(target).map(|(program, target)| Datagram {
            program,
            target,
            bytes: Bytes::copy_from_slice(&buffer[..length]),
        }))
    })
}

fn original(message: &ControlMessageOwned) -> Option<SocketAddr> {
    match message {
        ControlMessageOwned::Ipv4OrigDstAddr(address) => Some(from_v4(address)),
        ControlMessageOwned::Ipv6OrigDstAddr(address) => Some(from_v6(address)),
        _ => None,
    }
}

fn from_v4(address: &sockaddr_in) -> SocketAddr {
    let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
    SocketAddr::new(ip.into(), u16::from_be(address.sin_port))
}

/// Without the scope: it would make two addresses of what the program calls one.
fn from_v6(address: &sockaddr_in6) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address.sin6_addr.s6_addr).into(), u16::from_be(address.sin6_port))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port()))
}
