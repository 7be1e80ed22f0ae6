//! Frames: what the two ends say to each other about flows.
//!
//! ```text
//! u8  kind
//! u24 length of the payload, little-endian, at most MAX_PAYLOAD
//! u32 flow, little-endian, 0 in frames about the lane
//! payload
//! ```

use crate::Refusal;

/// Bytes before the payload.
pub const HEADER: usize = 8;
/// Longest payload: the longest UDP datagram.
pub const MAX_PAYLOAD: usize = 65_507;
/// Longest encoded [`Open`](crate::Open), bytes.
pub const MAX_META: usize = 16 << 10;
/// More credit than this is a lie, bytes.
pub const MAX_CREDIT: u32 = 1 << 30;

/// Names a flow; never used twice in a tunnel. Even: opened by the laptop. Odd: by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

/// The kinds on the wire. `RESUME` is reserved: only a peer that announced the capability may send it.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open = 1,
    Answer = 2,
    Data = 3,
    Fin = 4,
    Reset = 5,
    Credit = 6,
    Datagram = 7,
    Ping = 8,
    Pong = 9,
    Goaway = 10,
    Ack = 11,
    Resume = 12,
    Move = 13,
}

/// How a flow ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetCode {
    /// Both directions, behind what was sent before: a RST. With the cause for datagram flows.
    Abort(Refusal),
    /// Nobody reads the receiver's direction any more; the sender's own bytes and FIN stand.
    Stop,
}

