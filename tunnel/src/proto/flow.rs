//! State of one flow.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    bulk::{Arrival, Departure},
    chunks::Chunks,
    lane::{HOME, LaneId},
    waiters::Waiters,
    window::{EARLY, Window},
};
use crate::Refusal;

/// A call on a flow cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The other side ended it early.
    #[error("the other side reset the flow")]
    Reset(Refusal),
    /// Written, and the other side, which has said all, reads no more.
    #[error("the other side reads no more")]
    Stopped,
    /// The tunnel ended.
    #[error("the tunnel ended")]
    TunnelEnded,
    /// Written after the end of writing.
    #[error("written after shutdown")]
    Finished,
}

/// How far the open got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Ours; whether OPEN has left.
    Opening { sent: bool },
    /// Ours, answered with a refusal that the opener has not seen yet.
    Refused(Refusal),
    /// Theirs, not answered.
    Requested,
    /// Connected.
    Live,
}

/// The sending direction's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fin {
    None,
    Pending,
    Sent,
}

/// Which of the scheduler's lists has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    None,
    Fresh,
    Ready,
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) mine: bool,
    pub(super) phase: Phase,
    /// The encoded [`Open`](crate::Open): ours until it is sent, theirs until it is taken. Encoded, since a hostile
    /// list of empty strings would be 24 times as long in memory.
    pub(super) meta: Vec<u8>,
    pub(super) body: Body,
    /// By the other side; what arrived before can still be read.
    pub(super) reset: Option<Refusal>,
    /// By this side: RESET follows what is queued.
    pub(super) closing: Option<Refusal>,
    /// Theirs, accepted, and the ANSWER still queued: nothing may leave before it.
    pub(super) unanswered: bool,
    /// Its handle is gone: what is queued still leaves, then the state goes.
    pub(super) orphan: bool,
    pub(super) place: Place,
    /// Bytes it may still send in this turn; negative after a datagram longer than the turn.
    pub(super) deficit: i64,
    pub(super) readers: Waiters,
    pub(super) writers: Waiters,
}

#[derive(Debug)]
pub(super) enum Body {
    Stream(Stream),
    /// Boxed: most flows are streams, and a flow's entry should stay small.
    Datagrams(Box<DatagramQueues>),
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) unsent: Chunks,
    pub(super) departure: Departure,
    pub(super) credit: u64,
    pub(super) fin: Fin,
    /// The other side reads no more; what it has said before still arrives.
    pub(super) stopped: bool,
    pub(super) unread: Chunks,
    pub(super) arrival: Arrival,
    pub(super) window: Window,
    pub(super) fin_received: bool,
    /// Already in its lane's list of credits.
    pub(super) credit_listed: bool,
}

#[derive(Debug, Default)]
pub(super) struct DatagramQueues {
    pub(super) unsent: VecDeque<Bytes>,
    pub(super) unsent_bytes: usize,
    pub(super) unread: VecDeque<Bytes>,
    pub(super) unread_bytes: usize,
}

impl Flow {
    pub(super) fn new(mine: bool, phase: Phase, datagrams: bool, window: u32) -> Self {
        let body = if datagrams {
            Body::Datagrams(Box::default())
        } else {
            Body::Stream(Stream {
                unsent: Chunks::default(),
                departure: Departure::default(),
                // Until the answer says more.
                credit: if mine { u64::from(EARLY) } else { 0 },
                fin: Fin::None,
                stopped: false,
                unread: Chunks::default(),
                arrival: Arrival::default(),
                window: Window::new(window),
                fin_received: false,
                credit_listed: false,
            })
        };
        Self {
            mine,
            phase,
            meta: Vec::new(),
            body,
            reset: None,
            closing: None,
            unanswered: false,
            orphan: false,
            place: Place::None,
            deficit: 0,
            readers: Waiters::default(),
            writers: Waiters::default(),
        }
    }

    /// The lane that its data leaves on.
    pub(super) fn lane(&self) -> LaneId {
        match &self.body {
            Body::Stream(stream) => stream.departure.lane(),
            Body::Datagrams(_) => HOME,
        }
    }

    /// Bytes queued towards the lane.
    pub(super) fn unsent(&self) -> usize {
        match &self.body {
            Body::Stream(stream) => stream.unsent.len(),
            Body::Datagrams(queues) => queues.unsent_bytes,
        }
    }

    /// Whether a turn of the scheduler would send something. Ahead of the answer only bytes of a stream leave.
    pub(super) fn can_send(&self) -> bool {
        match (&self.body, self.phase) {
            _ if self.unanswered => false,
            (Body::Stream(stream), Phase::Live | Phase::Opening { sent: true })
                if !stream.unsent.is_empty() =>
            {
                stream.credit > 0
            }
            (_, Phase::Live) if self.closing.is_some() => true,
            (Body::Stream(stream), Phase::Live) => stream.fin == Fin::Pending,
            (Body::Datagrams(queues), Phase::Live) => !queues.unsent.is_empty(),
            _ => false,
        }
    }

    /// Its open was refused. Returns the bytes that will not leave.
    pub(super) fn refuse(&mut self, why: Refusal) -> usize {
        self.phase = Phase::Refused(why);
        let unsent = self.unsent();
        if let Body::Stream(stream) = &mut self.body {
            stream.unsent.clear();
        }
        unsent - self.unsent()
    }

    /// Window promised to the other side, for the tunnel's sum.
    pub(super) fn window_size(&self) -> u64 {
        match &self.body {
            Body::Stream(stream) => u64::from(stream.window.size()),
            Body::Datagrams(_) => 0,
        }
    }

    pub(super) fn wake(&mut self) {
        self.readers.wake();
        self.writers.wake();
    }
}
