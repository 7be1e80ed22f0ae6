//! Ports of the program on the laptop's 127.0.0.1: debuggers, IDEs, browsers.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use devproxy_namespaces::Side;
use devproxy_tunnel::control::Protocol;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
};

use crate::{
    capture::Notice,
    counters::Counters,
    listeners::Listeners,
    pool::Pool,
    splice::{Abort as _, splice},
};

/// Accepted connections that wait to be carried.
const ACCEPTED: usize = 64;
/// Until a port that somebody else has is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// After a failed accept (out of descriptors).
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Publisher {
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) listeners: watch::Receiver<Arc<Listeners>>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) notices: broadcast::Sender<Notice>,
}

impl Publisher {
    /// Listens on exactly the ports that `wanted` names. Ends with its sender. Dropping it resets all connections.
    ///
    /// A connection outlives its port: gdbserver and Java's debug agent stop listening once somebody is attached.
    pub(crate) async fn run(self, mut wanted: watch::Receiver<BTreeSet<u16>>) {
        let publisher = Arc::new(self);
        let (accepted, mut streams) = mpsc::channel(ACCEPTED);
        let mut ports: BTreeMap<u16, JoinSet<()>> = BTreeMap::new();
        let mut connections = JoinSet::new();
        let mut told = HashSet::new();
        loop {
            let now = wanted.borrow_and_update().clone();
            ports.retain(|port, _| now.contains(port));
            for &port in &now {
                if ports.contains_key(&port) {
                    continue;
                }
                match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                    Ok(listener) => {
                        let mut task = JoinSet::new();
                        task.spawn(accept(listener, port, accepted.clone()));
                        ports.insert(port, task);
                        publisher.tell(Notice::Published { port });
                    }
                    Err(error) => {
                        if told.insert(port) {
                            publisher.tell(Notice::NotPublished { port, cause: error.to_string() });
                        }
                    }
                }
            }
            let taken = ports.len() < now.len();
            let again = tokio::time::sleep(RETRY);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again, if taken => break,
                    changed = wanted.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Some((stream, port)) = streams.recv() => {
                        let publisher = Arc::clone(&publisher);
                        connections.spawn(async move { publisher.carry(stream, port).await });
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        }
    }

    fn tell(&self, notice: Notice) {
        // Nobody may be listening; the log has it anyway.
        tracing::info!("{notice}");
        let _ = self.notices.send(notice);
    }

    async fn carry(&self, stream: TcpStream, port: u16) {
        let _ = stream.set_nodelay(true);
        match self.connect(port).await {
            Ok(program) => {
                Counters::count(&self.counters.published);
                if let Err(error) =
                    splice(stream, program, &self.counters.bytes_in, &self.counters.bytes_out).await
                {
                    tracing::debug!(port, %error, "published connection ended");
                }
            }
            Err(error) => {
                tracing::debug!(port, %error, "the program does not answer");
                stream.abort();
            }
        }
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let listeners = Arc::clone(&self.listeners.borrow());
        let near: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let bound = listeners.on(Protocol::Tcp, port).map(|listener| listener.address);
        let to = near
            .into_iter()
            .chain(self.addresses.iter().copied())
            .chain(bound.filter(|address| !address.is_unspecified()))
            .find(|address| listeners.on(Protocol::Tcp, port).any(|listener| listener.takes(*address)))
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        self.pool.connect(Side::Shell, None, SocketAddr::new(to, port)).await
    }
}

async fn accept(listener: TcpListener, port: u16, accepted: mpsc::Sender<(TcpStream, u16)>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if accepted.send((stream, port)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(port, %error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
