//! State of one lane: numbering, acknowledgement, liveness and the scheduler's lists.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    frame::{FlowId, ResetCode},
    limits::Limits,
    yielding::InFlight,
};
use crate::Refusal;

/// Index of a lane in its tunnel; the two ends may count the bulk lanes differently.
pub type LaneId = usize;

/// The lane that the tunnel began with: opens, answers, credit, datagrams, and the data of flows that are not bulk, with
/// their ends. All others are bulk lanes.
pub const HOME: LaneId = 0;

/// A lane whose peer does not take its answers is not read any further beyond this many frames (3 MiB of memory).
/// More than all flows of both ends together may honestly have waiting, for two ends that both stopped reading would
/// wait for each other.
const CONGESTED: usize = 1 << 17;

/// A small frame that goes before all data.
#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    /// Taken from the flow when it leaves; nothing when the flow is gone.
    Open(FlowId),
    Answer(FlowId, Result<u32, Refusal>),
    Reset(FlowId, ResetCode),
    Goaway,
}

/// Whether received records are still to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    Nothing,
    DueAt(Instant),
    Due,
}

/// The shortest of so many round trips to twice as many is remembered, half a minute of a busy path: enough to have seen it
/// without a queue also under load, which makes all processes on it slow; few enough to follow a path that changed.
const SAMPLES: u8 = 15;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) control: VecDeque<Control>,
    /// Flows whose CREDIT frame would be worth a ride,
    pub(super) credits: VecDeque<FlowId>,
    /// of which one is owed.
    pub(super) credit_due: bool,
    /// Flows that began to send after a pause: one turn each before `ready` (as `fq_codel` does), so that a
    /// keystroke does not wait behind a download.
    pub(super) fresh: VecDeque<FlowId>,
    /// Flows that go on sending.
    pub(super) ready: VecDeque<FlowId>,
    /// The first datagram did not fit behind the control frames: next time it goes first.
    pub(super) data_first: bool,
    pub(super) pong: Option<u64>,
    pub(super) goaway: bool,

    /// Number of the last record sent.
    pub(super) sent: u64,
    /// The other side has handed on all records up to this.
    pub(super) acknowledged: u64,
    pub(super) in_flight: InFlight,
    /// Number of the last record received.
    pub(super) received: u64,
    owed: usize,
    ack: Ack,

    last_ping: Option<Instant>,
    next_ping: Instant,
    ping: Option<u64>,
    token: u64,
    /// Token and time of the ping on its way.
    pinged: Option<(u64, Instant)>,
    /// Since when an answer is missing.
    silent_since: Option<Instant>,
    smoothed: Option<Duration>,
    /// Shortest of the round trips since the last [`SAMPLES`] were full, and of those; how many there are since.
    shortest: [Option<Duration>; 2],
    samples: u8,
}

impl Lane {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            control: VecDeque::new(),
            credits: VecDeque::new(),
            credit_due: false,
            fresh: VecDeque::new(),
            ready: VecDeque::new(),
            data_first: false,
            pong: None,
            goaway: false,
            sent: 0,
            acknowledged: 0,
            in_flight: InFlight::default(),
            received: 0,
            owed: 0,
            ack: Ack::Nothing,
            last_ping: None,
            next_ping: now,
            ping: None,
            token: 0,
            pinged: None,
            silent_since: None,
            smoothed: None,
            shortest: [None; 2],
            samples: 0,
        }
    }

    pub(super) fn is_congested(&self) -> bool {
        self.control.len() >= CONGESTED
    }

    /// Nothing waits to be sent, but for what would take a ride.
    pub(super) fn is_drained(&self) -> bool {
        self.control.is_empty() && !self.credit_due && self.fresh.is_empty() && self.ready.is_empty()
    }

    /// Any byte of the peer is a sign of life.
    pub(super) fn heard(&mut self) {
        self.silent_since = None;
    }

    /// Acknowledges after `delay` or `most` bytes.
    pub(super) fn owe_ack(
        &mut self,
        bytes: usize,
        delay: Duration,
        most: usize,
        now: Instant,
        limits: &Limits,
    ) {
        // A path that is used is measured more often: windows follow its round trip.
        let soon = self.last_ping.map_or(now, |last| last + limits.busy_ping_interval);
        self.next_ping = self.next_ping.min(soon);
        self.owed += bytes;
        self.ack = match self.ack {
            _ if self.owed >= most => Ack::Due,
            Ack::Nothing => Ack::DueAt(now + delay),
            // The delay may have become shorter.
            Ack::DueAt(at) => Ack::DueAt(at.min(now + delay)),
            Ack::Due => Ack::Due,
        };
    }

    /// The acknowledgement to send: due, or worth a ride in a record that leaves anyway.
    pub(super) fn take_ack(&mut self, now: Instant, rides: bool) -> Option<u64> {
        if self.ack == Ack::Nothing || !(rides || self.ack_is_due(now)) {
            return None;
        }
        self.owed = 0;
        self.ack = Ack::Nothing;
        Some(self.received)
    }

    pub(super) fn take_ping(&mut self, now: Instant) -> Option<u64> {
        let token = self.ping.take()?;
        self.pinged = Some((token, now));
        Some(token)
    }

    pub(super) fn handle_pong(&mut self, token: u64, now: Instant) {
        let Some((_, sent)) = self.pinged.take_if(|(pinged, _)| *pinged == token) else { return };
        let sample = now.duration_since(sent);
        self.smoothed = Some(self.smoothed.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
        if self.samples == SAMPLES {
            self.shortest = [None, self.shortest[0]];
            self.samples = 0;
        }
        self.samples += 1;
        self.shortest[0] = Some(self.shortest[0].map_or(sample, |shortest| shortest.min(sample)));
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Lowest of the recent round trips: the path without our own queues in it.
    pub(super) fn shortest_round_trip(&self) -> Duration {
        self.shortest.into_iter().flatten().min().unwrap_or_default()
    }

    pub(super) fn poll_timeout(&self, limits: &Limits) -> Instant {
        let dead = self.silent_since.map(|since| since + limits.silence);
        let ack = if let Ack::DueAt(at) = self.ack { Some(at) } else { None };
        [ack, dead].into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    /// Returns whether the lane is dead.
    pub(super) fn handle_timeout(&mut self, now: Instant, limits: &Limits) -> bool {
        if now >= self.next_ping {
            self.last_ping = Some(now);
            self.next_ping = now + limits.ping_interval;
            self.token += 1;
            self.ping = Some(self.token);
            self.silent_since.get_or_insert(now);
        }
        // Due once: a carrier that takes nothing now must not ring the timer again and again.
        if self.ack_is_due(now) {
            self.ack = Ack::Due;
        }
        self.silent_since.is_some_and(|since| now >= since + limits.silence)
    }

    /// Whether a ping, pong or due acknowledgement waits.
    pub(super) fn has_signal(&self, now: Instant) -> bool {
        self.ping.is_some() || self.pong.is_some() || self.ack_is_due(now)
    }

    fn ack_is_due(&self, now: Instant) -> bool {
        match self.ack {
            Ack::Nothing => false,
            Ack::DueAt(at) => now >= at,
            Ack::Due => true,
        }
    }
}
