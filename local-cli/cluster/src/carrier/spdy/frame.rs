//! The frames of SPDY/3.1, as far as a port-forward needs them. Big-endian.
//!
//! ```text
//! data     0 u31 stream                | u8 flags | u24 length | bytes
//! control  1 u15 version, u16 type     | u8 flags | u24 length | u32 stream or ping id, …
//! ```

use std::io;

/// Bytes before the payload.
pub(super) const HEADER: usize = 8;
/// Payload of a ping.
pub(super) const PING_LENGTH: usize = 4;

const FIN: u8 = 1;
const CONTROL_OF_3: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Data {
        stream: u32,
        length: u32,
        last: bool,
    },
    Control {
        kind: Kind,
        length: u32,
    },
    /// A control frame of another version.
    Foreign,
}

/// Control frames that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reply,
    Reset,
    Ping,
    Other,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Self {
        let [first, flags_and_length] =
            [0, 4].map(|at| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        let (flags, length) = (flags_and_length.to_be_bytes()[0], flags_and_length & 0x00ff_ffff);
        let [version, kind] = [first >> 16, first & 0xffff];
        if version & 0x8000 == 0 {
            return Self::Data { stream: first, length, last: flags & FIN != 0 };
        }
        if version != u32::from(CONTROL_OF_3) {
            return Self::Foreign;
        }
        let kind = match u16::try_from(kind) {
            Ok(SYN_REPLY) => Kind::Reply,
            Ok(RST_STREAM) => Kind::Reset,
            Ok(PING) => Kind::Ping,
            _ => Kind::Other,
        };
        Self::Control { kind, length }
    }
}

/// The stream (or ping id) that a control frame begins with.
pub(super) fn stream(head: [u8; 8]) -> u32 {
    u32::from_be_bytes([head[0] & 0x7f, head[1], head[2], head[3]])
}

/// What a data frame of so many bytes begins with.
#[expect(clippy::cast_possible_truncation, reason = "frames of ours are at most 64 KiB")]
pub(super) fn data_head(stream: u32, length: usize, last: bool) -> [u8; HEADER] {
    let [s1, s2, s3, s4] = stream.to_be_bytes();
    let [_, l2, l3, l4] = (length as u32).to_be_bytes();
    [s1, s2, s3, s4, u8::from(last) * FIN, l2, l3, l4]
}

/// Appends a ping, or the answer to one.
pub(super) fn put_ping(out: &mut Vec<u8>, id: u32) {
    put_control(out, PING, PING_LENGTH);
    out.extend_from_slice(&id.to_be_bytes());
}

/// Appends what opens the streams of one forwarded port, each with its type.
pub(super) fn put_streams(out: &mut Vec<u8>, port: u16, streams: [(u32, &str); 2]) -> io::Result<()> {
    let port = port.to_string();
    for (index, (stream, kind)) in streams.into_iter().enumerate() {
        let headers = [("streamtype", kind), ("port", &port), ("requestid", "0")];
        let block = compressed(&header_block(&headers)?, index == 0)?;
        put_control(out, SYN_STREAM, 10 + block.len());
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(&[0; 6]); // no associated stream, priority and slot 0
        out.extend_from_slice(&block);
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "frames of ours are at most 64 KiB")]
fn put_control(out: &mut Vec<u8>, kind: u16, length: usize) {
    out.extend_from_slice(&CONTROL_OF_3.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(length as u32).to_be_bytes());
}

fn header_block(headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    let number = |length: usize| u32::try_from(length).map_err(io::Error::other).map(u32::to_be_bytes);
    let mut block = number(headers.len())?.to_vec();
    for (name, value) in headers {
        for text in [name, value] {
            block.extend_from_slice(&number(text.len())?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    Ok(block)
}

/// `block` as the next piece of the connection's zlib stream (RFC 1950, RFC 1951): a stored block, and an empty one
/// that makes the reader hand it on. The stream begins with its two bytes of header; it names no dictionary, as a stored
/// block refers to none.
fn compressed(block: &[u8], first: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    if first {
        out.extend_from_slice(&[0x78, 0x01]);
    }
    for piece in [block, &[]] {
        let length = u16::try_from(piece.len()).map_err(io::Error::other)?;
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(piece);
    }
    Ok(out)
}
