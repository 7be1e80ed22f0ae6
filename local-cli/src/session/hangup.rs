//! The end of what still runs in a shell.

use std::time::Duration;

use devproxy_namespaces::Entrance;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

/// How long what runs in the shell has between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// Longest wait after SIGKILL; a process in the middle of a slow system call is left.
const KILLED: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// SIGHUP to all that is inside, then SIGKILL to what is left after [`GRACE`]; returns when nobody is left. The first
/// signal is sent before this first waits.
pub async fn hang_up(inside: &Entrance) {
    // SIGCONT as the kernel does it: a stopped program would not hear the other one.
    for signal in [Signal::SIGHUP, Signal::SIGCONT] {
        send(inside, signal);
    }
    if emptied(inside, GRACE, None).await {
        return;
    }
    emptied(inside, KILLED, Some(Signal::SIGKILL)).await;
}

/// Whether nobody is inside within `limit`. `signal` goes to whoever is found, also to what was started meanwhile.
async fn emptied(inside: &Entrance, limit: Duration, signal: Option<Signal>) -> bool {
    let deadline = Instant::now() + limit;
    while inside.inhabitants().is_ok_and(|left| !left.is_empty()) {
        if Instant::now() >= deadline {
            return false;
        }
        if let Some(signal) = signal {
            send(inside, signal);
        }
        sleep(PAUSE).await;
    }
    true
}

fn send(inside: &Entrance, signal: Signal) {
    for pid in inside.inhabitants().unwrap_or_default() {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
