//! One end of a tunnel.

mod datagrams;
mod flows;
mod opening;
mod receive;
mod transmit;

use std::{
    collections::{HashMap, VecDeque},
    task::Waker,
    time::{Duration, Instant},
};

use super::{
    chunks::Pool,
    flow::{Flow, Phase},
    frame::{FlowId, FrameError, ResetCode},
    lane::{Control, HOME, Lane, LaneId},
    limits::Limits,
    waiters::Waiters,
    window::{EARLY, Inflow},
    yielding::Interactive,
};
use crate::{Refusal, Role};

pub use flows::ReadOutcome;

/// The peer broke the protocol; the tunnel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// See [`FrameError`].
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A record's length is out of bounds.
    #[error("a record of {0} bytes")]
    RecordLength(u32),
    /// Records are numbered without gaps.
    #[error("record {got} where {expected} was due")]
    RecordNumber {
        /// Low half of the number in the record.
        got: u32,
        /// Low half of the number that was due.
        expected: u32,
    },
    /// An acknowledgement of what was never sent.
    #[error("acknowledged record {0} was never sent")]
    AckTooHigh(u64),
    /// An OPEN with an id of our own parity, or one that is in use or out of order.
    #[error("flow id {0} cannot be opened")]
    BadOpen(u32),
    /// A frame for a flow that was never opened, or not on this lane.
    #[error("flow {0} was never opened here")]
    UnknownFlow(u32),
    /// A frame that the flow's kind or state does not allow.
    #[error("a frame that flow {0} does not allow now")]
    BadState(u32),
    /// More bytes than the flow's window.
    #[error("flow {0} overran its window")]
    Overrun(u32),
    /// More credit than there can be.
    #[error("flow {0} was given an impossible credit")]
    CreditOverflow(u32),
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndCause {
    /// This end closed it.
    #[error("closed")]
    Closed,
    /// The other end closed it.
    #[error("closed by the other side")]
    ClosedByPeer,
    /// A carrier ended or failed.
    #[error("a carrier was lost")]
    CarrierLost,
    /// A carrier did not answer.
    #[error("a carrier fell silent")]
    Silent,
    /// See [`ProtocolError`].
    #[error("protocol violation: {0}")]
    Protocol(#[from] ProtocolError),
    /// The future that drives the tunnel was dropped.
    #[error("the tunnel's driver is gone")]
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// GOAWAY is said; what is queued leaves until then.
    Closing(Instant),
    Ended(EndCause),
}

/// One end of a tunnel; the order of calls stands in [`crate::proto`].
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    lanes: Vec<Lane>,
    /// Highest flow that the other side opened.
    highest: Option<FlowId>,
    flows: HashMap<FlowId, Flow>,
    /// Id of the next flow that we open.
    next: FlowId,
    mine: usize,
    theirs: usize,
    requests: VecDeque<FlowId>,
    request_waiters: Waiters,
    /// Nobody will take requests.
    deaf: bool,
    /// Sum of all receive windows.
    promised: u64,
    inflow: Inflow,
    /// Sum of all bytes queued towards lanes.
    unsent: usize,
    /// Sum of all received datagrams.
    datagram_bytes: usize,
    life: Life,
    end_waiters: Waiters,
    driver: Option<Waker>,
    interactive: Interactive,
    pool: Pool,
}

