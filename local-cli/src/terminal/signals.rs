//! Signals to the terminal process.

use std::fs;

use nix::{
    sys::signal::{Signal as Sent, kill},
    unistd::Pid,
};
use tokio::{
    process::Child,
    signal::unix::{Signal, SignalKind, signal},
};

use super::foreground::Foreground;
use crate::Failure;

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    Interrupt,
    Quit,
    Terminate,
    HangUp,
}

impl Got {
    /// Ctrl-C and Ctrl-\ reach the program from the terminal itself; the others are meant for it too.
    pub fn forward(self, to: &Child) {
        let signal = match self {
            Self::Interrupt | Self::Quit => return,
            Self::Terminate => Sent::SIGTERM,
            Self::HangUp => Sent::SIGHUP,
        };
        if let Some(pid) = to.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The signals that end programs, from its making on ours to answer.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    /// `None`: whoever started us wants us to outlive the terminal, as `nohup` does.
    hang_up: Option<Signal>,
    /// What the same means where nobody passes the signal on; until it has happened.
    foreground: Option<Foreground>,
}

impl Signals {
    /// Takes them over.
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::new("DP-SIGNALS", e));
        let outlives = ignores(Sent::SIGHUP);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: if outlives { None } else { Some(listen(SignalKind::hangup())?) },
            foreground: if outlives { None } else { Foreground::ours() },
        })
    }

    /// What `work` comes to, unless a signal comes before: then it is dropped.
    pub async fn during<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            _ = self.next() => Err(Failure::interrupted()),
            result = work => result,
        }
    }

    /// Cancel-safe.
    pub async fn next(&mut self) -> Got {
        tokio::select! {
            _ = self.interrupt.recv() => Got::Interrupt,
            _ = self.quit.recv() => Got::Quit,
            _ = self.terminate.recv() => Got::Terminate,
            () = recv(self.hang_up.as_mut()) => Got::HangUp,
            () = lost(&mut self.foreground) => Got::HangUp,
        }
    }
}

async fn recv(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn lost(foreground: &mut Option<Foreground>) {
    match foreground {
        Some(terminal) => terminal.lost().await,
        None => std::future::pending().await,
    }
    *foreground = None;
}

/// Whether this process was started with `signal` ignored, and has not asked for it since: proc(5), `SigIgn`, a bit for
/// each signal.
fn ignores(signal: Sent) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & (1 << (signal as i32 - 1)) != 0)
}
