//! What the shell looks like.

use std::{net::IpAddr, path::PathBuf};

use devproxy_tunnel::control::FileTree;
use serde::{Deserialize, Serialize};

/// What the shell looks like.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The pod's host name.
    pub hostname: String,
    /// The pod's addresses; a family without one is not set up in the shell (`ENETUNREACH` as in the pod).
    pub addresses: Vec<IpAddr>,
    /// The pod's MTU in bytes.
    pub mtu: u32,
}

/// One of the two network namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// Behind the shell's `eth0`: catches what leaves, delivers what arrives.
    Gateway,
    /// Where the program runs: only its loopback is caught here.
    Shell,
}

/// Address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Kind of a socket from [`Namespaces::sockets`](crate::Namespaces::sockets).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// TCP: `IP_TRANSPARENT`, `SO_MARK` 8, `SO_REUSEADDR`, non-blocking, unbound.
    Tcp,
    /// UDP: the same.
    Udp,
}

/// Files of the shell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Files {
    /// Content of /etc/resolv.conf.
    pub resolv_conf: Vec<u8>,
    /// Content of /etc/hosts.
    pub hosts: Vec<u8>,
    /// Content of /etc/hostname.
    pub hostname: String,
    /// The pod's volumes, each at its true path (`FileTree::root`).
    pub trees: Vec<FileTree>,
}

/// A path of the pod that does not appear at its true place, and why (one line).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Path in the pod.
    pub path: PathBuf,
    /// Cause.
    pub reason: String,
}
