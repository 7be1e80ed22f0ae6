//! Leaving without losing a request: after SIGTERM it serves on while Services still send clients, then finishes
//! what is open, then goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// Shared between the connections and the thread that waits for SIGTERM.
#[derive(Debug, Default, Clone)]
pub(crate) struct Drain {
    leaving: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
}

/// One request in work; the first of a connection from its accept on.
#[derive(Debug)]
pub(crate) struct InWork(Arc<AtomicUsize>);

impl Drain {
    /// Blocks the signals in this thread and all that it starts later.
    pub(crate) fn new() -> (Self, SigSet) {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        // Without it the default action ends the process at once, which is DRAIN=0.
        let _ = signals.thread_block();
        (Self::default(), signals)
    }

    /// Whether answers should close their connection.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    pub(crate) fn in_work(&self) -> InWork {
        self.open.fetch_add(1, Ordering::AcqRel);
        InWork(Arc::clone(&self.open))
    }

    /// Waits for a signal, then for the drain time; then stops accepting and waits for what is in work.
    pub(crate) fn wait(&self, signals: &SigSet, serve_on: Duration, stop_accepting: impl FnOnce()) {
        let Ok(signal) = signals.wait() else { return };
        if signal == Signal::SIGINT || serve_on.is_zero() {
            return;
        }
        self.leaving.store(true, Ordering::Relaxed);
        std::thread::sleep(serve_on);
        stop_accepting();
        let limit = Instant::now() + Duration::from_secs(10);
        while self.open.load(Ordering::Acquire) > 0 && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
