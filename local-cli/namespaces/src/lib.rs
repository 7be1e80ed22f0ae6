//! The session's namespaces on the laptop, made without root: user + mount + UTS + two network namespaces
//! (the *shell's* and the *gateway's*, see ARCHITECTURE.md). All unsafe code of devproxy lives in this crate.
//!
//! The tokio process never changes namespace. It starts itself again as the *helper* ([`helper::main`]), a plain
//! single-threaded process that unshares, sets up network and mounts, sends sockets up by SCM_RIGHTS, and stays as
//! long as its socketpair is held: it serves further sockets, file updates, and keeps the namespaces alive.
//!
//! (Contract first: bodies follow.)

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use devproxy_tunnel::control::FileTree;

/// What the shell looks like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The pod's host name.
    pub hostname: String,
    /// The pod's addresses; a family without one is not set up in the shell (`ENETUNREACH` as in the pod).
    pub addresses: Vec<IpAddr>,
    /// The pod's MTU in bytes.
    pub mtu: u32,
}

/// One of the two network namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Behind the shell's `eth0`: catches what leaves, delivers what arrives.
    Gateway,
    /// Where the program runs: only its loopback is caught here.
    Shell,
}

/// Address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Kind of a socket from [`Namespaces::sockets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TCP: IP_TRANSPARENT, SO_MARK 8, SO_REUSEADDR, non-blocking, unbound.
    Tcp,
    /// UDP: the same.
    Udp,
}

/// The catchers of one side. Family-specific parts are `None` where the pod or the kernel lacks the family.
#[derive(Debug)]
pub struct Catchers {
    /// Which namespace they were made in.
    pub side: Side,
    /// TPROXY TCP listener, IPv4: accepted sockets have the program as peer and the dialled target as local address.
    pub tcp4: Option<OwnedFd>,
    /// The same for IPv6 (IPV6_V6ONLY).
    pub tcp6: Option<OwnedFd>,
    /// TPROXY UDP socket, IPv4, with IP_RECVORIGDSTADDR.
    pub udp4: Option<OwnedFd>,
    /// The same for IPv6 (IPV6_RECVORIGDSTADDR).
    pub udp6: Option<OwnedFd>,
    /// Netlink socket bound to the NFQUEUE that holds SYNs of both families: copy range 256, queue length 16384,
    /// NETLINK_NO_ENOBUFS. `None` where NFQUEUE is missing (then: accept first, RST after a refusal).
    pub queue: Option<OwnedFd>,
    /// Raw socket (IPPROTO_RAW, SO_MARK 8) for RST and ICMP answers, IPv4.
    pub raw4: Option<OwnedFd>,
    /// The same for IPv6.
    pub raw6: Option<OwnedFd>,
}

/// All sockets that the helper makes at start. Non-blocking, close-on-exec.
#[derive(Debug)]
pub struct Sockets {
    /// Catches what leaves through `eth0`.
    pub gateway: Catchers,
    /// Catches loopback and the pod's own address where no local listener is.
    pub shell: Catchers,
    /// Netlink SOCK_DIAG socket of the shell's namespace, to see what the program listens on.
    pub diag: OwnedFd,
}

/// Files of the shell.
#[derive(Debug, Clone, Default)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Path in the pod.
    pub path: PathBuf,
    /// Cause.
    pub reason: String,
}

/// Namespaces could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel or its policy refused; `step` says where.
    #[error("{step}: {source}")]
    Step {
        /// What was tried, e.g. `unshare(CLONE_NEWUSER)`.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The helper process has ended.
    #[error("the namespace helper has ended")]
    Gone,
}

impl NamespaceError {
    /// What the user can do about it, where that is known (AppArmor on Ubuntu, sysctls, containers).
    pub fn hint(&self) -> Option<String> {
        todo!()
    }
}

/// The session's namespaces. Dropping it ends the helper; what still runs inside keeps its namespaces, but no more
/// traffic passes.
#[derive(Debug)]
pub struct Namespaces {
    _todo: (),
}

impl Namespaces {
    /// Starts `helper` (normally `/proc/self/exe`, whose `main` calls [`helper::main`] first of all) and sets all up.
    pub async fn create(_helper: &Path, _spec: &Spec) -> Result<(Self, Sockets), NamespaceError> {
        todo!()
    }

    /// Process id of the helper; its namespaces are the shell's.
    pub fn pid(&self) -> i32 {
        todo!()
    }

    /// Mounts the files. Once.
    pub async fn mount(&self, _files: &Files) -> Result<Vec<Skipped>, NamespaceError> {
        todo!()
    }

    /// Replaces one tree atomically (`..data` flip) after a change in the pod.
    pub async fn refresh(&self, _tree: &FileTree) -> Result<(), NamespaceError> {
        todo!()
    }

    /// Fresh sockets made inside one of the network namespaces, for [`Side::Gateway`] bound to any client's address.
    pub async fn sockets(&self, _side: Side, _family: Family, _kind: Kind, _count: usize) -> Result<Vec<OwnedFd>, NamespaceError> {
        todo!()
    }

    /// Resolves when the helper has ended. Cancel-safe.
    pub async fn ended(&self) {
        todo!()
    }
}

/// The way into a session's namespaces for a program.
#[derive(Debug)]
pub struct Entrance {
    _todo: (),
}

impl Entrance {
    /// Through the helper's pid (a pidfd is taken at once).
    pub fn of(_helper: i32) -> io::Result<Self> {
        todo!()
    }

    /// Makes `command` run inside: user, mount, UTS and the shell's network namespace, in `directory`, without any
    /// capability, signals as a shell's child has them.
    pub fn prepare(&self, _command: &mut std::process::Command, _directory: &Path) {
        todo!()
    }
}

/// Process ids of all processes inside the namespaces of `helper`, without the helper.
pub fn inhabitants(_helper: i32) -> io::Result<Vec<i32>> {
    todo!()
}

/// The process inside.
pub mod helper {
    /// First argument that makes a binary the helper.
    pub const ARGUMENT: &str = "__namespaces";

    /// Runs the helper if this process was started as one; returns otherwise. Call it first in `main`, before any
    /// thread exists.
    pub fn main() {}
}
