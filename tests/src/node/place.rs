//! Where a node lives on this machine. There is room for two: sessions in two clusters with equal ranges of pods and
//! services are a case of their own.

use std::path::PathBuf;

use crate::host::namespace::NetworkNamespace;

/// One of the two places for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where the tests' own node runs.
    First,
    /// For a second cluster beside it.
    Second,
}

impl Place {
    /// The folder of everything that the node keeps.
    pub fn state(self) -> PathBuf {
        PathBuf::from(match self {
            Self::First => "/var/tmp/devproxy-bed",
            Self::Second => "/var/tmp/devproxy-bed-2",
        })
    }

    /// The file of which one bring-up or take-down at a time holds the lock; beside the folder, which is removed.
    pub(super) fn lock(self) -> PathBuf {
        self.state().with_extension("lock")
    }

    /// The node's network namespace.
    pub fn network(self) -> NetworkNamespace {
        NetworkNamespace::named(match self {
            Self::First => "dpnode",
            Self::Second => "dpnode2",
        })
    }

    /// The cgroup under which its kubelet puts all pods, in every hierarchy.
    pub(super) fn cgroup(self) -> &'static str {
        match self {
            Self::First => "devproxy-bed",
            Self::Second => "devproxy-bed-2",
        }
    }

    /// The node's address, where the API server answers on port 6443.
    pub fn address(self) -> String {
        format!("100.64.{}.2", self.subnet())
    }

    /// The node's IPv6 address.
    pub fn address6(self) -> String {
        format!("fd00:64:{}::2", self.subnet())
    }

    /// This machine's address on the wire to the node.
    pub(super) fn gateway(self) -> String {
        format!("100.64.{}.1", self.subnet())
    }

    /// This machine's IPv6 address on the wire to the node.
    pub(super) fn gateway6(self) -> String {
        format!("fd00:64:{}::1", self.subnet())
    }

    /// This machine's end of the wire.
    pub(super) fn interface(self) -> &'static str {
        match self {
            Self::First => "dpn0",
            Self::Second => "dpn1",
        }
    }

    /// The laptops' wires are in 100.64.8.0/24.
    fn subnet(self) -> u8 {
        match self {
            Self::First => 7,
            Self::Second => 9,
        }
    }
}
