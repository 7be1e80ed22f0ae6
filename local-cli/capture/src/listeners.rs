//! What listens in the shell, seen through a `SOCK_DIAG` socket of its namespace.

pub(crate) mod diag;
mod owner;

use std::net::IpAddr;

use devproxy_tunnel::control::Protocol;

pub(crate) use self::diag::Diag;
pub use self::owner::{Owner, owner};

/// A TCP socket in LISTEN, or an unconnected UDP socket that is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port in the shell.
    pub port: u16,
    /// Address it is bound to; an IPv4-mapped one as IPv4.
    pub address: IpAddr,
    /// For `[::]`: whether it leaves IPv4 to others.
    pub only_v6: bool,
    /// The socket's inode, see [`owner`].
    pub inode: u32,
    /// The user that made it, as the laptop numbers users.
    pub uid: u32,
}

impl Listener {
    /// Whether a connection to `address` reaches it.
    pub fn takes(&self, address: IpAddr) -> bool {
        match self.address {
            IpAddr::V4(own) if own.is_unspecified() => address.is_ipv4(),
            IpAddr::V6(own) if own.is_unspecified() => address.is_ipv6() || !self.only_v6,
            own => own == address,
        }
    }

    /// Whether only the shell itself reaches it.
    pub fn is_loopback(&self) -> bool {
        self.address.is_loopback()
    }
}

/// All listeners of a moment, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners(Vec<Listener>);

impl Listeners {
    pub(crate) fn new(mut all: Vec<Listener>) -> Self {
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    /// All of them, TCP first, by port.
    pub fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.0.iter()
    }

    /// Those on one port.
    pub fn on(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &Listener> {
        self.0.iter().filter(move |listener| listener.protocol == protocol && listener.port == port)
    }
}

#[cfg(test)]
impl Listeners {
    /// `"tcp 0.0.0.0:80"`, for tests; `*` after the port stands for `IPV6_V6ONLY`.
    pub(crate) fn of(lines: &[&str]) -> Self {
        let one = |line: &&str| {
            let (protocol, address) = line.split_once(' ').unwrap();
            let address: std::net::SocketAddr = address.trim_end_matches('*').parse().unwrap();
            Listener {
                protocol: if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp },
                port: address.port(),
                address: address.ip(),
                only_v6: line.ends_with('*'),
                inode: 1,
                uid: 1000,
            }
        };
        Self::new(lines.iter().map(one).collect())
    }
}
