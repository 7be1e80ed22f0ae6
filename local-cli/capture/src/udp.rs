//! UDP of one side: what the program sends to any address but a listening one of its own.
//!
//! The catcher sees the first datagram of a flow. Its answers leave through a socket of the flow's own, bound to the
//! target's address and connected to the program; from then on the kernel hands that socket the program's further
//! datagrams as well, so both are read.

mod catcher;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use devproxy_namespaces::Side;
use devproxy_tunnel::Refusal;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

pub(crate) use self::catcher::Catcher;
use crate::{
    counters::Counters,
    dial::{DatagramOutlet, Dialler, receive_from},
    dns::{NameServer, Side as DnsSide},
    pool::Pool,
    raw::Raw,
};

/// Flows at once and side; a datagram beyond is dropped, as UDP may.
const FLOWS: usize = 4096;
/// A flow without a datagram either way ends.
const IDLE: Duration = Duration::from_mins(1);
/// Datagrams that wait while a flow is being opened.
const WAITING: usize = 64;
const DNS_PORT: u16 = 53;

/// A datagram of the program.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) program: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) bytes: Bytes,
}

/// What all flows of one side share.
pub(crate) struct Shared {
    pub(crate) side: Side,
    pub(crate) raw: Arc<Raw>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) dialler: Dialler,
    pub(crate) counters: Arc<Counters>,
    pub(crate) nameservers: Vec<IpAddr>,
}

/// UDP of one side. [`Self::run`] drives it.
pub(crate) struct Udp {
    shared: Arc<Shared>,
    catchers: [Option<Catcher>; 2],
    flows: HashMap<(SocketAddr, SocketAddr), FlowEntry>,
    servers: HashMap<SocketAddr, NameServer>,
    tasks: JoinSet<Ended>,
    /// Datagrams that reached the socket of another flow between its bind and its connect.
    strays: (mpsc::Sender<Datagram>, mpsc::Receiver<Datagram>),
    generation: u64,
}

struct FlowEntry {
    generation: u64,
    datagrams: mpsc::Sender<Bytes>,
}

struct Ended {
    flow: (SocketAddr, SocketAddr),
    generation: u64,
}

impl Udp {
    pub(crate) fn new(shared: Shared, v4: Option<Catcher>, v6: Option<Catcher>) -> Self {
        Self {
            shared: Arc::new(shared),
            catchers: [v4, v6],
            flows: HashMap::new(),
            servers: HashMap::new(),
            tasks: JoinSet::new(),
            strays: mpsc::channel(WAITING),
            generation: 0,
        }
    }

    /// Runs until a catcher fails. Dropping it ends all flows.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        loop {
            let [v4, v6] = &self.catchers;
            tokio::select! {
                datagrams = datagrams(v4.as_ref()) => datagrams?.into_iter().for_each(|datagram| self.dispatch(datagram)),
                datagrams = datagrams(v6.as_ref()) => datagrams?.into_iter().for_each(|datagram| self.dispatch(datagram)),
                Some(stray) = self.strays.1.recv() => self.dispatch(stray),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(Ended { flow, generation }) = ended
                        && self.flows.get(&flow).is_some_and(|entry| entry.generation == generation)
                    {
                        self.flows.remove(&flow);
                    }
                }
            }
        }
    }

    fn dispatch(&mut self, datagram: Datagram) {
        let Datagram { program, target, bytes } = datagram;
        // Answers cannot come from such an address: there is no socket to bind to it.
        if target.ip().is_multicast() || target.ip().is_unspecified() || target.port() == 0 {
            return;
        }
        if target.port() == DNS_PORT && self.shared.nameservers.contains(&target.ip()) {
            let server = self.servers.entry(target).or_insert_with(|| {
                let shared = &self.shared;
                NameServer::new(
                    target,
                    DnsSide {
                        namespace: shared.side,
                        raw: Arc::clone(&shared.raw),
                        pool: Arc::clone(&shared.pool),
                        dialler: shared.dialler.clone(),
                        counters: Arc::clone(&shared.counters),
                    },
                )
            });
            server.ask(program, bytes);
            return;
        }
        let flow = (program, target);
        let bytes = match self.flows.get(&flow) {
            None => bytes,
            Some(entry) => match entry.datagrams.try_send(bytes) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
                Err(mpsc::error::TrySendError::Closed(bytes)) => bytes,
            },
        };
        if self.tasks.len() >= FLOWS {
            tracing::debug!(%program, %target, "too many UDP flows, a datagram is dropped");
            return;
        }
        Counters::count(&self.shared.counters.datagram_flows);
        self.generation += 1;
        let generation = self.generation;
        let (datagrams, waiting) = mpsc::channel(WAITING);
        // The queue is new and empty.
        let _ = datagrams.try_send(bytes);
        self.flows.insert(flow, FlowEntry { generation, datagrams });
        let carried =
            Flow { shared: Arc::clone(&self.shared), program, target, strays: self.strays.0.clone() };
        self.tasks.spawn(async move {
            carried.carry(waiting).await;
            Ended { flow, generation }
        });
    }
}

async fn datagrams(catcher: Option<&Catcher>) -> io::Result<Vec<Datagram>> {
    match catcher {
        Some(catcher) => catcher.datagrams().await,
        None => std::future::pending().await,
    }
}

/// Datagrams between one socket of the program and one target.
struct Flow {
    shared: Arc<Shared>,
    program: SocketAddr,
    target: SocketAddr,
    strays: mpsc::Sender<Datagram>,
}

impl Flow {
    async fn carry(self, waiting: mpsc::Receiver<Bytes>) {
        let outlet = match self.shared.dialler.udp(self.target).await {
            Ok(outlet) => outlet,
            Err(why) => return self.refuse(why),
        };
        let reply = match self.shared.pool.datagrams(self.shared.side, self.target, Some(self.program)).await
        {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(target = %self.target, %error, "no socket to answer from");
                return;
            }
        };
        if let Err(why) = self.exchange(waiting, &outlet, &reply).await {
            drop(reply);
            self.refuse(why);
        }
    }

    fn refuse(&self, why: Refusal) {
        tracing::debug!(program = %self.program, target = %self.target, %why, "UDP flow ended");
        self.shared.raw.refuse_datagram(self.program, self.target, 0, why);
    }

    /// `Ok` when it was idle or the program's socket has gone.
    async fn exchange(
        &self,
        mut waiting: mpsc::Receiver<Bytes>,
        outlet: &DatagramOutlet,
        reply: &UdpSocket,
    ) -> Result<(), Refusal> {
        let counters = &self.shared.counters;
        let mut end = Instant::now() + IDLE;
        loop {
            tokio::select! {
                Some(bytes) = waiting.recv() => {
                    Counters::add(&counters.bytes_out, bytes.len());
                    outlet.send(bytes).await?;
                }
                received = receive_from(reply) => match received {
                    Ok((bytes, from)) if from == self.program => {
                        Counters::add(&counters.bytes_out, bytes.len());
                        outlet.send(bytes).await?;
                    }
                    Ok((bytes, program)) => {
                        let _ = self.strays.try_send(Datagram { program, target: self.target, bytes });
                    }
                    Err(_) => return Ok(()),
                },
                bytes = outlet.recv() => {
                    let bytes = bytes?;
                    Counters::add(&counters.bytes_in, bytes.len());
                    match reply.send(&bytes).await {
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
                        // Too long for the way back, or out of buffers: dropped as on any network.
                        Ok(_) | Err(_) => {}
                    }
                }
                () = sleep_until(end) => return Ok(()),
            }
            end = Instant::now() + IDLE;
        }
    }
}
