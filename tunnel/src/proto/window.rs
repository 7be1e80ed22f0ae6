//! Receive window of one flow: how much the other side may send, and how it grows.

use std::time::{Duration, Instant};

/// A window is drained "fast" below this even if the ping says less: under load the path through the cluster takes as
/// long, by its queues and by scheduling. So a bulk flow has in flight what it sends in this time at most.
const SHORTEST_ROUND: Duration = Duration::from_millis(8);

/// Bytes of a stream that its opener may send ahead of the answer. Every window of a new flow is as large at least.
pub const EARLY: u32 = 4 << 10;

/// Freed bytes that are worth a CREDIT frame in a large window. A quarter of it would leave a quarter unused on a path
/// that needs all of it.
const CREDIT: u32 = 1 << 20;

/// The other side sent more than it was allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

/// Invariant: promised + buffered ≤ size, so `size` bounds what a lying peer can make us hold.
#[derive(Debug)]
pub struct Window {
    size: u32,
    /// What the other side may still send.
    promised: u32,
    /// Received and not yet read by the application.
    buffered: u32,
    round: Option<Instant>,
    /// Read by the application since `round`.
    drained: u32,
}

impl Window {
    /// A window of `size` bytes, all of it promised.
    pub fn new(size: u32) -> Self {
        Self { size, promised: size, buffered: 0, round: None, drained: 0 }
    }

    /// Current size in bytes.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// `bytes` arrived.
    pub fn receive(&mut self, bytes: u32, now: Instant) -> Result<(), Overrun> {
        self.promised = self.promised.checked_sub(bytes).ok_or(Overrun)?;
        self.buffered += bytes;
        self.round.get_or_insert(now);
        Ok(())
    }

    /// The application took `bytes`. Returns by how much the window grew, at most `allowance`: it becomes four times as
    /// large when the application drained a whole window within three round trips (new credit takes one to bring bytes,
    /// and those come in pieces), for then the window was what held the sender back.
    pub fn consume(
        &mut self,
        bytes: u32,
        now: Instant,
        round_trip: Duration,
        max: u32,
        allowance: u64,
    ) -> u32 {
        self.buffered -= bytes;
        self.drained = self.drained.saturating_add(bytes);
        if self.drained < self.size {
            return 0;
        }
        let fast =
            self.round.is_some_and(|start| now.duration_since(start) <= (round_trip * 3).max(SHORTEST_ROUND));
        self.round = Some(now);
        self.drained = 0;
        if !fast {
            return 0;
        }
        let room = u32::try_from(allowance).unwrap_or(u32::MAX);
        let growth = self.size.saturating_mul(3).min(max.saturating_sub(self.size)).min(room);
        self.size += growth;
        growth
    }

    /// Whether enough was read for a CREDIT frame to be worth its bytes: a quarter of the window, at most [`CREDIT`].
    pub fn owes(&self) -> bool {
        self.free() >= (self.size / 4).clamp(1, CREDIT)
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
