//! IP packets as far as capture needs them: reads held SYNs, builds the RST and ICMP answers that give the program
//! the errno it would see in the pod.
//!
//! Answers come from a raw socket and not from netfilter's `REJECT`: behind TPROXY its ICMP kinds never arrive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Bytes of the original packet quoted in an ICMP error for IPv6; the kernel needs the headers only.
const QUOTE6: usize = 256;

/// What identifies one connection attempt: a retransmitted SYN has the same, a new one another sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Syn {
    /// The program's end.
    pub(crate) source: SocketAddr,
    /// The address that the program dialled.
    pub(crate) target: SocketAddr,
    /// Initial sequence number.
    pub(crate) sequence: u32,
}

impl Syn {
    /// Reads an IPv4 or IPv6 packet that begins with the IP header; `None` unless it is a whole TCP SYN without
    /// extension headers (a program's first SYN has none).
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let (source, target, protocol, segment) = split(packet)?;
        let flags = *segment.get(13)?;
        if protocol != TCP || flags & 0b0001_0111 != 0b0000_0010 {
            return None;
        }
        Some(Self {
            source: SocketAddr::new(source, u16::from_be_bytes(array(segment, 0)?)),
            target: SocketAddr::new(target, u16::from_be_bytes(array(segment, 2)?)),
            sequence: u32::from_be_bytes(array(segment, 4)?),
        })
    }
}

/// Why a destination is unreachable, as ICMP says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Unreachable {
    /// EHOSTUNREACH
    Host,
    /// ENETUNREACH
    Network,
    /// EHOSTUNREACH for IPv4, EACCES for IPv6
    Prohibited,
    /// ECONNREFUSED (UDP)
    Port,
}

impl Unreachable {
    /// Code of ICMP type 3. Of the codes with the same errno those that a UDP socket reports too (`fatal` in the
    /// kernel's `icmp_err_convert`): the pod's socket has reported it, and it reports no others.
    fn code4(self) -> u8 {
        match self {
            Self::Network => 9,
            Self::Host => 10,
            Self::Port => 3,
            Self::Prohibited => 13,
        }
    }

    /// Code of type 1 of ICMP for IPv6.
    fn code6(self) -> u8 {
        match self {
            Self::Network => 0,
            Self::Prohibited => 1,
            Self::Host => 3,
            Self::Port => 4,
        }
    }
}

/// An IP packet and where to send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The program's address.
    pub(crate) to: IpAddr,
    /// The packet with its IP header.
    pub(crate) bytes: Vec<u8>,
}

/// RST + ACK to a SYN, as from the dialled target: ECONNREFUSED.
pub(crate) fn reset(syn: &Syn) -> Answer {
    let mut segment = Vec::with_capacity(20);
    segment.extend(syn.target.port().to_be_bytes());
    segment.extend(syn.source.port().to_be_bytes());
    segment.extend(0_u32.to_be_bytes());
    segment.extend(syn.sequence.wrapping_add(1).to_be_bytes());
    segment.extend([0x50, 0x14, 0, 0, 0, 0, 0, 0]);
    finish(&mut segment, 16, TCP, syn.target.ip(), syn.source.ip());
    Answer { to: syn.source.ip(), bytes: datagram(TCP, syn.target.ip(), syn.source.ip(), &segment) }
}

/// ICMP error, of either family, about `original` (a packet with its IP header), as from its destination.
pub(crate) fn unreachable(original: &[u8], why: Unreachable) -> Option<Answer> {
    let (source, target, _, segment) = split(original)?;
    let (protocol, kind, code, quote) = match source {
        IpAddr::V4(_) => {
            let header = original.len() - segment.len();
            (ICMP, 3, why.code4(), original.get(..header + 8)?)
        }
        IpAddr::V6(_) => (ICMP6, 1, why.code6(), &original[..original.len().min(QUOTE6)]),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(quote);
    finish(&mut message, 2, protocol, target, source);
    Some(Answer { to: source, bytes: datagram(protocol, target, source, &message) })
}

/// The head of a UDP datagram, enough to be quoted in an ICMP error. `None` for addresses of two families.
pub(crate) fn udp_head(source: SocketAddr, target: SocketAddr, payload: usize) -> Option<Vec<u8>> {
    if source.is_ipv4() != target.is_ipv4() {
        return None;
    }
    let length = u16::try_from(payload + 8).ok()?;
    let mut head = Vec::with_capacity(8);
    head.extend(source.port().to_be_bytes());
    head.extend(target.port().to_be_bytes());
    head.extend(length.to_be_bytes());
    head.extend([0, 0]);
    let mut packet = datagram(UDP, source.ip(), target.ip(), &head);
    let whole = usize::from(length);
    match source {
        SocketAddr::V4(_) => {
            let total = u16::try_from(IPV4_HEADER + whole).ok()?;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
        }
        SocketAddr::V6(_) => packet[4..6].copy_from_slice(&length.to_be_bytes()),
    }
    Some(packet)
}

/// Source, destination, protocol, and what follows the IP header.
fn split(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let fragment = u16::from_be_bytes(array(packet, 6)?) & 0x1fff;
            if header < IPV4_HEADER || fragment != 0 {
                return None;
            }
            let source = Ipv4Addr::from(array::<4>(packet, 12)?);
            let target = Ipv4Addr::from(array::<4>(packet, 16)?);
            Some((source.into(), target.into(), packet[9], packet.get(header..)?))
        }
        6 => {
            let source = Ipv6Addr::from(array::<16>(packet, 8)?);
            let target = Ipv6Addr::from(array::<16>(packet, 24)?);
            Some((source.into(), target.into(), packet[6], packet.get(IPV6_HEADER..)?))
        }
        _ => None,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// An IP header before `payload`. The kernel fills in the IPv4 length, id and checksum of raw packets.
fn datagram(protocol: u8, source: IpAddr, target: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(IPV6_HEADER + payload.len());
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            packet.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(target.octets());
        }
        (source, target) => {
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(octets6(source));
            packet.extend(octets6(target));
        }
    }
    packet.extend_from_slice(payload);
    packet
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Writes the checksum of `message` at offset `at`. ICMP for IPv4 has no pseudo-header.
fn finish(message: &mut [u8], at: usize, protocol: u8, source: IpAddr, target: IpAddr) {
    let mut sum = Sum::default();
    if protocol != ICMP {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                sum.add(&source.octets());
                sum.add(&target.octets());
            }
            (source, target) => {
                sum.add(&octets6(source));
                sum.add(&octets6(target));
            }
        }
        sum.add(&[0, protocol]);
        sum.add(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    sum.add(message);
    message[at..at + 2].copy_from_slice(&sum.complement().to_be_bytes());
}

/// The Internet checksum (RFC 1071).
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            self.0 += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }

    fn complement(&self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests;
