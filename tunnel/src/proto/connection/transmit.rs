//! The writer: fair between flows, small frames first.

use std::time::Instant;

use super::Connection;
use crate::{
    Refusal,
    proto::{
        chunks::Pool,
        flow::{Body, Fin, Flow, Phase, Place},
        frame::{self, FlowId, Frame, MAX_META, MAX_PAYLOAD, ResetCode},
        lane::{Control, HOME, Lane, LaneId},
        limits::Limits,
        record::{self, MAX_BODY},
        yielding,
    },
};

/// Bytes a flow sends in its turn: below a millisecond at 20 MB/s, so that a keystroke waits for little. Four turns fill
/// a record.
const QUANTUM: usize = MAX_BODY / 4 - frame::HEADER;

/// The same on a bulk lane, where no keystroke waits: nearly a record, so that both ends handle long pieces.
const BULK_QUANTUM: usize = MAX_PAYLOAD;

/// Control frames stop here in one record; an OPEN with the longest meta still fits behind it.
const CONTROL_ROOM: usize = MAX_BODY - MAX_META - 64;

/// An empty rest of a record this small is not worth a frame.
const SMALLEST_PIECE: usize = 1 << 10;

/// What became of a flow's turn.
enum Turn {
    /// The record is full; it goes on first in the next one.
    Full,
    /// It used its turn and has more.
    Spent,
    /// Nothing more to send now.
    Idle,
    /// It goes on on another lane.
    Moved,
    /// It ended and its handle is gone.
    Gone,
}

impl Connection {
    /// Whether `lane` has something to say, as far as can be told without making it a record, and all flows together
    /// have not enough queued to fill one.
    pub fn has_little_to_send(&self, lane: LaneId, now: Instant) -> bool {
        self.unsent < MAX_BODY && self.has_to_send(lane, now)
    }

    fn has_to_send(&self, lane: LaneId, now: Instant) -> bool {
        let state = &self.lanes[lane];
        !state.is_drained() || state.has_signal(now)
    }

