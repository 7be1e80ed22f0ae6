//! The readiness latch: the kubelet's `tcpSocket` probe succeeds while the port is open.

use devproxy_tunnel::control::Scope;
use tokio::{sync::watch, task::JoinSet};

use crate::{listener, log};

/// Opens and closes the readiness port.
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

    /// Opens or closes the port; returns whether it is open now. Not cancel-safe: may leave it closed.
    pub(crate) async fn set(&mut self, ready: bool) -> bool {
        if !ready {
            self.acceptors.shutdown().await;
        } else if self.acceptors.is_empty() {
            match listener::tcp(Scope::Pod, self.port, |_| ()) {
                Ok(listeners) => {
                    self.known.send_replace(true);
                    for listener in listeners {
                        self.acceptors.spawn(async move {
                            loop {
                                drop(listener::accept(&listener).await);
                            }
                        });
                    }
                }
                Err(e) => log::line(format_args!("cannot open the readiness port {}: {e}", self.port)),
            }
        }
        !self.acceptors.is_empty()
    }
}
