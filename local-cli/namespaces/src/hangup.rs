//! The end of what still runs in a shell.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use crate::Entrance;

/// How long what runs in the shell has between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// Longest wait after SIGKILL; a process in the middle of a slow system call is left.
const KILLED: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

impl Entrance {
    /// SIGHUP to all that is inside, as when a terminal is closed, then SIGKILL to what is left after 10 s; returns
    /// when nobody is left. The first signal is sent before this first waits.
    pub async fn hang_up(&self) {
        // SIGCONT as the kernel does it: a stopped program would not hear the other one.
        for signal in [Signal::SIGHUP, Signal::SIGCONT] {
            self.send(signal);
        }
        if self.emptied(GRACE, None).await {
            return;
        }
        self.emptied(KILLED, Some(Signal::SIGKILL)).await;
    }

    /// Whether nobody is inside within `limit`. `signal` goes to whoever is found, also to what was started meanwhile.
    async fn emptied(&self, limit: Duration, signal: Option<Signal>) -> bool {
        let deadline = Instant::now() + limit;
        while self.inhabitants().is_ok_and(|left| !left.is_empty()) {
            if Instant::now() >= deadline {
                return false;
            }
            if let Some(signal) = signal {
                self.send(signal);
            }
            sleep(PAUSE).await;
        }
        true
    }

    fn send(&self, signal: Signal) {
        for pid in self.inhabitants().unwrap_or_default() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}
