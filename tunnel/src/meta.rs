//! What a flow is, said once in its OPEN frame, and the answers to it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a flow is for. Travels in OPEN; the receiver decides by it what to do.
///
/// [`Open::Udp`], [`Open::Dns`] and [`Open::InboundUdp`] are datagram flows, all others are byte streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// Laptop → agent: connect to `target` from inside the pod.
    Tcp {
        /// Address as the program in the shell dialled it.
        target: SocketAddr,
    },
    /// Laptop → agent: a connected UDP socket in the pod.
    Udp {
        /// Address as the program in the shell sent to it.
        target: SocketAddr,
    },
    /// Laptop → agent: as [`Open::Udp`], counted apart; one raw DNS message a datagram.
    Dns {
        /// The nameserver of the pod's resolv.conf.
        server: SocketAddr,
    },
    /// Agent → laptop: a connection accepted in the pod. It is not read before the open is answered.
    Inbound {
        /// The true client.
        client: SocketAddr,
        /// The pod's address and port that the client connected to.
        local: SocketAddr,
    },
    /// Agent → laptop: datagrams of one client to a mirrored UDP port.
    InboundUdp {
        /// The true client.
        client: SocketAddr,
        /// The pod's address and port that the client sent to.
        local: SocketAddr,
    },
    /// Laptop → agent: the control flow, see [`crate::control`]. One a tunnel.
    Control,
    /// Laptop → agent: file trees and their changes, see [`crate::control::RootState`].
    Files {
        /// Absolute paths in the pod, each a mounted volume or a file of one (subPath).
        roots: Vec<String>,
    },
    /// Either way: the other side echoes what it gets. For round-trip measurements.
    Probe,
}

impl Open {
    /// Whether the flow carries datagrams instead of a byte stream.
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp { .. } | Self::Dns { .. } | Self::InboundUdp { .. })
    }
}

/// Why an open was not answered with *connected*; each maps to the errno that the pod's kernel gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// ECONNREFUSED
    #[error("connection refused")]
    Refused,
    /// EHOSTUNREACH
    #[error("no route to host")]
    HostUnreachable,
    /// ENETUNREACH
    #[error("network is unreachable")]
    NetworkUnreachable,
    /// EACCES (IPv6 "administratively prohibited"), EPERM
    #[error("prohibited")]
    Prohibited,
    /// ETIMEDOUT: nobody answered in the pod's own time
    #[error("connection timed out")]
    TimedOut,
    /// The receiver does not serve this kind of flow.
    #[error("not served here")]
    Unsupported,
    /// The receiver is out of flows, sockets or memory.
    #[error("too many flows")]
    Overloaded,
    /// The tunnel or the session ended first.
    #[error("the tunnel is closed")]
    Closed,
}
