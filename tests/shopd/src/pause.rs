//! The first process of a pod: keeps its namespaces, reaps orphans, leaves on SIGTERM.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run() {
    let mut awaited = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        awaited.add(signal);
    }
    // Blocked signals stay pending until `wait`; as process 1 there are no default actions to rely on anyway.
    if awaited.thread_block().is_err() {
        return;
    }
    while let Ok(signal) = awaited.wait() {
        if signal != Signal::SIGCHLD {
            return;
        }
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
    }
}
