//! The terminal whose foreground job we are: when it is closed, we end, as every program in front of a closed terminal.
//!
//! The kernel tells only the leader of the terminal's session (`tty_signal_session_leader` in `drivers/tty/tty_jobctrl.c`). A
//! shell passes the signal on; `su` and `sudo` do not, and wait for their shell, which waits for us.

use std::{
    fs::OpenOptions,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
};

use devproxy_namespaces::watch;
use nix::{
    libc,
    unistd::{getpgrp, tcgetpgrp},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
};

#[derive(Debug)]
pub(super) struct Foreground {
    terminal: AsyncFd<OwnedFd>,
    /// A job that was stopped goes on, in front or behind. Who was started behind and is taken to the front without a stop
    /// goes unnoticed, and is left to its shell.
    resumed: Signal,
    in_front: bool,
}

impl Foreground {
    /// `None` without a terminal.
    pub(super) fn ours() -> Option<Self> {
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let terminal = OpenOptions::new().read(true).custom_flags(flags).open("/dev/tty").ok()?;
        // Not to be woken by each key: its end wakes whoever waits for anything.
        let terminal = watch(terminal.into(), Interest::PRIORITY).ok()?;
        let resumed = signal(SignalKind::from_raw(libc::SIGCONT)).ok()?;
        let mut ours = Self { terminal, resumed, in_front: false };
        ours.look();
        Some(ours)
    }

    fn look(&mut self) {
        self.in_front = tcgetpgrp(self.terminal.get_ref()).is_ok_and(|in_front| in_front == getpgrp());
    }

    /// Resolves when the terminal is closed while we are in front. Cancel-safe; not to be called again after that.
    pub(super) async fn lost(&mut self) {
        loop {
            tokio::select! {
                ready = self.terminal.ready(Interest::PRIORITY) => {
                    let Ok(mut ready) = ready else { return std::future::pending().await };
                    if !ready.ready().is_read_closed() {
                        ready.clear_ready();
                    } else if self.in_front {
                        return;
                    } else {
                        return std::future::pending().await;
                    }
                }
                _ = self.resumed.recv() => self.look(),
            }
        }
    }
}
