//! What `devproxy status` shows of the traffic.

use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals of a session, except where said otherwise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that the program opened and that were answered *connected*.
    pub outbound: AtomicU64,
    /// Connection attempts of the program that were refused, unreachable, prohibited or timed out.
    pub refused: AtomicU64,
    /// Connections of the cluster's clients that the program accepted.
    pub inbound: AtomicU64,
    /// Inbound connections that wait for a listener now.
    pub held: AtomicU64,
    /// UDP flows, both directions, without DNS.
    pub datagram_flows: AtomicU64,
    /// DNS questions over UDP.
    pub questions: AtomicU64,
    /// Those of them that were answered from the cache.
    pub cached: AtomicU64,
    /// Connections to a port published on the laptop's 127.0.0.1.
    pub published: AtomicU64,
    /// Bytes from the program.
    pub bytes_out: AtomicU64,
    /// Bytes to the program.
    pub bytes_in: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }
}

/// Counts itself in as long as it lives.
pub(crate) struct Present<'a>(&'a AtomicU64);

impl<'a> Present<'a> {
    pub(crate) fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