impl Connection {
    /// A tunnel without lanes.
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            lanes: Vec::new(),
            highest: None,
            flows: HashMap::new(),
            next: FlowId(match role {
                Role::Laptop => 2,
                Role::Agent => 1,
            }),
            mine: 0,
            theirs: 0,
            requests: VecDeque::new(),
            request_waiters: Waiters::default(),
            deaf: false,
            promised: 0,
            inflow: Inflow::new(&limits),
            unsent: 0,
            datagram_bytes: 0,
            life: Life::Open,
            end_waiters: Waiters::default(),
            driver: None,
            interactive: Interactive::default(),
            pool: Pool::default(),
            limits,
        }
    }

    /// A carrier joined. It is pinged at once.
    pub fn add_lane(&mut self, now: Instant) -> LaneId {
        self.lanes.push(Lane::new(now));
        self.lanes.len() - 1
    }

    /// Whom to wake, once, when there is something to transmit or the tunnel ended.
    pub fn register_driver(&mut self, waker: &Waker) {
        match &mut self.driver {
            Some(known) if known.will_wake(waker) => {}
            driver => *driver = Some(waker.clone()),
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lanes = self.lanes.iter().map(|lane| lane.poll_timeout(&self.limits));
        let closing = match self.life {
            Life::Closing(deadline) => Some(deadline),
            Life::Open | Life::Ended(_) => None,
        };
        lanes.chain(closing).min()
    }

    /// Pings, acknowledges, and ends the tunnel when a lane is dead or a close has waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        let dead =
            self.lanes.iter_mut().fold(false, |dead, lane| lane.handle_timeout(now, &self.limits) | dead);
        match self.life {
            Life::Closing(deadline) if now >= deadline => self.end(EndCause::Closed),
            _ if dead => self.end(EndCause::Silent),
            _ => {}
        }
    }

    /// Smoothed round-trip time of the fastest lane.
    pub fn round_trip(&self) -> Option<Duration> {
        self.lanes.iter().filter_map(Lane::round_trip).min()
    }

    /// Numbers of the last record sent on a lane and of the last that the other side acknowledged.
    pub fn records_sent(&self, lane: LaneId) -> (u64, u64) {
        (self.lanes[lane].sent, self.lanes[lane].acknowledged)
    }

    /// Flows in any state, for tests and measurements.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Bytes queued in flows towards their lanes.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent
    }

    /// Sum of the receive windows: the most that the other side can make this end hold in streams.
    pub fn promised_bytes(&self) -> u64 {
        self.promised
    }

    /// Says GOAWAY on all lanes; nothing more is opened or written, what is queued leaves.
    pub fn close(&mut self, now: Instant) {
        if self.life != Life::Open {
            return;
        }
        self.life = Life::Closing(now + self.limits.close_delay);
        for lane in &mut self.lanes {
            lane.control.push_back(Control::Goaway);
        }
        for flow in self.flows.values_mut() {
            if let Phase::Opening { .. } = flow.phase {
                self.unsent -= flow.refuse(Refusal::Closed);
            }
            flow.wake();
        }
        self.request_waiters.wake();
        self.wake_driver();
    }

    /// Whether [`Self::close`] was called and nothing is queued any more (bytes that the driver holds aside).
    pub fn is_drained(&self) -> bool {
        matches!(self.life, Life::Closing(_)) && self.unsent == 0 && self.lanes.iter().all(Lane::is_drained)
    }

    /// Whether this end is closing or has ended.
    pub fn is_closing(&self) -> bool {
        self.life != Life::Open
    }

    /// The lane's carrier reached its end.
    pub fn handle_lane_end(&mut self, lane: LaneId) {
        self.end(match self.life {
            Life::Closing(_) => EndCause::Closed,
            _ if self.lanes[lane].goaway => EndCause::ClosedByPeer,
            _ => EndCause::CarrierLost,
        });
    }

    /// Ends the tunnel; the first cause stays. All flows fail, after what they had received.
    pub fn end(&mut self, cause: EndCause) {
        if let Life::Ended(_) = self.life {
            return;
        }
        self.life = Life::Ended(cause);
        let orphans: Vec<FlowId> =
            self.flows.iter().filter(|(_, flow)| flow.orphan).map(|(id, _)| *id).collect();
        for id in orphans {
            self.retire(id);
        }
        for flow in self.flows.values_mut() {
            flow.wake();
        }
        self.request_waiters.wake();
        self.end_waiters.wake();
        self.wake_driver();
    }

    /// Why the tunnel ended, if it did.
    pub fn ended(&self) -> Option<EndCause> {
        match self.life {
            Life::Ended(cause) => Some(cause),
            Life::Open | Life::Closing(_) => None,
        }
    }

    /// [`Self::ended`], and to be woken then.
    pub fn poll_ended(&mut self, waker: &Waker) -> Option<EndCause> {
        let ended = self.ended();
        if ended.is_none() {
            self.end_waiters.register(waker);
        }
        ended
    }

    fn is_mine(&self, id: FlowId) -> bool {
        id.0 % 2 == self.next.0 % 2
    }

    fn control(&mut self, frame: Control) {
        if let Some(home) = self.lanes.get_mut(HOME) {
            home.control.push_back(frame);
        }
        self.wake_driver();
    }

    /// Makes the driver look again.
    pub(crate) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Puts a flow that has something to send into its lane's list.
    fn schedule(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if flow.place == super::flow::Place::None && flow.can_send() {
            flow.place = super::flow::Place::Fresh;
            self.lanes[flow.lane()].fresh.push_back(id);
            self.wake_driver();
        }
    }

    /// The receive window of a new flow: the full one until the tunnel's sum is nearly reached, then less and less,
    /// so that the sum of promises stays bounded with any number of flows.
    fn promise_window(&mut self) -> u32 {
        let left = self.limits.total_window.saturating_sub(self.promised);
        let fair = u32::try_from(left / 16).unwrap_or(u32::MAX);
        fair.min(self.limits.initial_window).max(EARLY)
    }

    fn insert(&mut self, id: FlowId, flow: Flow) {
        self.promised += flow.window_size();
        if flow.mine {
            self.mine += 1;
        } else {
            self.theirs += 1;
        }
        self.flows.insert(id, flow);
    }

    /// Forgets a flow and everything it holds.
    fn retire(&mut self, id: FlowId) {
        let Some(flow) = self.flows.remove(&id) else { return };
        self.promised -= flow.window_size();
        self.unsent -= flow.unsent();
        if flow.mine {
            self.mine -= 1;
        } else {
            self.theirs -= 1;
        }
        if let super::flow::Body::Datagrams(queues) = &flow.body {
            self.datagram_bytes -= queues.unread_bytes;
        }
    }

    fn reset_frame(&mut self, id: FlowId, code: ResetCode) {
        self.control(Control::Reset(id, code));
    }
}
