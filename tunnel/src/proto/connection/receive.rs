//! What the other side sent.

use std::time::Instant;

use bytes::Bytes;

use super::{Connection, Life, ProtocolError};
use crate::{
    Open, Refusal,
    proto::{
        bulk::Due,
        flow::{Body, Fin, Flow, Phase},
        frame::{FlowId, Frame, MAX_CREDIT, ResetCode},
        lane::{Control, HOME, LaneId},
        record::Record,
        window::EARLY,
    },
};

impl Connection {
    /// Takes the whole records of `bytes`; returns how many bytes that was. Stops early when the lane became
    /// congested. After an error the tunnel has to end.
    pub fn handle_bytes(&mut self, lane: LaneId, bytes: &[u8], now: Instant) -> Result<usize, ProtocolError> {
        let mut used = 0;
        while !self.is_congested(lane) {
            let record = Record::first(&bytes[used..]).map_err(|bad| ProtocolError::RecordLength(bad.0))?;
            let Some(record) = record else { break };
            self.handle_record(lane, &record, now)?;
            used += record.wire_len();
        }
        Ok(used)
    }

    /// The peer does not take our answers: do not read its lane until some have left.
    pub fn is_congested(&self, lane: LaneId) -> bool {
        self.lanes[lane].is_congested()
    }

    #[expect(clippy::cast_possible_truncation, reason = "a record carries the low half of its number")]
    fn handle_record(
        &mut self,
        lane: LaneId,
        record: &Record<'_>,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        let state = &mut self.lanes[lane];
        state.heard();
        let expected = (state.received + 1) as u32;
        if record.number != expected {
            return Err(ProtocolError::RecordNumber { got: record.number, expected });
        }
        let mut body = record.body;
        let mut wants_ack = false;
        while let Some(frame) = Frame::decode(&mut body)? {
            wants_ack |= frame.wants_ack();
            self.handle_frame(lane, frame, now)?;
        }
        let state = &mut self.lanes[lane];
        state.received += 1;
        if wants_ack {
            let limits = &self.limits;
            let (delay, most) = match lane {
                HOME => (limits.ack_delay, limits.ack_bytes),
                _ if self.interactive.is_active(now, limits) => {
                    (limits.yielding_ack_delay, limits.yielding_ack_bytes)
                }
                _ => (limits.bulk_ack_delay, limits.bulk_ack_bytes),
            };
            state.owe_ack(record.wire_len(), delay, most, now, limits);
        }
        Ok(())
    }

    fn handle_frame(&mut self, lane: LaneId, frame: Frame<'_>, now: Instant) -> Result<(), ProtocolError> {
        match frame {
            Frame::Open(id, window, meta) => self.handle_open(lane, id, window, meta)?,
            Frame::Answer(id, answer) => self.handle_answer(lane, id, answer)?,
            Frame::Data(id, bytes) => self.handle_data(lane, id, bytes, now)?,
            Frame::Datagram(id, bytes) => self.handle_datagram(lane, id, bytes, now)?,
            Frame::Fin(id) => self.handle_fin(lane, id)?,
            Frame::Move(id) => self.handle_move(lane, id)?,
            Frame::Reset(id, code) => self.handle_reset(lane, id, code)?,
            Frame::Credit(id, bytes) => {
                if let Some(flow) = self.live_at_home(lane, id)? {
                    let Body::Stream(stream) = &mut flow.body else {
                        return Err(ProtocolError::BadState(id.0));
                    };
                    stream.credit += u64::from(bytes);
                    if stream.credit > u64::from(MAX_CREDIT) {
                        return Err(ProtocolError::CreditOverflow(id.0));
                    }
                    self.schedule(id);
                }
            }
            // One answer a time: a flood of pings costs its sender more than us.
            Frame::Ping(token) => self.lanes[lane].pong = Some(token),
            Frame::Pong(token) => self.lanes[lane].handle_pong(token, now),
            Frame::Goaway => self.lanes[lane].goaway = true,
            Frame::Ack(number) => {
                let state = &mut self.lanes[lane];
                if number > state.sent {
                    return Err(ProtocolError::AckTooHigh(number));
                }
                state.acknowledged = state.acknowledged.max(number);
                state.in_flight.acknowledged(number);
            }
        }
        Ok(())
    }

