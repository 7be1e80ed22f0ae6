//! Every bound of a tunnel in one place.

use std::time::Duration;

/// Bounds of one end. Both ends may differ: each states its windows in its own frames.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Receive window of a new flow, bytes, while the tunnel is not crowded.
    pub initial_window: u32,
    /// The receive window of a flow grows up to this, bytes.
    pub max_window: u32,
    /// What is shared evenly by the receive windows of busy flows grows up to this, bytes.
    pub max_inflow: u32,
    /// Sum of all receive windows, bytes, near which new flows get smaller ones; none grows beyond three quarters of it.
    pub total_window: u64,
    /// A direction of a flow that is so many bytes ahead of [`Self::bulk_rate`] is bulk and leaves the home lane.
    pub bulk_burst: u32,
    /// Bytes per second that never make a flow bulk.
    pub bulk_rate: u32,
    /// Beside interactive traffic a bulk lane has at least so many bytes on their way,
    pub yielding_bytes: usize,
    /// and as many as this rate, bytes per second, gives in a round trip.
    pub yielding_rate: usize,
    /// How long after a small message on the home lane there is interactive traffic.
    pub interactive_memory: Duration,
    /// Bytes a flow may queue towards its lane.
    pub send_queue: usize,
    /// Bytes all flows together may queue; beyond it each flow keeps [`Self::crowded_send_queue`].
    pub total_send_queue: usize,
    /// Bytes a flow may still queue in a crowded tunnel.
    pub crowded_send_queue: usize,
    /// Flows that each side may have open.
    pub flows: usize,
    /// Opens of the other side that nobody has taken yet.
    pub unanswered: usize,
    /// Datagrams queued in each direction of a flow.
    pub datagrams: usize,
    /// Bytes of datagrams queued in each direction of a flow.
    pub datagram_bytes: usize,
    /// Bytes of received datagrams queued in the whole tunnel.
    pub total_datagram_bytes: usize,
    /// Time between two pings of a lane.
    pub ping_interval: Duration,
    /// The same for a lane that carries something.
    pub busy_ping_interval: Duration,
    /// A lane that says nothing for this long after a ping is dead.
    pub silence: Duration,
    /// An acknowledgement is sent after this time at the latest,
    pub ack_delay: Duration,
    /// on a bulk lane after this: its sender wants to know what is on its way when it begins to yield,
    pub bulk_ack_delay: Duration,
    /// and then after this, as it may wait for it.
    pub yielding_ack_delay: Duration,
    /// Bytes received after which an acknowledgement is due at once: a flow that became bulk leaves with it,
    pub ack_bytes: usize,
    /// on a bulk lane more than that,
    pub bulk_ack_bytes: usize,
    /// and beside interactive traffic each full record.
    pub yielding_ack_bytes: usize,
    /// How long a close waits for queued bytes.
    pub close_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            initial_window: 256 << 10,
            max_window: 32 << 20,
            max_inflow: 64 << 20,
            total_window: 256 << 20,
            bulk_burst: 256 << 10,
            bulk_rate: 256 << 10,
            yielding_bytes: 128 << 10,
            yielding_rate: 200_000_000,
            interactive_memory: Duration::from_millis(500),
            send_queue: 128 << 10,
            total_send_queue: 64 << 20,
            crowded_send_queue: 4 << 10,
            flows: 65_536,
            unanswered: 1024,
            datagrams: 256,
            datagram_bytes: 1 << 20,
            total_datagram_bytes: 32 << 20,
            ping_interval: Duration::from_secs(5),
            busy_ping_interval: Duration::from_secs(1),
            silence: Duration::from_secs(15),
            ack_delay: Duration::from_millis(100),
            bulk_ack_delay: Duration::from_millis(25),
            yielding_ack_delay: Duration::from_millis(5),
            ack_bytes: 256 << 10,
            bulk_ack_bytes: 4 << 20,
            yielding_ack_bytes: 48 << 10,
            close_delay: Duration::from_secs(1),
        }
    }
}
