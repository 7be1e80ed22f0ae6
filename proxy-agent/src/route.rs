//! Where connections that the pod accepts go.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use devproxy_tunnel::Tunnel;
use tokio::sync::watch;

/// The present destination of accepted connections. A splice wins over a tunnel: it is the end of the session.
#[derive(Clone, Default)]
pub(crate) struct Route {
    /// The laptop, while there is a tunnel.
    pub(crate) tunnel: Option<Tunnel>,
    /// The restored original's pods.
    pub(crate) splice: Option<Arc<Targets>>,
}

/// The restored original's pods, taken in turn.
#[derive(Debug)]
pub(crate) struct Targets {
    addresses: Vec<IpAddr>,
    next: AtomicUsize,
}

impl Targets {
    pub(crate) fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, next: AtomicUsize::new(0) }
    }

    /// All addresses once, beginning with another one at each call.
    pub(crate) fn turn(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let length = self.addresses.len();
        let start = if length == 0 { 0 } else { self.next.fetch_add(1, Ordering::Relaxed) % length };
        self.addresses.iter().copied().cycle().skip(start).take(length)
    }
}

/// Publishes the route; accepted connections follow it.
pub(crate) type Routes = watch::Sender<Route>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_offers_all_targets_and_starts_with_the_next() {
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let targets = Targets::new(vec![a, b]);
        let turns: Vec<Vec<_>> = (0..3).map(|_| targets.turn().collect()).collect();
        assert_eq!(turns, [[a, b], [b, a], [a, b]]);
        assert_eq!(Targets::new(Vec::new()).turn().count(), 0);
    }
}
