//! The state machine against a naive model: any interleaving of calls, any cutting of the byte streams.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the model fails its test by panicking")]

mod support;

use std::{task::Poll, task::Waker, time::Duration};

use bytes::Bytes;
use devproxy_tunnel::{
    Refusal,
    proto::{FlowError, FlowId, Limits},
};
use proptest::prelude::*;
use support::{
    pair::{AGENT, LAPTOP, Pair},
    target, udp,
};

#[derive(Debug, Clone)]
enum Step {
    Open { end: usize, datagrams: bool },
    Answer { end: usize, accept: bool },
    Write { end: usize, flow: usize, length: usize },
    Read { end: usize, flow: usize, length: usize },
    Finish { end: usize, flow: usize },
    Release { end: usize, flow: usize },
    Transmit { end: usize, lane: usize },
    Deliver { end: usize, lane: usize, length: usize },
    Advance { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let end = 0..2_usize;
    let flow = 0..12_usize;
    prop_oneof![
        2 => (end.clone(), prop::bool::weighted(0.2)).prop_map(|(end, datagrams)| Step::Open { end, datagrams }),
        4 => (end.clone(), prop::bool::weighted(0.9)).prop_map(|(end, accept)| Step::Answer { end, accept }),
        12 => (end.clone(), flow.clone(), 0..6000_usize)
            .prop_map(|(end, flow, length)| Step::Write { end, flow, length }),
        12 => (end.clone(), flow.clone(), 1..6000_usize)
            .prop_map(|(end, flow, length)| Step::Read { end, flow, length }),
        1 => (end.clone(), flow.clone()).prop_map(|(end, flow)| Step::Finish { end, flow }),
        2 => (end.clone(), flow).prop_map(|(end, flow)| Step::Release { end, flow }),
        14 => (end.clone(), 0..4_usize).prop_map(|(end, lane)| Step::Transmit { end, lane }),
        14 => (end, 0..4_usize, 1..9000_usize)
            .prop_map(|(end, lane, length)| Step::Deliver { end, lane, length }),
        1 => (0..400_u64).prop_map(|millis| Step::Advance { millis }),
    ]
}

/// Small enough that every bound is met within some hundred steps.
fn tight() -> Limits {
    Limits {
        initial_window: 4096,
        max_window: 16 << 10,
        max_inflow: 32 << 10,
        total_window: 64 << 10,
        send_queue: 3000,
        total_send_queue: 20_000,
        crowded_send_queue: 500,
        bulk_burst: 1500,
        bulk_rate: 20_000,
        flows: 24,
        unanswered: 4,
        datagrams: 8,
        datagram_bytes: 20_000,
        total_datagram_bytes: 60_000,
        ..Limits::default()
    }
}

/// What the application at one end of a flow knows and did.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
struct Side {
    held: bool,
    written: usize,
    read: usize,
    finished: bool,
    /// Reset or dropped its handle.
    gave_up: bool,
    /// Dropped its handle after it had finished: what it wrote must still arrive, with its end.
    left_well: bool,
    /// Of what it wrote, bytes that the other side's window did not let pass when it gave up.
    dropped: usize,
    saw_end: bool,
    /// Numbers of the last datagrams sent and received.
    sent: u64,
    received: u64,
}

struct Flow {
    id: FlowId,
    opener: usize,
    datagrams: bool,
    refused: bool,
    sides: [Side; 2],
}

struct World {
    pair: Pair,
    lanes: usize,
    flows: Vec<Flow>,
    limits: Limits,
}

/// The byte at `offset` of what `end` writes to `id`.
fn byte(id: FlowId, end: usize, offset: usize) -> u8 {
    let mixed = (offset as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(id.0) << 8 | end as u64);
    (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 56) as u8
}

impl World {
    fn new(lanes: usize) -> Self {
        let limits = tight();
        Self { pair: Pair::new(lanes, &limits), lanes, flows: Vec::new(), limits }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Open { end, datagrams } => {
                let open = if datagrams { udp() } else { target() };
                match self.pair.ends[end].open(&open) {
                    Ok(id) => {
                        let mut sides: [Side; 2] = Default::default();
                        sides[end].held = true;
                        self.flows.push(Flow { id, opener: end, datagrams, refused: false, sides });
                    }
                    Err(why) => assert_eq!(why, Refusal::Overloaded),
                }
            }
            Step::Answer { end, accept } => {
                if let Poll::Ready(request) = self.pair.ends[end].poll_request(Waker::noop()) {
                    let (id, _) = request.expect("the tunnel is open");
                    let flow = self.flows.iter_mut().find(|flow| flow.id == id).expect("somebody opened it");
                    if accept {
                        flow.sides[end].held = true;
                        self.pair.ends[end].accept(id);
                    } else {
                        flow.refused = true;
                        self.pair.ends[end].refuse(id, Refusal::Refused);
                    }
                }
            }
            Step::Write { end, flow, length } => self.write(end, flow, length),
            Step::Read { end, flow, length } => {
                self.read(end, flow, length);
            }
            Step::Finish { end, flow } => {
                if let Some(flow) = self.usable(end, flow)
                    && !flow.datagrams
                {
                    let (id, given_up) = (flow.id, flow.sides[1 - end].gave_up);
                    flow.sides[end].finished = true;
                    let finished = self.pair.ends[end].finish(id);
                    assert!(finished.is_ok() || given_up, "{finished:?}");
                }
            }
            Step::Release { end, flow } => self.give_up(end, flow),
            Step::Transmit { end, lane } => {
                self.pair.transmit(end, lane % self.lanes);
            }
            Step::Deliver { end, lane, length } => {
                self.pair.deliver(end, lane % self.lanes, length);
            }
            Step::Advance { millis } => self.pair.advance(Duration::from_millis(millis)),
        }
        let all_datagrams = self.flows.iter().filter(|flow| flow.datagrams).count();
        let all_streams = self.flows.len() - all_datagrams;
        for end in &self.pair.ends {
            let flows = end.flow_count();
            assert!(flows <= 2 * self.limits.flows);
            let (streams, datagrams) = (flows.min(all_streams), flows.min(all_datagrams));
            let crowded = self.limits.total_send_queue + streams * self.limits.crowded_send_queue;
            let of_streams = crowded.min(streams * self.limits.send_queue);
            assert!(end.unsent_bytes() <= of_streams + datagrams * self.limits.datagram_bytes);
            assert!(end.promised_bytes() <= self.limits.total_window + flows as u64 * 4096);
            assert!(end.ended().is_none());
        }
    }

