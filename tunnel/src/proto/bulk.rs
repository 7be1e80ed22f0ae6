//! Bulk apart from interactive: which lane each direction of a stream takes.
//!
//! Every flow begins on the home lane. A direction that sends more than an interactive program does goes on on a bulk
//! lane, a carrier of its own, so that a keystroke never queues behind a download in the sockets and pipes that a
//! carrier passes through; when it calms down it comes home. The sender says MOVE on the lane that it leaves. What
//! overtakes this on the other lane is kept aside by the receiver, within the flow's window, so the order of bytes is
//! that of the frames. A flow has one bulk lane for its life, and moves again only when the last MOVE and the first data
//! behind it were acknowledged: so at most one lane overtakes, by one move.

use std::time::Instant;

use super::{
    chunks::Chunks,
    lane::{HOME, Lane, LaneId},
    limits::Limits,
};
use crate::Refusal;

/// The sending direction. Small: every flow has one.
#[derive(Debug, Default)]
pub(super) struct Departure {
    /// The flow's bulk lane, once it has one.
    bulk: Option<u8>,
    away: bool,
    /// Bytes ahead of the bulk rate, at `since`: a leaky bucket.
    ahead: u32,
    since: Option<Instant>,
    /// Record of the last MOVE on the lane that it left; 0 before any.
    moved_in: u64,
    /// Record of the first data on this lane since then; 0 while there is none.
    begun_in: u64,
}

impl Departure {
    pub(super) fn lane(&self) -> LaneId {
        if self.away { self.elsewhere() } else { HOME }
    }

    fn elsewhere(&self) -> LaneId {
        self.bulk.map_or(HOME, LaneId::from)
    }

    /// `bytes` leave now, in this record of the lane. Returns by how much it is ahead of the bulk rate.
    pub(super) fn sent(&mut self, bytes: usize, record: u64, now: Instant, limits: &Limits) -> usize {
        if self.begun_in == 0 {
            self.begun_in = record;
        }
        self.leak(now, limits);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.ahead = self.ahead.saturating_add(bytes).min(limits.bulk_burst * 2);
        self.ahead as usize
    }

    /// Whether it should go on on its other lane, and may.
    pub(super) fn wants_to_move(&mut self, flow: u32, lanes: &[Lane], now: Instant, limits: &Limits) -> bool {
        if lanes.len() < 2 || self.begun_in == 0 {
            return false;
        }
        let most = u8::try_from(lanes.len() - 1).unwrap_or(u8::MAX);
        let bulk = *self.bulk.get_or_insert(1 + u8::try_from(flow / 2 % u32::from(most)).unwrap_or(0));
        let (here, there) = if self.away { (LaneId::from(bulk), HOME) } else { (HOME, LaneId::from(bulk)) };
        if lanes[here].acknowledged < self.begun_in || lanes[there].acknowledged < self.moved_in {
            return false;
        }
        self.leak(now, limits);
        if self.away { self.ahead < limits.bulk_burst / 4 } else { self.ahead > limits.bulk_burst }
    }

    /// MOVE is said in this record.
    pub(super) fn moved(&mut self, record: u64) {
        self.moved_in = record;
        self.begun_in = 0;
        self.away = !self.away;
    }

    fn leak(&mut self, now: Instant, limits: &Limits) {
        let since = self.since.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(since);
        // An hour empties any bucket.
        let micros = passed.as_secs().min(3600) * 1_000_000 + u64::from(passed.subsec_micros());
        let leaked = micros * u64::from(limits.bulk_rate) / 1_000_000;
        if leaked == 0 {
            // Not to lose the rest at every small step.
            self.since = Some(since);
        }
        self.ahead = self.ahead.saturating_sub(u32::try_from(leaked).unwrap_or(u32::MAX));
    }
}

/// The receiving direction.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Where the next byte comes; unknown between a MOVE and the first frame behind it.
    lane: Option<u8>,
    early: Option<Box<Early>>,
}

/// What overtook a MOVE.
#[derive(Debug)]
pub(super) struct Early {
    lane: u8,
    pub(super) bytes: Chunks,
    pub(super) fin: bool,
    pub(super) reset: Option<Refusal>,
}

/// When a frame's content is due.
pub(super) enum Due<'a> {
    Now,
    Later(&'a mut Early),
}

/// A frame on a lane that the flow cannot be on.
pub(super) struct WrongLane;

impl Default for Arrival {
    fn default() -> Self {
        Self { lane: Some(0), early: None }
    }
}

impl Arrival {
    /// A frame of the flow came on `lane`.
    pub(super) fn place(&mut self, lane: LaneId) -> Result<Due<'_>, WrongLane> {
        let lane = u8::try_from(lane).map_err(|_| WrongLane)?;
        if *self.lane.get_or_insert(lane) == lane {
            return Ok(Due::Now);
        }
        let early = self.early.get_or_insert_with(|| {
            Box::new(Early { lane, bytes: Chunks::default(), fin: false, reset: None })
        });
        if early.lane == lane { Ok(Due::Later(early)) } else { Err(WrongLane) }
    }

    /// MOVE came on `lane`: what overtook it is due now.
    pub(super) fn leave(&mut self, lane: LaneId) -> Result<Option<Box<Early>>, WrongLane> {
        if self.lane.map(LaneId::from) != Some(lane) {
            return Err(WrongLane);
        }
        let early = self.early.take();
        self.lane = early.as_ref().map(|early| early.lane);
        Ok(early)
    }
}
