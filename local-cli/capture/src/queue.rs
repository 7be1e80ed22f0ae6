//! NFQUEUE over its netlink socket: takes held packets, sends verdicts.
//!
//! Wire format: `linux/netfilter/nfnetlink_queue.h`. Messages are native-endian, their payload big-endian.

use std::{io, os::fd::OwnedFd};

use crate::netlink::{Netlink, attribute, message};

const SUBSYSTEM: u16 = 3;
const PACKET: u16 = SUBSYSTEM << 8;
const VERDICT: u16 = SUBSYSTEM << 8 | 1;
const REQUEST: u16 = 1;
const ATTRIBUTE_PACKET: u16 = 1;
const ATTRIBUTE_VERDICT: u16 = 2;
const ATTRIBUTE_PAYLOAD: u16 = 10;
const NLMSG_HEADER: usize = 16;
const NFGEN_HEADER: usize = 4;
const VERDICT_LENGTH: usize = NLMSG_HEADER + NFGEN_HEADER + 12;
/// Verdicts that travel in one send.
const BATCH: usize = 64;
/// Reads per wake-up, so that accepts and answered dials get their turn under a flood of SYNs.
const READS: usize = 64;

/// What becomes of a held packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// Names one held packet towards the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PacketId {
    queue: u16,
    id: u32,
}

/// A packet that the kernel holds until its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldPacket {
    pub(crate) id: PacketId,
    /// Its first bytes, from the IP header on.
    pub(crate) bytes: Vec<u8>,
}

/// The queue of one side.
pub(crate) struct Queue {
    socket: Netlink,
    buffer: Vec<u8>,
    verdicts: Vec<u8>,
}

impl Queue {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = Netlink::new(socket)?;
        Ok(Self { socket, buffer: vec![0; 64 << 10], verdicts: Vec::with_capacity(BATCH * VERDICT_LENGTH) })
    }

    /// The packets that wait; at least one unless the kernel sent something else. Cancel-safe.
    pub(crate) async fn packets(&mut self) -> io::Result<Vec<HeldPacket>> {
        let mut packets = Vec::new();
        self.socket.readable().await?;
        for _ in 0..READS {
            match self.socket.try_recv(&mut self.buffer) {
                Ok(length) => parse(&self.buffer[..length], &mut packets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // ENOBUFS: the socket's buffer was full; what was lost is retransmitted by the program's kernel.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(packets)
    }

    /// Notes a verdict; [`Self::flush`] sends it.
    pub(crate) fn verdict(&mut self, packet: PacketId, verdict: Verdict) {
        encode(&mut self.verdicts, packet, verdict);
        if self.verdicts.len() >= BATCH * VERDICT_LENGTH {
            self.flush();
        }
    }

    /// Sends the noted verdicts in one message.
    pub(crate) fn flush(&mut self) {
        if self.verdicts.is_empty() {
            return;
        }
        // A verdict for a packet that the kernel has forgotten is answered by an error message, which `parse` skips.
        if let Err(error) = self.socket.send(&self.verdicts) {
            tracing::warn!(%error, "verdicts were not taken by the kernel");
        }
        self.verdicts.clear();
    }
}

fn encode(into: &mut Vec<u8>, packet: PacketId, verdict: Verdict) {
    into.extend(u32::try_from(VERDICT_LENGTH).unwrap_or(0).to_ne_bytes());
    into.extend(VERDICT.to_ne_bytes());
    into.extend(REQUEST.to_ne_bytes());
    into.extend([0; 8]);
    into.extend([0, 0]);
    into.extend(packet.queue.to_be_bytes());
    into.extend(12_u16.to_ne_bytes());
    into.extend(ATTRIBUTE_VERDICT.to_ne_bytes());
    into.extend((verdict as u32).to_be_bytes());
    into.extend(packet.id.to_be_bytes());
}

/// Reads all packet messages of one datagram; anything else, or what is cut short, is skipped.
fn parse(mut bytes: &[u8], into: &mut Vec<HeldPacket>) {
    while let Some((kind, body, rest)) = message(bytes) {
        if kind == PACKET
            && let Some(packet) = packet(body)
        {
            into.push(packet);
        }
        bytes = rest;
    }
}

fn packet(body: &[u8]) -> Option<HeldPacket> {
    let queue = u16::from_be_bytes(body.get(2..4)?.try_into().ok()?);
    let mut attributes = body.get(NFGEN_HEADER..)?;
    let (mut id, mut payload) = (None, &[][..]);
    while let Some((kind, value, rest)) = attribute(attributes) {
        match kind {
            ATTRIBUTE_PACKET => id = Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?)),
            ATTRIBUTE_PAYLOAD => payload = value,
            _ => {}
        }
        attributes = rest;
    }
    Some(HeldPacket { id: PacketId { queue, id: id? }, bytes: payload.to_vec() })
}

#[cfg(test)]
pub(crate) mod tests;