    fn handle_open(
        &mut self,
        lane: LaneId,
        id: FlowId,
        window: u32,
        meta: &[u8],
    ) -> Result<(), ProtocolError> {
        let in_order = self.highest.is_none_or(|highest| highest < id);
        self.highest = self.highest.max(Some(id));
        if lane != HOME || self.is_mine(id) || !in_order || self.flows.contains_key(&id) {
            return Err(ProtocolError::BadOpen(id.0));
        }
        if window > MAX_CREDIT {
            return Err(ProtocolError::CreditOverflow(id.0));
        }
        let refusal = if self.life != Life::Open || self.deaf {
            Refusal::Closed
        } else if self.theirs >= self.limits.flows || self.requests.len() >= self.limits.unanswered {
            Refusal::Overloaded
        } else if let Ok((open, [])) = postcard::take_from_bytes::<Open>(meta) {
            let datagrams = open.is_datagram();
            let promise = if datagrams { 0 } else { self.promise_window() };
            let mut flow = Flow::new(false, Phase::Requested, datagrams, promise);
            flow.meta = meta.to_vec();
            if let Body::Stream(stream) = &mut flow.body {
                stream.credit = u64::from(window);
            }
            self.insert(id, flow);
            self.requests.push_back(id);
            self.request_waiters.wake();
            return Ok(());
        } else {
            // A kind of flow that a newer peer knows.
            Refusal::Unsupported
        };
        self.control(Control::Answer(id, Err(refusal)));
        Ok(())
    }

    fn handle_answer(
        &mut self,
        lane: LaneId,
        id: FlowId,
        answer: Result<u32, Refusal>,
    ) -> Result<(), ProtocolError> {
        if !self.is_mine(id) {
            return Err(ProtocolError::BadState(id.0));
        }
        let Some(flow) = self.known_at_home(lane, id)? else { return Ok(()) };
        match flow.phase {
            Phase::Opening { sent: true } => {}
            // This end closed meanwhile.
            Phase::Refused(_) => return Ok(()),
            _ => return Err(ProtocolError::BadState(id.0)),
        }
        let dropped = match answer {
            Ok(window) if window > MAX_CREDIT => return Err(ProtocolError::CreditOverflow(id.0)),
            Ok(window) => {
                flow.phase = Phase::Live;
                if let Body::Stream(stream) = &mut flow.body {
                    let ahead = u64::from(EARLY) - stream.credit;
                    stream.credit = u64::from(window).saturating_sub(ahead);
                }
                0
            }
            Err(why) => flow.refuse(why),
        };
        flow.readers.wake();
        self.unsent -= dropped;
        self.schedule(id);
        Ok(())
    }

    fn handle_data(
        &mut self,
        lane: LaneId,
        id: FlowId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), ProtocolError> {
        if lane == HOME {
            self.interactive.passed(bytes.len(), now);
        }
        let Some(flow) = self.receiving(id, true)? else { return Ok(()) };
        let early = flow.phase == Phase::Requested;
        let Body::Stream(stream) = &mut flow.body else { return Err(ProtocolError::BadState(id.0)) };
        if stream.fin_received {
            return Err(ProtocolError::BadState(id.0));
        }
        let length = u32::try_from(bytes.len()).map_err(|_| ProtocolError::Overrun(id.0))?;
        if early && stream.unread.len() + bytes.len() > EARLY as usize {
            return Err(ProtocolError::Overrun(id.0));
        }
        stream.window.receive(length).map_err(|_| ProtocolError::Overrun(id.0))?;
        let Some(Flow { body: Body::Stream(stream), orphan, readers, .. }) = self.flows.get_mut(&id) else {
            return Ok(());
        };
        let round_trip = || self.lanes[HOME].shortest_round_trip();
        self.inflow.receive(length, &mut stream.window, now, round_trip, &self.limits);
        let queue = match stream.arrival.place(lane) {
            Ok(Due::Now) => {
                readers.wake();
                &mut stream.unread
            }
            Ok(Due::Later(early)) if !early.fin && early.reset.is_none() => &mut early.bytes,
            _ => return Err(ProtocolError::BadState(id.0)),
        };
        if !*orphan {
            queue.push(bytes, &mut self.pool);
        }
        Ok(())
    }