    /// The flow if `end` holds it and may write to it: once it is connected as far as `end` knows, and a little of a
    /// stream ahead of that.
    fn writable(&mut self, end: usize, flow: usize) -> Option<&mut Flow> {
        let count = self.flows.len();
        let mine = self.flows.get(flow % count.max(1))?;
        let asked = mine.opener == end && mine.sides[end].held && !mine.datagrams;
        if asked && mine.sides[end].written == 0 && !mine.sides[end].finished {
            return self.flows.get_mut(flow % count);
        }
        self.usable(end, flow)
    }

    /// The flow if `end` holds it and it is connected as far as `end` knows.
    fn usable(&mut self, end: usize, flow: usize) -> Option<&mut Flow> {
        let count = self.flows.len();
        let flow = self.flows.get_mut(flow % count.max(1))?;
        if !flow.sides[end].held {
            return None;
        }
        if flow.opener == end {
            match self.pair.ends[end].poll_answer(flow.id, Waker::noop()) {
                Poll::Pending => return None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(why)) => {
                    let refused = flow.refused || flow.sides[1 - end].gave_up || why == Refusal::Overloaded;
                    assert!(refused, "refused without a reason: {why:?}");
                    flow.sides[end].held = false;
                    return None;
                }
            }
        }
        Some(flow)
    }

    fn write(&mut self, end: usize, flow: usize, length: usize) {
        let Some(flow) = self.writable(end, flow) else { return };
        let (id, start) = (flow.id, flow.sides[end].written);
        if flow.datagrams {
            let number = flow.sides[end].sent + 1;
            let mut datagram = vec![0; length.max(8)];
            datagram[..8].copy_from_slice(&number.to_le_bytes());
            match self.pair.ends[end].poll_send(id, &Bytes::from(datagram), Waker::noop()) {
                Poll::Ready(Ok(())) => self.find(id).sides[end].sent = number,
                Poll::Ready(Err(_)) => assert!(self.find(id).sides[1 - end].gave_up),
                Poll::Pending => {}
            }
            return;
        }
        let bytes: Vec<u8> = (start..start + length).map(|offset| byte(id, end, offset)).collect();
        // As a socket is read: into the room there is.
        let fill = |room: &mut [u8]| {
            let count = bytes.len().min(room.len());
            room[..count].copy_from_slice(&bytes[..count]);
            count
        };
        let written = match length % 2 {
            0 => self.pair.write(end, id, &bytes),
            _ => self.pair.ends[end].poll_fill(id, fill, Waker::noop()),
        };
        match written {
            Poll::Ready(Ok(count)) => {
                assert!(count <= length && (count > 0 || length == 0));
                self.find(id).sides[end].written += count;
            }
            Poll::Ready(Err(FlowError::Finished)) => assert!(self.find(id).sides[end].finished),
            Poll::Ready(Err(FlowError::Reset(_))) => {
                let other = &self.find(id).sides[1 - end];
                assert!(other.gave_up && !other.left_well);
            }
            Poll::Ready(Err(FlowError::Stopped)) => assert!(self.find(id).sides[1 - end].left_well),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => {}
        }
    }

    /// Returns whether something was read.
    fn read(&mut self, end: usize, flow: usize, length: usize) -> bool {
        let Some(flow) = self.usable(end, flow) else { return false };
        let id = flow.id;
        if flow.datagrams {
            match self.pair.ends[end].poll_recv(id, Waker::noop()) {
                Poll::Ready(Ok(datagram)) => {
                    let number = u64::from_le_bytes(datagram[..8].try_into().unwrap());
                    let flow = self.find(id);
                    assert!(number > flow.sides[end].received && number <= flow.sides[1 - end].sent);
                    flow.sides[end].received = number;
                    return true;
                }
                Poll::Ready(Err(_)) => assert!(self.find(id).sides[1 - end].gave_up),
                Poll::Pending => {}
            }
            return false;
        }
        match self.pair.read(end, id, length) {
            Poll::Ready(Ok(Some(bytes))) => {
                let flow = self.find(id);
                let start = flow.sides[end].read;
                for (offset, got) in bytes.iter().enumerate() {
                    assert_eq!(*got, byte(id, 1 - end, start + offset), "lost, repeated or out of order");
                }
                flow.sides[end].read += bytes.len();
                assert!(flow.sides[end].read <= flow.sides[1 - end].written);
                true
            }
            Poll::Ready(Ok(None)) => {
                let flow = self.find(id);
                flow.sides[end].saw_end = true;
                assert!(flow.sides[1 - end].finished, "an end that nobody said");
                assert_eq!(flow.sides[end].read, flow.sides[1 - end].written, "an end before the last byte");
                false
            }
            Poll::Ready(Err(FlowError::Reset(_))) => {
                let other = &self.find(id).sides[1 - end];
                assert!(other.gave_up && !other.left_well, "a reset that nobody said");
                false
            }
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => false,
        }
    }

    fn give_up(&mut self, end: usize, flow: usize) {
        let count = self.flows.len();
        let Some(flow) = self.flows.get_mut(flow % count.max(1)) else { return };
        if !flow.sides[end].held {
            return;
        }
        flow.sides[end].held = false;
        flow.sides[end].gave_up = true;
        flow.sides[end].left_well = flow.sides[end].finished;
        let before = self.pair.ends[end].unsent_bytes();
        self.pair.ends[end].release(flow.id);
        flow.sides[end].dropped = before - self.pair.ends[end].unsent_bytes();
    }

    fn find(&mut self, id: FlowId) -> &mut Flow {
        self.flows.iter_mut().find(|flow| flow.id == id).expect("known")
    }

    /// All that was begun is brought to its end, and nothing is left behind.
    fn conclude(&mut self) {
        self.pair.settle();
        for end in [LAPTOP, AGENT] {
            while self.pair.ends[end].poll_request(Waker::noop()).is_ready() {
                // Requests nobody looked at; the handle's drop refuses them.
            }
        }
        let everything = 0..self.flows.len();
        for flow in everything.clone() {
            for end in [LAPTOP, AGENT] {
                self.run(&Step::Finish { end, flow });
            }
        }
        loop {
            self.pair.settle();
            let mut moved = false;
            for flow in everything.clone() {
                for end in [LAPTOP, AGENT] {
                    moved |= self.read(end, flow, 10_000);
                }
            }
            if !moved {
                break;
            }
        }
        for flow in self.flows.iter().filter(|flow| !flow.datagrams) {
            for [side, other] in [[0, 1], [1, 0]].map(|pair| pair.map(|end| &flow.sides[end])) {
                if !side.held || !other.held && !other.gave_up {
                    continue;
                }
                assert!(side.saw_end || other.gave_up && !other.left_well, "no end arrived");
                assert_eq!(side.read, other.written - other.dropped, "bytes are missing");
            }
        }
        for flow in everything {
            for end in [LAPTOP, AGENT] {
                self.give_up(end, flow);
            }
        }
        // Taken requests that were thrown away above are released like a dropped `Request`.
        for end in [LAPTOP, AGENT] {
            let ids: Vec<_> = self.flows.iter().map(|flow| flow.id).collect();
            for id in ids {
                self.pair.ends[end].release(id);
            }
        }
        self.pair.settle();
        for end in &self.pair.ends {
            assert_eq!(end.flow_count(), 0, "flows are left behind");
            assert_eq!(end.unsent_bytes(), 0);
            assert_eq!(end.promised_bytes(), 0);
            for lane in 0..self.lanes {
                let (sent, acknowledged) = end.records_sent(lane);
                assert!(acknowledged <= sent);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_loses_repeats_or_reorders_a_byte(
        lanes in 1..=4_usize,
        steps in prop::collection::vec(step(), 1..600),
    ) {
        let mut world = World::new(lanes);
        for step in &steps {
            world.run(step);
        }
        world.conclude();
    }
}
