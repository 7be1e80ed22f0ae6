//! The sockets that come up from inside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::Side;

/// The catchers of one side. Family-specific parts are `None` where the pod or the kernel lacks the family; on
/// [`Side::Shell`] both families are caught whatever the pod has, since every pod has both loopback addresses.
#[derive(Debug)]
pub struct Catchers {
    /// Which namespace they were made in.
    pub side: Side,
    /// TPROXY TCP listener, IPv4: accepted sockets have the program as peer and the dialled target as local address.
    pub tcp4: Option<OwnedFd>,
    /// The same for IPv6 (`IPV6_V6ONLY`).
    pub tcp6: Option<OwnedFd>,
    /// TPROXY UDP socket, IPv4, with `IP_RECVORIGDSTADDR`.
    pub udp4: Option<OwnedFd>,
    /// The same for IPv6 (`IPV6_RECVORIGDSTADDR`).
    pub udp6: Option<OwnedFd>,
    /// Netlink socket bound to the NFQUEUE (number 0) that holds SYNs of both families: copy range 256, queue length
    /// 16384, `NETLINK_NO_ENOBUFS`. `None` where NFQUEUE is missing (then: accept first, RST after a refusal).
    pub queue: Option<OwnedFd>,
    /// Raw socket (`IPPROTO_RAW`, `SO_MARK` 8) for RST and ICMP answers, IPv4.
    pub raw4: Option<OwnedFd>,
    /// The same for IPv6.
    pub raw6: Option<OwnedFd>,
}

/// All sockets that the helper makes at start. Non-blocking, close-on-exec.
///
/// The shell's catchers show up in a `SOCK_DIAG` dump of the shell's namespace like any listener: leave out the ports
/// that `getsockname` tells of them.
#[derive(Debug)]
pub struct Sockets {
    /// Catches what leaves through `eth0`.
    pub gateway: Catchers,
    /// Catches loopback and the pod's own address where no local listener is.
    pub shell: Catchers,
    /// Netlink `SOCK_DIAG` socket of the shell's namespace, to see what the program listens on.
    pub diag: OwnedFd,
}

/// Which of the seven sockets of one side travel in a packet, in the order of the struct's fields.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Inventory([bool; 7]);

impl Catchers {
    pub(crate) fn inventory(&self) -> Inventory {
        Inventory(self.slots().map(|slot| slot.is_some()))
    }

    pub(crate) fn borrowed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.slots().into_iter().flatten().map(AsFd::as_fd)
    }

    fn slots(&self) -> [Option<&OwnedFd>; 7] {
        let Self { side: _, tcp4, tcp6, udp4, udp6, queue, raw4, raw6 } = self;
        [tcp4, tcp6, udp4, udp6, queue, raw4, raw6].map(Option::as_ref)
    }

    /// The reverse of [`Catchers::borrowed`]; `None` when the packet brought fewer sockets than it listed.
    pub(crate) fn unpack(
        side: Side,
        list: Inventory,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Option<Self> {
        let mut slots = [const { None }; 7];
        for (slot, present) in slots.iter_mut().zip(list.0) {
            if present {
                *slot = Some(fds.next()?);
            }
        }
        let [tcp4, tcp6, udp4, udp6, queue, raw4, raw6] = slots;
        Some(Self { side, tcp4, tcp6, udp4, udp6, queue, raw4, raw6 })
    }
}
