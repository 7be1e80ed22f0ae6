//! Records: the numbered units of a lane.
//!
//! ```text
//! u32 length of the body, little-endian, 1 ..= MAX_BODY
//! u32 the low half of the record's number, little-endian
//! body: whole frames
//! ```
//!
//! The number is implied by the order and written for checking; resume replays records from the one after the last
//! that the other side has. A record is also the unit that sealed records (AEAD, a later capability) will encrypt:
//! the body becomes its ciphertext, the header its associated data.

/// Bytes before the body.
pub const HEADER: usize = 8;
/// Longest record with its header: the frame of a port-forward WebSocket.
pub const MAX_RECORD: usize = 64 << 10;
/// Longest body.
pub const MAX_BODY: usize = MAX_RECORD - HEADER;

/// A record's length is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLength(pub u32);

/// One record of the received bytes.
#[derive(Debug)]
pub struct Record<'a> {
    /// Low half of its number.
    pub number: u32,
    /// Its frames.
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record of `bytes`, `None` while it is incomplete.
    pub fn first(bytes: &'a [u8]) -> Result<Option<Self>, BadLength> {
        let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        if length == 0 || length as usize > MAX_BODY {
            return Err(BadLength(length));
        }
        let Some((number, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let body = rest.get(..length as usize);
        Ok(body.map(|body| Self { number: u32::from_le_bytes(*number), body }))
    }

    /// Length on the wire.
    pub fn wire_len(&self) -> usize {
        HEADER + self.body.len()
    }
}

/// Writes the header of the record that began at `start` of `out`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a body is at most 64 KiB; the number's low half is meant"
)]
pub fn seal(out: &mut [u8], start: usize, number: u64) {
    let length = (out.len() - start - HEADER) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEADER].copy_from_slice(&(number as u32).to_le_bytes());
}
