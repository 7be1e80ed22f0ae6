//! Receive windows: how much the other side may send in one flow, and what all flows together are worth.

use std::time::{Duration, Instant};

use super::limits::Limits;

/// A round is "fast" below this even if the ping says less: under load the path through the cluster takes as long, by
/// its queues and by scheduling.
const SHORTEST_ROUND: Duration = Duration::from_millis(24);

/// A round that takes more than so many times as long as a fast one did not need what the last growth gave.
const SLOW: u32 = 3;

/// Nothing grows to more than so many times itself at once: what came in a burst says little.
const GROWTH: u32 = 4;

/// A window that is not drained within so many rounds is not what holds its sender back.
const ROUNDS: u32 = 2;

/// Bytes of a stream that its opener may send ahead of the answer. Every window of a new flow is as large at least.
pub const EARLY: u32 = 4 << 10;

/// Freed bytes that are worth a CREDIT frame in a large window. Half of it would leave half unused on a path that needs
/// all of it.
const CREDIT: u32 = 1 << 20;

/// The other side sent more than it was allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

/// What busy flows may have on their way to this end together: as much as the path holds, in even shares. A measure for
/// each flow would divide the path by the luck of their first rounds.
#[derive(Debug)]
pub struct Inflow {
    /// Bytes; a round ends when so many have arrived.
    size: u32,
    /// When this round began, and how long it may take to be fast; `None` before the first bytes.
    begun: Option<(Instant, Duration)>,
    /// Bytes that arrived in this round,
    arrived: u32,
    /// the most of one flow,
    largest: u32,
    /// and flows that brought at least `enough`.
    flows: u32,
    /// An eighth of what the busiest flow brought in the round before: a paced flow that brings less is no sharer.
    enough: u32,
    /// Flows that share the path evenly.
    sharers: u32,
    /// Number of this round.
    round: u32,
}

impl Inflow {
    /// Of a path that nothing is known of.
    pub fn new(limits: &Limits) -> Self {
        Self {
            size: limits.initial_window,
            begun: None,
            arrived: 0,
            largest: 0,
            flows: 0,
            enough: 1,
            sharers: 1,
            round: 1,
        }
    }

    /// `bytes` arrived in the flow with this window. A round ends when as much as the size has arrived. Did that take less
    /// than three round trips (new credit takes one to bring bytes, and those come in pieces) or [`SHORTEST_ROUND`], the
    /// windows were what held the senders back: the size becomes what would have arrived in that time. It becomes half as
    /// large when that much does not arrive within [`SLOW`] times as long, so also once in a pause.
    pub fn receive(
        &mut self,
        bytes: u32,
        window: &mut Window,
        now: Instant,
        round_trip: impl Fn() -> Duration,
        limits: &Limits,
    ) {
        let next = || (now, (round_trip() * 3).max(SHORTEST_ROUND));
        let (begun, fast) = *self.begun.get_or_insert_with(next);
        let elapsed = now.duration_since(begun);
        let brought = window.arrived_in(self.round, bytes);
        if brought >= self.enough && brought - bytes < self.enough {
            self.flows += 1;
        }
        self.largest = self.largest.max(brought);
        self.arrived = self.arrived.saturating_add(bytes);
        let full = self.arrived >= self.size;
        if full && elapsed <= fast {
            let elapsed = elapsed.max(fast / GROWTH);
            let size = u128::from(self.size) * fast.as_nanos() / elapsed.as_nanos();
            self.size = u32::try_from(size).unwrap_or(u32::MAX).min(limits.max_inflow);
        } else if elapsed > fast * SLOW {
            self.size = (self.size / 2).max(limits.initial_window);
        } else if !full {
            // Who is busy has brought enough by now.
            if elapsed > fast && self.arrived >= self.size / 2 {
                self.sharers = self.sharers.min(self.flows);
            }
            return;
        }
        (self.sharers, self.enough) = (self.flows, (self.largest / 8).max(1));
        (self.begun, self.arrived, self.largest, self.flows) = (Some(next()), 0, 0, 0);
        self.round = self.round.wrapping_add(1);
    }

    /// How large the window of a busy flow should be.
    fn share(&self, limits: &Limits) -> u32 {
        (self.size / self.sharers.max(1)).min(limits.max_window).max(limits.initial_window)
    }
}

/// Invariant: promised + buffered ≤ size, so `size` bounds what a lying peer can make us hold.
#[derive(Debug)]
pub struct Window {
    size: u32,
    /// What the other side may still send.
    promised: u32,
    /// Received and not yet read by the application.
    buffered: u32,
    /// Read by the application since the window grew, or since the round `since`.
    drained: u32,
    since: u32,
    /// Arrived in the round `round` of [`Inflow`].
    arrived: u32,
    round: u32,
}

impl Window {
    /// A window of `size` bytes, all of it promised.
    pub fn new(size: u32) -> Self {
        Self { size, promised: size, buffered: 0, drained: 0, since: 0, arrived: 0, round: 0 }
    }

    /// Current size in bytes.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// `bytes` arrived.
    pub fn receive(&mut self, bytes: u32) -> Result<(), Overrun> {
        self.promised = self.promised.checked_sub(bytes).ok_or(Overrun)?;
        self.buffered += bytes;
        Ok(())
    }

    /// What arrived in this round so far, with these bytes.
    fn arrived_in(&mut self, round: u32, bytes: u32) -> u32 {
        if self.round != round {
            (self.round, self.arrived) = (round, 0);
        }
        self.arrived = self.arrived.saturating_add(bytes);
        self.arrived
    }

    /// The application took `bytes`. The window of a busy flow follows its share: up by at most `allowance` and to at most
    /// [`GROWTH`] times itself, once a whole window was taken within [`ROUNDS`] and no more than a quarter of one waits, so
    /// not for who reads slowly; down as far as nothing is promised. Its size changes by the result.
    pub fn consume(&mut self, bytes: u32, inflow: &Inflow, limits: &Limits, allowance: u64) -> i64 {
        self.buffered -= bytes;
        if inflow.round.wrapping_sub(self.since) >= ROUNDS {
            (self.since, self.drained) = (inflow.round, 0);
        }
        self.drained = self.drained.saturating_add(bytes);
        let (before, share) = (self.size, inflow.share(limits));
        if self.size > share {
            self.size -= self.free().min(self.size - share);
        } else if self.drained >= self.size && self.buffered <= self.size / 4 {
            let room = u32::try_from(allowance).unwrap_or(u32::MAX);
            self.size += self.size.saturating_mul(GROWTH - 1).min(share - self.size).min(room);
            (self.since, self.drained) = (inflow.round, 0);
        }
        i64::from(self.size) - i64::from(before)
    }

    /// Whether enough was read for a CREDIT frame to be worth a message: half of the window, at most [`CREDIT`].
    pub fn owes(&self) -> bool {
        self.free() >= (self.size / 2).clamp(1, CREDIT)
    }

    /// Whether enough was read for a CREDIT frame in a message that leaves anyway: half of that. Flows that share a path
    /// evenly are credited by one message, not by one each.
    pub fn rides(&self) -> bool {
        self.free() >= (self.size / 4).clamp(1, CREDIT / 2)
    }

    /// Promises everything that is free.
    pub fn grant(&mut self) -> u32 {
        let free = self.free();
        self.promised += free;
        free
    }

    fn free(&self) -> u32 {
        self.size - self.promised - self.buffered
    }
}
