//! Outbound TCP of one side: holds each SYN until its dial is answered, then lets it pass or answers it.

mod held;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use devproxy_tunnel::{
    Refusal,
    control::{PodPort, Protocol},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use self::held::{Arrival, Held};
use crate::{
    counters::Counters,
    dial::{Dialler, Outlet},
    packet::Syn,
    queue::{HeldPacket, Queue, Verdict},
    raw::Raw,
    splice::{Abort as _, splice},
};

/// A flow whose SYN was let pass is claimed by `accept` within microseconds, or its program has gone.
const UNCLAIMED: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(1);

/// The sockets of [`devproxy_namespaces::Catchers`] that TCP needs.
pub(crate) struct TcpCatchers {
    pub(crate) tcp4: Option<OwnedFd>,
    pub(crate) tcp6: Option<OwnedFd>,
    pub(crate) queue: Option<OwnedFd>,
}

/// Outbound TCP of one side. [`Self::run`] drives it.
pub(crate) struct Outbound {
    listeners: [Option<TcpListener>; 2],
    queue: Option<Queue>,
    raw: Arc<Raw>,
    dialler: Dialler,
    counters: Arc<Counters>,
    /// On the shell's side: ports that the agent listens on for the shell. A connection to one of them that no
    /// program here took would come back through the tunnel and wait; it is refused as in the pod.
    own_ports: Option<watch::Receiver<BTreeSet<PodPort>>>,
    held: Held,
    parked: HashMap<(SocketAddr, SocketAddr), Parked>,
    dials: JoinSet<(Syn, Result<Outlet, Refusal>)>,
    connections: JoinSet<()>,
}

/// A connected flow whose program has not got its SYN+ACK yet.
struct Parked {
    syn: Syn,
    outlet: Outlet,
    until: Instant,
}

enum Event {
    Packets(Vec<HeldPacket>),
    Dialled(Syn, Result<Outlet, Refusal>),
    Accepted(TcpStream, SocketAddr),
    Nothing,
    Sweep,
}

impl Outbound {
    pub(crate) fn new(
        catchers: TcpCatchers,
        raw: Arc<Raw>,
        dialler: Dialler,
        counters: Arc<Counters>,
        own_ports: Option<watch::Receiver<BTreeSet<PodPort>>>,
    ) -> io::Result<Self> {
        let listener = |socket: Option<OwnedFd>| {
            socket.map(|socket| TcpListener::from_std(std::net::TcpListener::from(socket))).transpose()
        };
        Ok(Self {
            listeners: [listener(catchers.tcp4)?, listener(catchers.tcp6)?],
            queue: catchers.queue.map(Queue::new).transpose()?,
            raw,
            dialler,
            counters,
            own_ports,
            held: Held::default(),
            parked: HashMap::new(),
            dials: JoinSet::new(),
            connections: JoinSet::new(),
        })
    }

