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

    /// Opens the port, if it is not open yet; returns why it cannot be opened.
    pub(crate) fn open(&mut self) -> Option<String> {
        if !self.acceptors.is_empty() {
            return None;
        }
        let listeners = match listener::tcp(Scope::Pod, self.port, |_| ()) {
            Ok(listeners) => listeners,
            Err(error) => {
                let text =
                    format!("cannot open the readiness port {}: {}", self.port, listener::cause(&error));
                log::line(format_args!("{text}"));
                return Some(text);
            }
        };
        self.known.send_replace(true);
        for listener in listeners {
            self.acceptors.spawn(async move {
                loop {
                    drop(listener::accept(&listener).await);
                }
            });
        }
        None
    }
}
