//! Two state machines joined by wires in virtual time.

use std::{
    collections::VecDeque,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use devproxy_tunnel::{
    Open, Role,
    proto::{Connection, FlowError, FlowId, LaneId, Limits, connection::ReadOutcome},
};

pub(crate) const LAPTOP: usize = 0;
pub(crate) const AGENT: usize = 1;

/// Both ends, and per lane the bytes on their way to each.
pub(crate) struct Pair {
    pub(crate) ends: [Connection; 2],
    pub(crate) wires: Vec<[Wire; 2]>,
    pub(crate) now: Instant,
}

/// Bytes on their way to one end of a lane.
#[derive(Default)]
pub(crate) struct Wire {
    /// When each piece arrives, and the piece.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    /// Arrived, not yet whole records.
    rest: Vec<u8>,
    in_flight: usize,
    delay: Duration,
}

impl Pair {
    pub(crate) fn new(lanes: usize, limits: &Limits) -> Self {
        let now = Instant::now();
        let end = |role| {
            let mut end = Connection::new(role, limits.clone());
            for _ in 0..lanes {
                end.add_lane(now);
            }
            end
        };
        let wires = (0..lanes).map(|_| Default::default()).collect();
        Self { ends: [end(Role::Laptop), end(Role::Agent)], wires, now }
    }

    /// One-way delay of all wires.
    pub(crate) fn with_delay(mut self, delay: Duration) -> Self {
        for wire in self.wires.iter_mut().flatten() {
            wire.delay = delay;
        }
        self
    }

    /// One record of `from` goes on the wire; returns its bytes.
    pub(crate) fn transmit(&mut self, from: usize, lane: LaneId) -> usize {
        let mut record = Vec::new();
        if !self.ends[from].poll_transmit(lane, &mut record, self.now) {
            return 0;
        }
        let length = record.len();
        let wire = &mut self.wires[lane][1 - from];
        wire.in_flight += length;
        wire.pieces.push_back((self.now + wire.delay, record));
        length
    }

    /// Up to `most` bytes that have arrived are given to `to`; returns how many.
    pub(crate) fn deliver(&mut self, to: usize, lane: LaneId, most: usize) -> usize {
        let wire = &mut self.wires[lane][to];
        let mut left = most;
        while left > 0
            && let Some((due, piece)) = wire.pieces.front_mut()
            && *due <= self.now
        {
            let taken = piece.len().min(left);
            wire.rest.extend(piece.drain(..taken));
            left -= taken;
            wire.in_flight -= taken;
            if piece.is_empty() {
                wire.pieces.pop_front();
            }
        }
        let used = self.ends[to].handle_bytes(lane, &wire.rest, self.now).expect("honest peers agree");
        wire.rest.drain(..used);
        most - left
    }

    pub(crate) fn in_flight(&self, lane: LaneId, to: usize) -> usize {
        self.wires[lane][to].in_flight
    }

    /// Time passes; pings and acknowledgements fall due.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        for end in &mut self.ends {
            if end.poll_timeout().is_some_and(|due| due <= self.now) {
                end.handle_timeout(self.now);
            }
        }
    }

    /// Everything that both ends have to say is said and heard.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = 0;
            for lane in 0..self.wires.len() {
                for end in [LAPTOP, AGENT] {
                    moved += self.transmit(end, lane);
                    moved += self.deliver(end, lane, usize::MAX);
                }
            }
            if moved == 0 && self.wires.iter().flatten().all(|wire| wire.pieces.is_empty()) {
                return;
            }
            if moved == 0 {
                self.advance(Duration::from_millis(1));
            }
        }
    }

    /// A connected flow that the laptop opened.
    pub(crate) fn connect(&mut self, open: &Open) -> FlowId {
        let id = self.ends[LAPTOP].open(open).expect("room for a flow");
        self.settle();
        let Poll::Ready(Some((request, _))) = self.ends[AGENT].poll_request(Waker::noop()) else {
            panic!("no request arrived")
        };
        assert_eq!(request, id);
        self.ends[AGENT].accept(id);
        self.settle();
        assert_eq!(self.ends[LAPTOP].poll_answer(id, Waker::noop()), Poll::Ready(Ok(())));
        id
    }

    pub(crate) fn write(&mut self, end: usize, id: FlowId, bytes: &[u8]) -> Poll<Result<usize, FlowError>> {
        self.ends[end].poll_write(id, bytes, Waker::noop())
    }

    pub(crate) fn read(
        &mut self,
        end: usize,
        id: FlowId,
        most: usize,
    ) -> Poll<Result<Option<Vec<u8>>, FlowError>> {
        let mut got = Vec::new();
        let sink = |pieces: &[&[u8]]| {
            got.extend(pieces.iter().flat_map(|piece| piece.iter()).take(most));
            got.len()
        };
        let outcome = self.ends[end].poll_read(id, sink, Waker::noop());
        outcome.map_ok(|outcome| match outcome {
            ReadOutcome::Bytes(count) => {
                assert_eq!(count, got.len());
                Some(got)
            }
            ReadOutcome::End => None,
        })
    }
}