    /// Appends at most one record for `lane` to `out`: control frames, then a fair share of the flows' data.
    /// Returns whether there was anything to send.
    pub fn poll_transmit(&mut self, lane: LaneId, out: &mut Vec<u8>, now: Instant) -> bool {
        if !self.has_to_send(lane, now) {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(&[0; record::HEADER]);
        let end = start + record::HEADER + MAX_BODY;
        if std::mem::take(&mut self.lanes[lane].data_first) {
            self.write_data(lane, out, end, now);
            self.write_control(lane, out, end, now);
        } else {
            self.write_control(lane, out, end, now);
            self.write_data(lane, out, end, now);
        }
        let empty = out.len() == start + record::HEADER;
        if end - out.len() >= frame::HEADER + 8
            && let Some(number) = self.lanes[lane].take_ack(now, !empty)
        {
            Frame::Ack(number).encode(out);
        }
        if out.len() == start + record::HEADER {
            out.truncate(start);
            return false;
        }
        self.lanes[lane].sent += 1;
        let number = self.lanes[lane].sent;
        self.lanes[lane].in_flight.sent(number, out.len() - start);
        record::seal(out, start, number);
        true
    }

    fn write_control(&mut self, lane: LaneId, out: &mut Vec<u8>, end: usize, now: Instant) {
        let most = end - (MAX_BODY - CONTROL_ROOM);
        if out.len() >= most {
            return;
        }
        let state = &mut self.lanes[lane];
        if let Some(token) = state.pong.take() {
            Frame::Pong(token).encode(out);
        }
        if let Some(token) = state.take_ping(now) {
            Frame::Ping(token).encode(out);
        }
        while out.len() < most
            && let Some(control) = state.control.pop_front()
        {
            match control {
                Control::Open(id) => {
                    let Some(flow) = self.flows.get_mut(&id) else { continue };
                    if flow.phase != (Phase::Opening { sent: false }) {
                        continue;
                    }
                    flow.phase = Phase::Opening { sent: true };
                    let window = u32::try_from(flow.window_size()).unwrap_or(u32::MAX);
                    Frame::Open(id, window, &std::mem::take(&mut flow.meta)).encode(out);
                    if flow.can_send() {
                        flow.place = Place::Fresh;
                        state.fresh.push_back(id);
                    }
                }
                Control::Answer(id, answer) => {
                    Frame::Answer(id, answer).encode(out);
                    if let Some(flow) = self.flows.get_mut(&id)
                        && std::mem::take(&mut flow.unanswered)
                        && flow.place == Place::None
                        && flow.can_send()
                    {
                        flow.place = Place::Fresh;
                        state.fresh.push_back(id);
                    }
                }
                Control::Reset(id, code) => Frame::Reset(id, code).encode(out),
                Control::Goaway => Frame::Goaway.encode(out),
            }
        }
        while out.len() < most
            && let Some(id) = state.credits.pop_front()
        {
            let Some(Flow { body: Body::Stream(stream), reset: None, .. }) = self.flows.get_mut(&id) else {
                continue;
            };
            stream.credit_listed = false;
            let bytes = stream.window.grant();
            if bytes > 0 && !stream.fin_received {
                Frame::Credit(id, bytes).encode(out);
            }
        }
        state.credit_due &= !state.credits.is_empty();
    }

    /// Whether a bulk lane waits for acknowledgements before it sends more.
    fn yields(&self, lane: LaneId, now: Instant) -> bool {
        self.interactive.is_active(now, &self.limits)
            && self.lanes[lane].in_flight.bytes()
                >= yielding::most_in_flight(self.lanes[HOME].shortest_round_trip(), &self.limits)
    }

    /// Deficit round robin; a flow's first turn after a pause comes before the others'.
    fn write_data(&mut self, lane: LaneId, out: &mut Vec<u8>, end: usize, now: Instant) {
        if lane != HOME && self.yields(lane, now) {
            return;
        }
        let start = out.len();
        let record = self.lanes[lane].sent + 1;
        loop {
            let state = &mut self.lanes[lane];
            let Some(id) = state.fresh.pop_front().or_else(|| state.ready.pop_front()) else { return };
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            let was_fresh = flow.place == Place::Fresh;
            if flow.deficit <= 0 {
                flow.deficit += cost(if lane == HOME { QUANTUM } else { BULK_QUANTUM });
            }
            let before = flow.unsent();
            // Home before the turn, as it calmed down in a pause; out behind it, as the bytes are counted then.
            let room = |out: &Vec<u8>| end - out.len() >= frame::HEADER;
            let mut moved = lane != HOME && room(out) && moves(id, flow, &self.lanes, now, &self.limits);
            let mut turn = Turn::Moved;
            if !moved {
                turn = take_turn(id, flow, out, end, &mut self.pool);
                let sent = before - flow.unsent();
                self.unsent -= sent;
                let mut message = sent;
                if let Body::Stream(stream) = &mut flow.body
                    && sent > 0
                {
                    message = stream.departure.sent(sent, record, now, &self.limits);
                    if lane == HOME && matches!(turn, Turn::Spent | Turn::Idle) && room(out) {
                        moved = moves(id, flow, &self.lanes, now, &self.limits);
                    }
                }
                if lane == HOME && sent > 0 {
                    self.interactive.passed(message, now);
                }
            }
            if moved && let Body::Stream(stream) = &mut flow.body {
                Frame::Move(id).encode(out);
                stream.departure.moved(record);
                turn = Turn::Moved;
            }
            if flow.unsent() <= self.limits.send_queue / 2 {
                flow.writers.wake();
            }
            let state = &mut self.lanes[lane];
            match turn {
                Turn::Full => {
                    if was_fresh {
                        state.fresh.push_front(id);
                    } else {
                        state.ready.push_front(id);
                    }
                    // A datagram that does not fit behind the control frames goes first next time.
                    state.data_first = out.len() == start;
                    return;
                }
                Turn::Spent => {
                    flow.place = Place::Ready;
                    state.ready.push_back(id);
                }
                Turn::Idle if was_fresh => {
                    // It waits a round before it may be fresh again, or many small writes would starve the rest.
                    flow.place = Place::Ready;
                    state.ready.push_back(id);
                }
                Turn::Idle => {
                    flow.place = Place::None;
                    flow.deficit = flow.deficit.min(0);
                }
                Turn::Moved => {
                    flow.place = Place::None;
                    flow.deficit = flow.deficit.min(0);
                    self.schedule(id);
                }
                Turn::Gone => self.retire(id),
            }
        }
    }
}

/// Whether the flow goes on on its other lane.
fn moves(id: FlowId, flow: &mut Flow, lanes: &[Lane], now: Instant, limits: &Limits) -> bool {
    match &mut flow.body {
        Body::Stream(stream) => {
            flow.phase == Phase::Live
                && stream.fin != Fin::Sent
                && stream.departure.wants_to_move(id.0, lanes, now, limits)
        }
        Body::Datagrams(_) => false,
    }
}

fn take_turn(id: FlowId, flow: &mut Flow, out: &mut Vec<u8>, end: usize, pool: &mut Pool) -> Turn {
    let room = |out: &Vec<u8>| (end - out.len()).saturating_sub(frame::HEADER);
    if !flow.can_send() {
        return Turn::Idle;
    }
    if flow.deficit <= 0 {
        return Turn::Spent;
    }
    match &mut flow.body {
        Body::Stream(stream) => {
            let turn = usize::try_from(flow.deficit).unwrap_or(0);
            let credit = usize::try_from(stream.credit).unwrap_or(usize::MAX);
            let wanted = stream.unsent.len().min(turn).min(credit);
            let fits = wanted.min(room(out));
            if fits < wanted.min(SMALLEST_PIECE) {
                return Turn::Full;
            }
            if fits > 0 {
                frame::put_data_header(out, id, fits);
                stream.unsent.take(fits, |bytes| out.extend_from_slice(bytes), pool);
                stream.credit -= fits as u64;
                flow.deficit -= cost(fits);
            }
            if stream.unsent.is_empty() && stream.fin == Fin::Pending {
                if end - out.len() < frame::HEADER {
                    return Turn::Full;
                }
                Frame::Fin(id).encode(out);
                stream.fin = Fin::Sent;
                if flow.orphan {
                    return Turn::Gone;
                }
            }
            if stream.unsent.is_empty()
                && let Some(why) = flow.closing
            {
                return close(id, why, out, end);
            }
            match () {
                () if fits < wanted => Turn::Full,
                () if !flow.can_send() => Turn::Idle,
                () => Turn::Spent,
            }
        }
        Body::Datagrams(queues) => {
            while flow.deficit > 0
                && let Some(first) = queues.unsent.front()
            {
                if first.len() > room(out) {
                    return Turn::Full;
                }
                Frame::Datagram(id, first).encode(out);
                flow.deficit -= cost(first.len() + frame::HEADER);
                queues.unsent_bytes -= first.len();
                queues.unsent.pop_front();
            }
            if !queues.unsent.is_empty() {
                return Turn::Spent;
            }
            flow.closing.map_or(Turn::Idle, |why| close(id, why, out, end))
        }
    }
}

/// RESET behind the last of the flow's data.
fn close(id: FlowId, why: Refusal, out: &mut Vec<u8>, end: usize) -> Turn {
    if end - out.len() < frame::HEADER + 1 {
        return Turn::Full;
    }
    Frame::Reset(id, ResetCode::Abort(why)).encode(out);
    Turn::Gone
}

/// Bytes of one frame against a turn.
fn cost(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
