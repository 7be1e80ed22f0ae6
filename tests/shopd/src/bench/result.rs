//! What measurements give, as JSON on one line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One connection of a bulk measurement, counted by its receiver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Within the measured time.
    pub bytes: u64,
    /// How long was measured.
    pub measured_ms: f64,
    /// The longest time in which not a byte came.
    pub longest_gap_ms: f64,
    /// Bytes in each tenth of a second.
    pub tenths: Vec<u64>,
}

/// How long many equal things took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// None took longer.
    pub max_us: f64,
}

/// Requests, connections or questions, as many as went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Of those that were answered.
    pub times: Times,
    /// From the first to the last.
    pub measured_ms: f64,
    /// How many were not answered as they should be, by cause.
    pub failures: BTreeMap<String, u64>,
}

/// Round trips, and the bulk beside them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// Of the round trips.
    pub requests: Requests,
    /// The connection with the bulk, if there was one.
    pub bulk: Option<Stream>,
}

/// Connections that are open and idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Greeted by the server.
    pub open: usize,
    /// Refused, cut or without a greeting.
    pub failed: usize,
}

impl Stream {
    /// Million bytes in a second.
    pub fn megabytes_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 bytes")]
        let bytes = self.bytes as f64;
        bytes / 1e3 / self.measured_ms.max(1.0)
    }
}

impl Times {
    /// Of all `times`, in any order.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let share = |of_hundred: usize| {
            let at = (times.len() * of_hundred / 100).min(times.len().saturating_sub(1));
            times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self { count: times.len() as u64, p50_us: share(50), p99_us: share(99), max_us: share(100) }
    }

    /// Of requests of which each was made when the one before was answered. A path that stalls is asked less, and a
    /// stall of 100 ms would be one among thousands of quick answers. So it also counts for the requests that would have
    /// been made meanwhile, one each median time, with what each would have waited: the correction that `HdrHistogram`
    /// makes for *coordinated omission*. The count is that of the requests made.
    pub fn of_sequence(times: Vec<Duration>) -> Self {
        let made = Self::of(times.clone());
        let pace = Duration::from_secs_f64(made.p50_us / 1e6);
        let mut all = times;
        for index in 0..all.len() {
            let mut missed = all[index].saturating_sub(pace);
            while !pace.is_zero() && missed >= pace {
                all.push(missed);
                missed -= pace;
            }
        }
        Self { count: made.count, ..Self::of(all) }
    }
}

impl Requests {
    /// Answers in a second.
    pub fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
        let count = self.times.count as f64;
        count * 1e3 / self.measured_ms.max(1.0)
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_sorted_times() {
        let times = Times::of((1..=100).rev().map(Duration::from_micros).collect());
        assert_eq!((times.count, times.p50_us, times.p99_us, times.max_us), (100, 51.0, 100.0, 100.0));
        assert_eq!(Times::of(Vec::new()), Times::default());
    }

    #[test]
    fn a_stall_counts_for_all_requests_that_it_kept_from_being_made() {
        let mut times = vec![Duration::from_millis(1); 1000];
        times.push(Duration::from_millis(500));
        let (plain, corrected) = (Times::of(times.clone()), Times::of_sequence(times));
        assert_eq!((plain.p99_us, corrected.count), (1000.0, 1001));
        // A third of the time there was a stall: 500 of 1,500 requests, the slowest hundredth of them at its begin.
        assert_eq!((corrected.p50_us, corrected.p99_us, corrected.max_us), (1000.0, 486_000.0, 500_000.0));
        let steady = vec![Duration::from_millis(83), Duration::from_millis(90), Duration::from_millis(113)];
        assert_eq!(Times::of_sequence(steady.clone()), Times::of(steady));
        assert_eq!(Times::of_sequence(vec![Duration::ZERO; 2]).count, 2);
    }

    #[test]
    fn rates_are_of_the_measured_time() {
        let stream = Stream { bytes: 3_000_000, measured_ms: 1500.0, ..Stream::default() };
        assert!((stream.megabytes_per_second() - 2.0).abs() < 1e-9);
        let times = Times { count: 10, ..Times::default() };
        let failures = [("refused".to_owned(), 2), ("cut".to_owned(), 1)].into();
        let requests = Requests { times, measured_ms: 500.0, failures };
        assert!((requests.per_second() - 20.0).abs() < 1e-9);
        assert_eq!(requests.failed(), 3);
    }
}
