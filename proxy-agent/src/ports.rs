//! The ports of the table that the laptop sends: what listens in the pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use devproxy_tunnel::control::{PodPort, Protocol};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
};

use crate::{inbound, listener, relay::Connection, route::Routes};

mod udp;

/// Connections that wait for the laptop's answer. More wait in the kernel's queues, so no client is refused for it.
const HELD: usize = 4096;

/// Ports of one table; each costs one or two sockets.
const PORTS: usize = 1024;

/// The listening sockets and the queue that they accept into.
pub(crate) struct Ports {
    open: BTreeMap<PodPort, JoinSet<()>>,
    accepted: mpsc::Sender<Accepted>,
    held: Arc<Semaphore>,
    routes: Arc<Routes>,
}

/// A connection on its way from a listener to its task.
pub(crate) struct Accepted {
    connection: Connection,
    client: SocketAddr,
    held: OwnedSemaphorePermit,
}

impl Ports {
    /// No ports yet. What they accept goes to the receiver, see [`serve`].
    pub(crate) fn new(routes: Arc<Routes>) -> (Self, mpsc::Receiver<Accepted>) {
        let (accepted, receiver) = mpsc::channel(64);
        (Self { open: BTreeMap::new(), accepted, held: Arc::new(Semaphore::new(HELD)), routes }, receiver)
    }

    /// Listens on exactly these ports; returns those that could not be opened with the kernel's words. Accepted
    /// connections stay. Not cancel-safe: may leave the table half done, the next call mends it.
    pub(crate) async fn set(&mut self, table: &[PodPort]) -> Vec<(PodPort, String)> {
        let wanted: BTreeSet<PodPort> = table.iter().copied().collect();
        // First: the same port may come back with another scope.
        for (_, mut gone) in self.open.extract_if(.., |port, _| !wanted.contains(port)) {
            gone.shutdown().await;
        }
        let mut failed = Vec::new();
        for port in wanted {
            if self.open.contains_key(&port) {
                continue;
            }
            if self.open.len() >= PORTS {
                failed.push((port, format!("more than {PORTS} ports")));
                continue;
            }
            match self.listen(port) {
                Ok(tasks) => drop(self.open.insert(port, tasks)),
                Err(e) => failed.push((port, listener::cause(&e))),
            }
        }
        failed
    }

    fn listen(&self, port: PodPort) -> std::io::Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        match port.protocol {
            Protocol::Tcp => {
                for listener in listener::tcp(port.scope, port.port, Connection::prepare)? {
                    tasks.spawn(accept(listener, self.accepted.clone(), self.held.clone()));
                }
            }
            Protocol::Udp => {
                for socket in listener::udp(port.scope, port.port)? {
                    tasks.spawn(udp::serve(socket, port.port, self.routes.subscribe()));
                }
            }
        }
        Ok(tasks)
    }
}

async fn accept(listener: TcpListener, accepted: mpsc::Sender<Accepted>, places: Arc<Semaphore>) {
    loop {
        let Ok(held) = places.clone().acquire_owned().await else { return };
        let (stream, client) = listener::accept(&listener).await;
        let connection = Connection::accepted(stream);
        if accepted.send(Accepted { connection, client, held }).await.is_err() {
            return;
        }
    }
}

/// Serves accepted connections for ever and keeps `active` at their number. They do not belong to their listener,
/// which may close before them.
pub(crate) async fn serve(
    mut accepted: mpsc::Receiver<Accepted>,
    routes: Arc<Routes>,
    active: watch::Sender<usize>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = accepted.recv() => {
                let Some(Accepted { connection, client, held }) = next else { return };
                connections.spawn(inbound::serve(connection, client, routes.subscribe(), held));
            }
            Some(_) = connections.join_next() => {}
        }
        active.send_replace(connections.len());
    }
}

#[cfg(test)]
mod tests;
