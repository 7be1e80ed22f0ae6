//! The readiness latch: the kubelet's `tcpSocket` probe succeeds while the port is open.

use devproxy_tunnel::control::Scope;
use tokio::{sync::watch, task::JoinSet};

use crate::{listener, log};

/// The readiness port, closed until it is asked for.
pub(crate) struct Readiness {
    port: u16,
    acceptors: JoinSet<()>,
    /// It was open once: clients may have learned of this pod.
    known: watch::Sender<bool>,
}

impl Readiness {
    pub(crate) fn new(port: u16, known: watch::Sender<bool>) -> Self {
        Self { port, acceptors: JoinSet::new(), known }
    }

    /// Opens the port, if it is not open yet. The error says why it cannot be.
    pub(crate) fn open(&mut self) -> Result<(), String> {
        if !self.acceptors.is_empty() {
            return Ok(());
        }
        let refused =
            |error| format!("cannot open the readiness port {}: {}", self.port, listener::cause(&error));
        let listeners = listener::tcp(Scope::Pod, self.port, |_| ())
            .map_err(refused)
            .inspect_err(|text| log::line(format_args!("{text}")))?;
        self.known.send_replace(true);
        for listener in listeners {
            self.acceptors.spawn(async move {
                loop {
                    drop(listener::accept(&listener).await);
                }
            });
        }
        Ok(())
    }
}