    fn handle_fin(&mut self, lane: LaneId, id: FlowId) -> Result<(), ProtocolError> {
        let Some(flow) = self.live(id)? else { return Ok(()) };
        let bad = ProtocolError::BadState(id.0);
        let Body::Stream(stream) = &mut flow.body else { return Err(bad) };
        if stream.fin_received {
            return Err(bad);
        }
        match stream.arrival.place(lane).map_err(|_| bad)? {
            Due::Now => {
                stream.fin_received = true;
                flow.readers.wake();
            }
            Due::Later(early) if !early.fin => early.fin = true,
            Due::Later(_) => return Err(bad),
        }
        Ok(())
    }

    fn handle_move(&mut self, lane: LaneId, id: FlowId) -> Result<(), ProtocolError> {
        let bad = ProtocolError::BadState(id.0);
        if self.live(id)?.is_none() {
            return Ok(());
        }
        let Some(Flow { body: Body::Stream(stream), readers, .. }) = self.flows.get_mut(&id) else {
            return Err(bad);
        };
        if stream.fin_received {
            return Err(bad);
        }
        if let Some(early) = stream.arrival.leave(lane).map_err(|_| bad)? {
            stream.unread.append(early.bytes, &mut self.pool);
            stream.fin_received = early.fin;
            readers.wake();
            if let Some(why) = early.reset {
                self.take_reset(id, why);
            }
        }
        Ok(())
    }

    fn handle_datagram(
        &mut self,
        lane: LaneId,
        id: FlowId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), ProtocolError> {
        self.interactive.passed(bytes.len(), now);
        let total = self.datagram_bytes + bytes.len();
        let (most, most_bytes) = (self.limits.datagrams, self.limits.datagram_bytes);
        let crowded = total > self.limits.total_datagram_bytes;
        let Some(flow) = self.live_at_home(lane, id)? else { return Ok(()) };
        let Body::Datagrams(queues) = &mut flow.body else { return Err(ProtocolError::BadState(id.0)) };
        let full = queues.unread.len() >= most || queues.unread_bytes + bytes.len() > most_bytes;
        // Like a full socket buffer: the newest is dropped.
        if full || crowded || flow.orphan {
            return Ok(());
        }
        queues.unread_bytes += bytes.len();
        queues.unread.push_back(Bytes::copy_from_slice(bytes));
        flow.readers.wake();
        self.datagram_bytes = total;
        Ok(())
    }

    fn handle_reset(&mut self, lane: LaneId, id: FlowId, code: ResetCode) -> Result<(), ProtocolError> {
        let why = match code {
            ResetCode::Abort(why) => why,
            ResetCode::Stop => {
                self.known_at_home(lane, id)?;
                return self.handle_stop(id);
            }
        };
        let bad = ProtocolError::BadState(id.0);
        let Some(flow) = self.known(id)? else { return Ok(()) };
        match (flow.phase, &mut flow.body) {
            // Before its answer a flow is refused, not reset.
            (Phase::Opening { sent: false }, _) => return Err(ProtocolError::UnknownFlow(id.0)),
            (Phase::Refused(_), _) => return Ok(()),
            (Phase::Live, Body::Stream(stream)) => match stream.arrival.place(lane).map_err(|_| bad)? {
                Due::Now => {}
                Due::Later(early) => {
                    early.reset.get_or_insert(why);
                    return Ok(());
                }
            },
            _ if lane != HOME => return Err(bad),
            _ => {}
        }
        self.take_reset(id, why);
        Ok(())
    }