    /// Runs until a catcher fails. Dropping it resets all connections.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let [tcp4, tcp6] = &self.listeners;
            let event = tokio::select! {
                packets = packets(&mut self.queue) => Event::Packets(packets?),
                Some(dialled) = self.dials.join_next(), if !self.dials.is_empty() => match dialled {
                    Ok((syn, outcome)) => Event::Dialled(syn, outcome),
                    Err(_) => Event::Nothing,
                },
                accepted = accept(tcp4.as_ref()) => accepted?,
                accepted = accept(tcp6.as_ref()) => accepted?,
                Some(_) = self.connections.join_next(), if !self.connections.is_empty() => Event::Nothing,
                _ = sweep.tick() => Event::Sweep,
            };
            match event {
                Event::Packets(packets) => {
                    for packet in packets {
                        self.packet(&packet);
                    }
                }
                Event::Dialled(syn, outcome) => {
                    self.dialled(&syn, outcome);
                    while let Some(Ok((syn, outcome))) = self.dials.try_join_next() {
                        self.dialled(&syn, outcome);
                    }
                }
                Event::Accepted(stream, program) => self.accepted(stream, program),
                Event::Nothing => {}
                Event::Sweep => {
                    let now = Instant::now();
                    self.held.sweep(now);
                    self.parked.retain(|_, parked| parked.until > now);
                }
            }
            while self.connections.try_join_next().is_some() {}
            if let Some(queue) = &mut self.queue {
                queue.flush();
            }
        }
    }

    fn packet(&mut self, packet: &HeldPacket) {
        let Some(syn) = Syn::parse(&packet.bytes) else {
            // The rule queues SYNs only; what we cannot read must not be lost on our account.
            self.verdict(packet, Verdict::Accept);
            return;
        };
        match self.held.arrive(syn, packet, Instant::now()) {
            Arrival::Known | Arrival::Full => self.verdict(packet, Verdict::Drop),
            Arrival::New if self.is_own(syn.target) => self.dialled(&syn, Err(Refusal::Refused)),
            Arrival::New => {
                let dialler = self.dialler.clone();
                self.dials.spawn(async move { (syn, dialler.tcp(syn.target).await) });
            }
        }
    }

    fn is_own(&self, target: SocketAddr) -> bool {
        self.own_ports.as_ref().is_some_and(|ports| {
            ports.borrow().iter().any(|own| own.protocol == Protocol::Tcp && own.port == target.port())
        })
    }

    fn dialled(&mut self, syn: &Syn, outcome: Result<Outlet, Refusal>) {
        let now = Instant::now();
        let Some(packet) = self.held.answered(syn, outcome.as_ref().err().copied(), now) else { return };
        match outcome {
            Ok(outlet) => {
                let parked = Parked { syn: *syn, outlet, until: now + UNCLAIMED };
                self.parked.insert((syn.source, syn.target), parked);
                self.verdict(&packet, Verdict::Accept);
            }
            Err(why) => {
                tracing::debug!(target = %syn.target, %why, "not connected");
                Counters::count(&self.counters.refused);
                self.verdict(&packet, Verdict::Drop);
                self.raw.refuse(syn, &packet.bytes, why);
            }
        }
    }

    fn verdict(&mut self, packet: &HeldPacket, verdict: Verdict) {
        if let Some(queue) = &mut self.queue {
            queue.verdict(packet.id, verdict);
        }
    }

    fn accepted(&mut self, stream: TcpStream, program: SocketAddr) {
        let Ok(target) = stream.local_addr() else { return };
        let _ = stream.set_nodelay(true);
        let parked = self.parked.remove(&(program, target));
        let counters = Arc::clone(&self.counters);
        if let Some(Parked { syn, outlet, .. }) = parked {
            self.held.forget(&syn);
            self.connections.spawn(carry(stream, outlet, counters));
        } else if self.is_own(target) {
            stream.abort();
        } else {
            // Without a queue: accepted first, a refusal is a RST after the fact.
            let dialler = self.dialler.clone();
            self.connections.spawn(async move {
                match dialler.tcp(target).await {
                    Ok(outlet) => carry(stream, outlet, counters).await,
                    Err(why) => {
                        tracing::debug!(%target, %why, "not connected");
                        Counters::count(&counters.refused);
                        stream.abort();
                    }
                }
            });
        }
    }
}

async fn carry(stream: TcpStream, outlet: Outlet, counters: Arc<Counters>) {
    counters.outbound.fetch_add(1, Ordering::Relaxed);
    // Until the reactor has seen it, a new socket looks as if it took nothing; what came with a reset would be lost.
    let _ = stream.writable().await;
    let (forth, back) = (&counters.bytes_out, &counters.bytes_in);
    let ended = match outlet {
        Outlet::Tunnel(flow) => splice(stream, flow, forth, back).await,
        Outlet::Laptop(far) => splice(stream, far, forth, back).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn packets(queue: &mut Option<Queue>) -> io::Result<Vec<HeldPacket>> {
    match queue {
        Some(queue) => queue.packets().await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<Event> {
    let Some(listener) = listener else { return std::future::pending().await };
    match listener.accept().await {
        Ok((stream, program)) => Ok(Event::Accepted(stream, program)),
        // The program reset it before we took it, or we are out of descriptors: the next one may do.
        Err(error) => {
            tracing::debug!(%error, "accept failed");
            if matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) {
                tracing::warn!("out of file descriptors; raise `ulimit -n`");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(Event::Nothing)
        }
    }
}

#[cfg(test)]
mod tests;
