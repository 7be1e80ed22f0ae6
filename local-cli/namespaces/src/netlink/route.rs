//! Links, addresses, routes and rules.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{libc, sys::socket::SockProtocol};

use super::{ACK, Attributes, CREATE, EXCLUSIVE, Netlink, message};
use crate::Family;

/// Routing table of what is delivered to our own sockets.
pub(crate) const LOCAL_TABLE: u8 = 100;

const MAIN_TABLE: u8 = 254;
const BOOT: u8 = 3; // RTPROT_BOOT
const TO_TABLE: u8 = 1; // FR_ACT_TO_TBL
const PEER: u16 = 1; // VETH_INFO_PEER
// Attributes of rules, linux/fib_rules.h.
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_FWMASK: u16 = 16;

impl Family {
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn number(self) -> u8 {
        // AF_INET is 2, AF_INET6 is 10.
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// rtnetlink of one network namespace.
#[derive(Debug)]
pub(crate) struct Routes(Netlink);

impl Routes {
    pub(crate) fn open() -> io::Result<Self> {
        Netlink::open(SockProtocol::NetlinkRoute).map(Self)
    }

    /// A veth pair: `here` in this namespace, `there` in the other. Both get the same hardware address, because ARP
    /// is off and each end takes only frames that are addressed to it.
    pub(crate) fn add_veth(
        &self,
        here: &str,
        there: &str,
        other: BorrowedFd<'_>,
        mtu: u32,
    ) -> io::Result<()> {
        let mac = [0x0a, 0x58, 0, 0, 0, 1];
        let end = |name| {
            Attributes::default()
                .text(libc::IFLA_IFNAME, name)
                .put(libc::IFLA_ADDRESS, &mac)
                .native(libc::IFLA_MTU, mtu)
        };
        let peer = end(there).native(libc::IFLA_NET_NS_FD, other.as_raw_fd().cast_unsigned());
        let peer = [&link_header(0, 0, 0)[..], peer.bytes()].concat();
        let kind = Attributes::default()
            .text(libc::IFLA_INFO_KIND, "veth")
            .nest(libc::IFLA_INFO_DATA, &Attributes::default().put(PEER, &peer));
        let attributes = end(here).nest(libc::IFLA_LINKINFO, &kind);
        let flags = ACK | CREATE | EXCLUSIVE;
        self.0.ask(&message(libc::RTM_NEWLINK, flags, &link_header(0, 0, 0), &attributes))
    }

    /// Brings a link up, without ARP and neighbour discovery unless it is the loopback.
    pub(crate) fn set_up(&self, index: u32, arp: bool) -> io::Result<()> {
        let (up, no_arp) = (libc::IFF_UP.cast_unsigned(), libc::IFF_NOARP.cast_unsigned());
        let flags = if arp { up } else { up | no_arp };
        let header = link_header(index, flags, flags);
        self.0.ask(&message(libc::RTM_NEWLINK, ACK, &header, &Attributes::default()))
    }

    /// The address alone, without a network and without duplicate address detection.
    pub(crate) fn add_address(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let bytes = octets(address);
        let length = prefix(&bytes);
        let header = [[Family::of(address).number(), length, 0, 0], index.to_ne_bytes()].concat();
        let attributes = Attributes::default()
            .put(libc::IFA_LOCAL, &bytes)
            .put(libc::IFA_ADDRESS, &bytes)
            .native(libc::IFA_FLAGS, libc::IFA_F_NODAD);
        self.0.ask(&message(libc::RTM_NEWADDR, ACK | CREATE | EXCLUSIVE, &header, &attributes))
    }

    /// A route to one address out of a link.
    pub(crate) fn add_host_route(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let bytes = octets(address);
        let attributes = Attributes::default().put(libc::RTA_DST, &bytes);
        self.add_route(Family::of(address), prefix(&bytes), MAIN_TABLE, libc::RTN_UNICAST, index, attributes)
    }

    /// The default route out of a link; `source` is what programs get that do not choose.
    pub(crate) fn add_default_route(
        &self,
        index: u32,
        family: Family,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        let attributes = match source {
            Some(source) => Attributes::default().put(libc::RTA_PREFSRC, &octets(source)),
            None => Attributes::default(),
        };
        self.add_route(family, 0, MAIN_TABLE, libc::RTN_UNICAST, index, attributes)
    }

    /// In [`LOCAL_TABLE`] every address is this machine's own.
    pub(crate) fn add_local_default(&self, loopback: u32, family: Family) -> io::Result<()> {
        self.add_route(family, 0, LOCAL_TABLE, libc::RTN_LOCAL, loopback, Attributes::default())
    }

    /// What carries `mark` (in the bits of `mark`) is routed by [`LOCAL_TABLE`].
    pub(crate) fn add_mark_rule(&self, family: Family, mark: u32) -> io::Result<()> {
        let attributes =
            Attributes::default().native(FRA_PRIORITY, 100).native(FRA_FWMARK, mark).native(FRA_FWMASK, mark);
        self.add_rule(family, 0, &attributes)
    }

    /// What comes from loopback addresses is routed by [`LOCAL_TABLE`]: replies of a listener on 127.0.0.1 to a
    /// client in the cluster.
    pub(crate) fn add_loopback_rule(&self, family: Family) -> io::Result<()> {
        let (source, length) = match family {
            Family::V4 => (octets(Ipv4Addr::new(127, 0, 0, 0).into()), 8),
            Family::V6 => (octets(Ipv6Addr::LOCALHOST.into()), 128),
        };
        let attributes = Attributes::default().native(FRA_PRIORITY, 101).put(FRA_SRC, &source);
        self.add_rule(family, length, &attributes)
    }

    fn add_route(
        &self,
        family: Family,
        length: u8,
        table: u8,
        kind: u8,
        index: u32,
        attributes: Attributes,
    ) -> io::Result<()> {
        let scope = match (family, kind) {
            (Family::V6, _) => libc::RT_SCOPE_UNIVERSE,
            (Family::V4, libc::RTN_LOCAL) => libc::RT_SCOPE_HOST,
            (Family::V4, _) => libc::RT_SCOPE_LINK,
        };
        let header = [family.number(), length, 0, 0, table, BOOT, scope, kind, 0, 0, 0, 0];
        let attributes = attributes.native(libc::RTA_OIF, index);
        self.0.ask(&message(libc::RTM_NEWROUTE, ACK | CREATE | EXCLUSIVE, &header, &attributes))
    }

    fn add_rule(&self, family: Family, source_length: u8, attributes: &Attributes) -> io::Result<()> {
        let header = [family.number(), 0, source_length, 0, LOCAL_TABLE, 0, 0, TO_TABLE, 0, 0, 0, 0];
        self.0.ask(&message(libc::RTM_NEWRULE, ACK | CREATE | EXCLUSIVE, &header, attributes))
    }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn prefix(bytes: &[u8]) -> u8 {
    if bytes.len() == 4 { 32 } else { 128 }
}