/// One frame, borrowing its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Opens a flow: the window of the opener and a postcard [`Open`](crate::Open).
    Open(FlowId, u32, &'a [u8]),
    /// Answers it: the window of the acceptor, or why not.
    Answer(FlowId, Result<u32, Refusal>),
    /// Bytes of a stream. From the opener up to 4 KiB may come ahead of the answer; they count towards its window.
    Data(FlowId, &'a [u8]),
    /// No more bytes in this direction.
    Fin(FlowId),
    /// The sender's further DATA, its FIN and its RESET come on another lane. Only when the record of the first DATA on this lane,
    /// and that of the move to it, were acknowledged.
    Move(FlowId),
    /// See [`ResetCode`].
    Reset(FlowId, ResetCode),
    /// So many more bytes may be sent.
    Credit(FlowId, u32),
    /// One datagram.
    Datagram(FlowId, &'a [u8]),
    /// Asks for a [`Self::Pong`] with the same token.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The sender closes the tunnel.
    Goaway,
    /// All records up to this number have reached their flows.
    Ack(u64),
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind this version does not know.
    #[error("unknown frame kind {0}")]
    Unknown(u8),
    /// The payload has the wrong length or content for its kind.
    #[error("malformed frame of kind {0}")]
    Malformed(u8),
    /// The record ends within a frame.
    #[error("truncated frame")]
    Truncated,
}

impl<'a> Frame<'a> {
    /// Takes the first frame off `body`, `None` at its end.
    pub fn decode(body: &mut &'a [u8]) -> Result<Option<Self>, FrameError> {
        if body.is_empty() {
            return Ok(None);
        }
        let Some(([kind, l0, l1, l2, f0, f1, f2, f3], rest)) = body.split_first_chunk::<HEADER>() else {
            return Err(FrameError::Truncated);
        };
        let length = u32::from_le_bytes([*l0, *l1, *l2, 0]) as usize;
        let flow = FlowId(u32::from_le_bytes([*f0, *f1, *f2, *f3]));
        let malformed = FrameError::Malformed(*kind);
        if length > MAX_PAYLOAD {
            return Err(malformed);
        }
        let Some((payload, rest)) = rest.split_at_checked(length) else { return Err(FrameError::Truncated) };
        *body = rest;
        let frame = match Kind::from_wire(*kind).ok_or(FrameError::Unknown(*kind))? {
            Kind::Open => {
                let Some((window, meta)) = payload.split_first_chunk() else { return Err(malformed) };
                if meta.len() > MAX_META {
                    return Err(malformed);
                }
                Self::Open(flow, u32::from_le_bytes(*window), meta)
            }
            Kind::Answer => match payload {
                [0, window @ ..] => Self::Answer(flow, Ok(u32_of(window).ok_or(malformed)?)),
                [code] => Self::Answer(flow, Err(refusal_of(*code).ok_or(malformed)?)),
                _ => return Err(malformed),
            },
            Kind::Data if !payload.is_empty() => Self::Data(flow, payload),
            Kind::Fin if payload.is_empty() => Self::Fin(flow),
            Kind::Move if payload.is_empty() => Self::Move(flow),
            Kind::Reset => match payload {
                [STOP] => Self::Reset(flow, ResetCode::Stop),
                [code] => Self::Reset(flow, ResetCode::Abort(refusal_of(*code).ok_or(malformed)?)),
                _ => return Err(malformed),
            },
            Kind::Credit => Self::Credit(flow, u32_of(payload).ok_or(malformed)?),
            Kind::Datagram => Self::Datagram(flow, payload),
            Kind::Ping => Self::Ping(u64_of(payload).ok_or(malformed)?),
            Kind::Pong => Self::Pong(u64_of(payload).ok_or(malformed)?),
            Kind::Goaway if payload.is_empty() => Self::Goaway,
            Kind::Ack => Self::Ack(u64_of(payload).ok_or(malformed)?),
            Kind::Resume => return Err(FrameError::Unknown(*kind)),
            Kind::Data | Kind::Fin | Kind::Move | Kind::Goaway => return Err(malformed),
        };
        Ok(Some(frame))
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        const LANE: FlowId = FlowId(0);
        match *self {
            Self::Open(flow, window, meta) => {
                put(out, Kind::Open, flow, 4 + meta.len());
                out.extend_from_slice(&window.to_le_bytes());
                out.extend_from_slice(meta);
            }
            Self::Answer(flow, Ok(window)) => {
                put(out, Kind::Answer, flow, 5);
                out.push(0);
                out.extend_from_slice(&window.to_le_bytes());
            }
            Self::Answer(flow, Err(why)) => put_all(out, Kind::Answer, flow, &[code_of(why)]),
            Self::Data(flow, bytes) => put_all(out, Kind::Data, flow, bytes),
            Self::Fin(flow) => put(out, Kind::Fin, flow, 0),
            Self::Move(flow) => put(out, Kind::Move, flow, 0),
            Self::Reset(flow, ResetCode::Abort(why)) => put_all(out, Kind::Reset, flow, &[code_of(why)]),
            Self::Reset(flow, ResetCode::Stop) => put_all(out, Kind::Reset, flow, &[STOP]),
            Self::Credit(flow, bytes) => put_all(out, Kind::Credit, flow, &bytes.to_le_bytes()),
            Self::Datagram(flow, bytes) => put_all(out, Kind::Datagram, flow, bytes),
            Self::Ping(token) => put_all(out, Kind::Ping, LANE, &token.to_le_bytes()),
            Self::Pong(token) => put_all(out, Kind::Pong, LANE, &token.to_le_bytes()),
            Self::Goaway => put(out, Kind::Goaway, LANE, 0),
            Self::Ack(number) => put_all(out, Kind::Ack, LANE, &number.to_le_bytes()),
        }
    }

    /// Whether a record with it must be acknowledged. The others would answer each other for ever.
    pub fn wants_ack(&self) -> bool {
        !matches!(self, Self::Ping(_) | Self::Pong(_) | Self::Ack(_))
    }
}

/// Writes the header of a DATA frame whose `length` bytes the caller appends itself.
pub(super) fn put_data_header(out: &mut Vec<u8>, flow: FlowId, length: usize) {
    put(out, Kind::Data, flow, length);
}

const STOP: u8 = 0x40;

impl Kind {
    fn from_wire(kind: u8) -> Option<Self> {
        const ALL: [Kind; 13] = [
            Kind::Open,
            Kind::Answer,
            Kind::Data,
            Kind::Fin,
            Kind::Reset,
            Kind::Credit,
            Kind::Datagram,
            Kind::Ping,
            Kind::Pong,
            Kind::Goaway,
            Kind::Ack,
            Kind::Resume,
            Kind::Move,
        ];
        ALL.get(usize::from(kind).checked_sub(1)?).copied()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "no payload is longer than MAX_PAYLOAD, 24 bits")]
fn put(out: &mut Vec<u8>, kind: Kind, flow: FlowId, length: usize) {
    debug_assert!(length <= MAX_PAYLOAD);
    let [l0, l1, l2, _] = (length as u32).to_le_bytes();
    let [f0, f1, f2, f3] = flow.0.to_le_bytes();
    out.extend_from_slice(&[kind as u8, l0, l1, l2, f0, f1, f2, f3]);
}

fn put_all(out: &mut Vec<u8>, kind: Kind, flow: FlowId, payload: &[u8]) {
    put(out, kind, flow, payload.len());
    out.extend_from_slice(payload);
}

fn u32_of(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_le_bytes)
}

fn u64_of(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_le_bytes)
}

/// 0 is *connected*.
const REFUSALS: [Refusal; 8] = [
    Refusal::Refused,
    Refusal::HostUnreachable,
    Refusal::NetworkUnreachable,
    Refusal::Prohibited,
    Refusal::TimedOut,
    Refusal::Unsupported,
    Refusal::Overloaded,
    Refusal::Closed,
];

fn refusal_of(code: u8) -> Option<Refusal> {
    REFUSALS.get(usize::from(code).checked_sub(1)?).copied()
}

fn code_of(why: Refusal) -> u8 {
    match why {
        Refusal::Refused => 1,
        Refusal::HostUnreachable => 2,
        Refusal::NetworkUnreachable => 3,
        Refusal::Prohibited => 4,
        Refusal::TimedOut => 5,
        Refusal::Unsupported => 6,
        Refusal::Overloaded => 7,
        Refusal::Closed => 8,
    }
}
