//! Bulk gives way to interactive traffic.
//!
//! A lane of its own keeps a keystroke from queueing behind a download in buffers. It does not keep the two from
//! sharing processors and links: a download that keeps every process on the way busy makes each hop of the keystroke
//! wait for its turn. So while small messages travel on the home lane, the bulk lanes keep no more bytes on their way
//! than the path itself holds; without such messages they are limited by the flows' windows alone.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::limits::Limits;

/// What was sent on a lane and not acknowledged. Small records do not count: they pass without taking time.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Number and bytes of each record.
    records: VecDeque<(u64, u32)>,
    bytes: usize,
}

impl InFlight {
    const SMALL: usize = 1 << 10;

    pub(super) fn sent(&mut self, number: u64, bytes: usize) {
        if bytes >= Self::SMALL {
            self.records.push_back((number, u32::try_from(bytes).unwrap_or(u32::MAX)));
            self.bytes += bytes;
        }
    }

    pub(super) fn acknowledged(&mut self, number: u64) {
        while let Some((_, bytes)) = self.records.pop_front_if(|(sent, _)| *sent <= number) {
            self.bytes -= bytes as usize;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// When a small message was last on the home lane, in either direction.
#[derive(Debug, Default)]
pub(super) struct Interactive(Option<Instant>);

impl Interactive {
    /// Longer messages are not what somebody waits for with the hand on the key.
    const LARGEST: usize = 4 << 10;

    /// A message of `bytes`; of a stream that this end sends, so much as it is ahead of the bulk rate, since a download
    /// has short pieces too. The receiver sees pieces only: a mistake makes it acknowledge more often.
    pub(super) fn passed(&mut self, bytes: usize, now: Instant) {
        if bytes <= Self::LARGEST {
            self.0 = Some(now);
        }
    }

    pub(super) fn is_active(&self, now: Instant, limits: &Limits) -> bool {
        self.0.is_some_and(|last| now.saturating_duration_since(last) < limits.interactive_memory)
    }
}

/// The most that a bulk lane may have on its way beside interactive traffic: what passes in a round trip at the speed
/// of a very fast link.
pub(super) fn most_in_flight(round_trip: Duration, limits: &Limits) -> usize {
    let micros = usize::try_from(round_trip.as_micros()).unwrap_or(usize::MAX);
    micros.saturating_mul(limits.yielding_rate / 1_000_000).max(limits.yielding_bytes)
}