    /// What was received before stays: the last answer and then the end.
    fn take_reset(&mut self, id: FlowId, why: Refusal) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        match flow.phase {
            Phase::Opening { .. } => flow.phase = Phase::Refused(why),
            Phase::Refused(_) => {}
            Phase::Requested | Phase::Live => flow.reset = Some(why),
        }
        if flow.orphan {
            return self.retire(id);
        }
        let untaken = flow.phase == Phase::Requested && !std::mem::take(&mut flow.meta).is_empty();
        let unsent = flow.unsent();
        match &mut flow.body {
            Body::Stream(stream) => stream.unsent.clear(),
            Body::Datagrams(queues) => {
                queues.unsent.clear();
                queues.unsent_bytes = 0;
            }
        }
        flow.wake();
        self.unsent -= unsent;
        if untaken {
            self.requests.retain(|request| *request != id);
            self.retire(id);
        }
    }

    /// The other side reads no more, but what it sent before stands.
    fn handle_stop(&mut self, id: FlowId) -> Result<(), ProtocolError> {
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        let unsent = flow.unsent();
        let Body::Stream(stream) = &mut flow.body else { return Err(ProtocolError::BadState(id.0)) };
        if flow.phase != Phase::Live {
            return Err(ProtocolError::BadState(id.0));
        }
        stream.stopped = true;
        stream.unsent.clear();
        if stream.fin == Fin::Pending {
            stream.fin = Fin::Sent;
        }
        flow.wake();
        // A RESET still has to leave: what the other side left to be sent waits for credit that nobody gives.
        let gone = flow.orphan && flow.closing.is_none();
        self.unsent -= unsent;
        if gone {
            self.retire(id);
        }
        Ok(())
    }

    /// The flow if it is connected; `None` when it ended before.
    fn live(&mut self, id: FlowId) -> Result<Option<&mut Flow>, ProtocolError> {
        self.receiving(id, false)
    }

    /// As [`Self::live`]; with `early` also one of theirs that is not answered.
    fn receiving(&mut self, id: FlowId, early: bool) -> Result<Option<&mut Flow>, ProtocolError> {
        match self.known(id)? {
            // A RESET on a bulk lane overtakes what left before it at home, such as a CREDIT.
            Some(flow) if flow.reset.is_some() => Ok(None),
            Some(flow) if flow.phase == Phase::Live => Ok(Some(flow)),
            Some(flow) if early && flow.phase == Phase::Requested => Ok(Some(flow)),
            // We closed while the answer was on its way.
            Some(flow) if matches!(flow.phase, Phase::Refused(_)) => Ok(None),
            Some(_) => Err(ProtocolError::BadState(id.0)),
            None => Ok(None),
        }
    }

    /// The flow if this end still has it; `None` when it ended before. A frame for a flow that was never opened is an
    /// error.
    fn known(&mut self, id: FlowId) -> Result<Option<&mut Flow>, ProtocolError> {
        let opened = if self.is_mine(id) { id < self.next } else { Some(id) <= self.highest };
        match self.flows.get_mut(&id) {
            None if !opened => Err(ProtocolError::UnknownFlow(id.0)),
            flow => Ok(flow),
        }
    }

    /// As [`Self::live`] for frames that only the home lane carries.
    fn live_at_home(&mut self, lane: LaneId, id: FlowId) -> Result<Option<&mut Flow>, ProtocolError> {
        if lane == HOME { self.live(id) } else { Err(ProtocolError::BadState(id.0)) }
    }

    /// As [`Self::known`] for frames that only the home lane carries.
    fn known_at_home(&mut self, lane: LaneId, id: FlowId) -> Result<Option<&mut Flow>, ProtocolError> {
        if lane == HOME { self.known(id) } else { Err(ProtocolError::BadState(id.0)) }
    }
}
