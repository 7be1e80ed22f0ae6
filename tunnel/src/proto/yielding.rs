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
    records: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl InFlight {
    const SMALL: usize = 1 << 10;
    /// More than any honest window holds; what a peer that never acknowledges is sent beyond it counts as one record.
    const MOST: usize = 1 << 14;

    pub(super) fn sent(&mut self, number: u64, bytes: usize) {
        if bytes < Self::SMALL {
            return;
        }
        self.bytes += bytes;
        let full = self.records.len() >= Self::MOST;
        match self.records.back_mut() {
            Some(last) if full => *last = (number, last.1 + bytes),
            _ => self.records.push_back((number, bytes)),
        }
    }

    pub(super) fn acknowledged(&mut self, number: u64) {
        while let Some((_, bytes)) = self.records.pop_front_if(|(sent, _)| *sent <= number) {
            self.bytes -= bytes;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_never_acknowledges_costs_bounded_memory() {
        let mut in_flight = InFlight::default();
        let sent = 3 * InFlight::MOST as u64;
        for number in 1..=sent {
            in_flight.sent(number, InFlight::SMALL);
        }
        assert_eq!(in_flight.records.len(), InFlight::MOST);
        assert_eq!(in_flight.bytes(), 3 * InFlight::MOST * InFlight::SMALL);
        in_flight.acknowledged(sent - 1);
        assert_eq!(in_flight.records.len(), 1, "the last stands for all that were too many");
        in_flight.acknowledged(sent);
        assert_eq!(in_flight.bytes(), 0);
    }
}
