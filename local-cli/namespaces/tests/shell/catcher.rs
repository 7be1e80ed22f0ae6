//! A tiny stand-in for the capture: accepts what is caught and tells the program what it saw.

use std::{
    collections::HashMap,
    io::{IoSliceMut, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use devproxy_namespaces::{Catchers, Family, Kind, Namespaces};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg},
};
use tokio::runtime::Handle;

/// Port whose SYNs wait for [`Held::release`].
pub(crate) const HELD: u16 = 90;

/// SYNs of one side by destination port, and the ones that wait.
#[derive(Default)]
pub(crate) struct Held {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: HashMap<u16, usize>,
    waiting: Vec<u32>,
    released: bool,
}

impl Held {
    pub(crate) fn wait_for(&self, port: u16, count: usize) {
        let state = self.state.lock().unwrap();
        drop(
            self.changed
                .wait_while(state, |state| state.seen.get(&port).is_none_or(|seen| *seen < count))
                .unwrap(),
        );
    }

    pub(crate) fn seen(&self, port: u16) -> usize {
        self.state.lock().unwrap().seen.get(&port).copied().unwrap_or(0)
    }

    pub(crate) fn release(&self, queue: &OwnedFd) {
        let mut state = self.state.lock().unwrap();
        state.released = true;
        for packet in state.waiting.drain(..) {
            verdict(queue, packet, true);
        }
    }
}

/// Serves the catchers of one side by threads that end with the test's process.
pub(crate) fn serve(
    catchers: Catchers,
    namespaces: &Arc<Namespaces>,
    runtime: &Handle,
) -> (Arc<Held>, Arc<OwnedFd>) {
    for listener in [catchers.tcp4, catchers.tcp6].into_iter().flatten() {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(false).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (to, from) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
                write!(stream, "caught {to} from {from}").unwrap();
            }
        });
    }
    for (socket, family) in [(catchers.udp4, Family::V4), (catchers.udp6, Family::V6)] {
        let Some(socket) = socket else { continue };
        let (namespaces, runtime, side) = (Arc::downgrade(namespaces), runtime.clone(), catchers.side);
        thread::spawn(move || {
            loop {
                let (from, to, length) = receive(&socket);
                let Some(namespaces) = namespaces.upgrade() else { return };
                let made = runtime.block_on(namespaces.sockets(side, family, Kind::Udp, 1)).unwrap();
                reply(made, from, to, length);
            }
        });
    }
    let queue = Arc::new(
        catchers.queue.expect("NFQUEUE: CONFIG_NFT_QUEUE, or CONFIG_NFT_COMPAT and XT_TARGET_NFQUEUE"),
    );
    let held = Arc::new(Held::default());
    let (this, theirs) = (Arc::clone(&held), Arc::clone(&queue));
    thread::spawn(move || {
        loop {
            decide(&theirs, &this);
        }
    });
    (held, queue)
}

fn reply(made: Vec<OwnedFd>, from: SocketAddr, to: SocketAddr, length: usize) {
    let socket = socket2::Socket::from(made.into_iter().next().unwrap());
    socket.bind(&to.into()).unwrap();
    let socket = UdpSocket::from(socket);
    socket.connect(from).unwrap();
    socket.send(format!("{to} got {length}").as_bytes()).unwrap();
}

fn receive(socket: &OwnedFd) -> (SocketAddr, SocketAddr, usize) {
    wait(socket);
    let mut buffer = vec![0; 1 << 16];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([u8; 128]);
    let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())
        .unwrap();
    let from = got.address.unwrap();
    let from: SocketAddr = match from.as_sockaddr_in() {
        Some(from) => SocketAddr::V4((*from).into()),
        None => SocketAddr::V6((*from.as_sockaddr_in6().unwrap()).into()),
    };
    let to = got.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => Some(
            (std::net::Ipv4Addr::from(u32::from_be(to.sin_addr.s_addr)), u16::from_be(to.sin_port)).into(),
        ),
        ControlMessageOwned::Ipv6OrigDstAddr(to) => {
            Some((std::net::Ipv6Addr::from(to.sin6_addr.s6_addr), u16::from_be(to.sin6_port)).into())
        }
        _ => None,
    });
    (from, to.expect("the original destination"), got.bytes)
}

fn decide(queue: &OwnedFd, held: &Held) {
    wait(queue);
    let mut buffer = [0; 4096];
    let length = nix::unistd::read(queue, &mut buffer).unwrap();
    // netlink header 16, nfgenmsg 4, then attributes; NFQA_PACKET_HDR is 1, NFQA_PAYLOAD is 10.
    let (mut packet, mut payload, mut rest) = (0, &[][..], &buffer[20..length]);
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x7fff;
        match kind {
            1 => packet = u32::from_be_bytes(rest[4..8].try_into().unwrap()),
            10 => payload = &rest[4..length],
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let header = if payload[0] >> 4 == 4 { usize::from(payload[0] & 15) * 4 } else { 40 };
    let port = u16::from_be_bytes([payload[header + 2], payload[header + 3]]);
    let mut state = held.state.lock().unwrap();
    *state.seen.entry(port).or_default() += 1;
    if port == HELD && !state.released {
        state.waiting.push(packet);
    } else {
        verdict(queue, packet, true);
    }
    held.changed.notify_all();
}

fn verdict(queue: &OwnedFd, packet: u32, accept: bool) {
    let mut message = Vec::new();
    message.extend(32_u32.to_ne_bytes());
    message.extend((3_u16 << 8 | 1).to_ne_bytes()); // NFQNL_MSG_VERDICT
    message.extend(1_u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(12_u16.to_ne_bytes());
    message.extend(2_u16.to_ne_bytes()); // NFQA_VERDICT_HDR
    message.extend(u32::from(accept).to_be_bytes());
    message.extend(packet.to_be_bytes());
    nix::unistd::write(queue, &message).unwrap();
}

fn wait(fd: &OwnedFd) {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}
