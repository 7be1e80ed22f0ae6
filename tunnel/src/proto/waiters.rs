//! Who waits for a change of a flow or of the tunnel.

use std::task::Waker;

/// More waiters than any caller has; beyond it all are woken and register again.
const MOST: usize = 64;

/// Wakers of the tasks that wait for one thing. Several tasks may wait on one datagram flow.
#[derive(Debug, Default)]
pub struct Waiters(Vec<Waker>);

impl Waiters {
    /// Remembers `waker` until the next [`Self::wake`].
    pub fn register(&mut self, waker: &Waker) {
        if self.0.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        if self.0.len() == MOST {
            self.wake();
        }
        self.0.push(waker.clone());
    }

    /// Wakes all and forgets them.
    pub fn wake(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}
