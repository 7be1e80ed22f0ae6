//! Connections of the cluster's clients: each reaches the program from the client's own address, and waits while
//! nothing listens.

mod delivery;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use devproxy_namespaces::Side;
use devproxy_tunnel::{Datagrams, Open, Refusal, Request, control::Protocol};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

pub(crate) use self::delivery::{Delivery, Place};
use crate::{
    counters::{Counters, Present},
    dial::receive,
    listeners::{
        Listeners,
        diag::{Diag, Progress},
    },
    pool::Pool,
    ports::PortRules,
    splice::splice,
};

/// Requests that wait or are being served at once.
pub(crate) const REQUESTS: usize = 4096;
/// Between two tries while nothing changes: a listener may refuse without going away (a full backlog does not).
const AGAIN: Duration = Duration::from_millis(100);
/// An inbound UDP flow without a datagram either way ends.
const IDLE: Duration = Duration::from_mins(1);

/// Looks at a connection in the listener's queue that follow each other at once.
const QUICK: u32 = 8;
/// The longest pause between later ones.
const SLOW: Duration = Duration::from_millis(20);
/// A change of what listens is seen within this; the table is read every 100 ms.
const SEEN: Duration = Duration::from_millis(300);

/// How the way to the program ended.
enum Reached {
    Program(TcpStream),
    /// The program reset it before a byte was sent.
    Reset,
    /// Nothing listened in time.
    Nobody,
}

/// What all inbound flows share.
pub(crate) struct Inbound {
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) rules: Arc<PortRules>,
    pub(crate) hold: Duration,
    pub(crate) diag: Arc<Diag>,
    pub(crate) listeners: watch::Receiver<Arc<Listeners>>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Arc<Counters>,
}

impl Inbound {
    /// Serves requests until their sender is gone. Dropping it resets all connections and refuses what waits.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let inbound = Arc::new(self);
        let mut flows = JoinSet::new();
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    None => return,
                    Some(request) => {
                        let inbound = Arc::clone(&inbound);
                        flows.spawn(async move { inbound.serve(request).await });
                    }
                },
                Some(_) = flows.join_next(), if !flows.is_empty() => {}
            }
        }
    }

    async fn serve(&self, request: Request) {
        match *request.open() {
            Open::Inbound { client, local } => {
                if self.held() >= REQUESTS as u64 {
                    return request.refuse(Refusal::Overloaded);
                }
                let Some((request, stream)) = self.reach(request, client, local).await else { return };
                Counters::count(&self.counters.inbound);
                let flow = request.accept();
                if let Err(error) =
                    splice(flow, stream, &self.counters.bytes_in, &self.counters.bytes_out).await
                {
                    tracing::debug!(%client, %error, "inbound connection ended");
                }
            }
            Open::InboundUdp { client, local } => match self.reach_datagrams(client, local).await {
                Ok(socket) => {
                    Counters::count(&self.counters.datagram_flows);
                    self.exchange(request.accept_datagrams(), &socket).await;
                }
                Err(error) => {
                    tracing::debug!(%client, %error, "no socket for inbound UDP");
                    request.refuse(Refusal::Overloaded);
                }
            },
            _ => request.refuse(Refusal::Unsupported),
        }
    }

    fn held(&self) -> u64 {
        self.counters.held.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The connection to the program, once something listens and has taken it; `None` when the request has been
    /// answered otherwise. The program has got no byte before that, so a restart in between costs nothing.
    async fn reach(
        &self,
        request: Request,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Option<(Request, TcpStream)> {
        let held = Present::new(&self.counters.held);
        let reached = tokio::select! {
            reached = self.attempt(client, local) => reached,
            () = request.cancelled() => return None,
        };
        drop(held);
        match reached {
            Reached::Program(stream) => Some((request, stream)),
            Reached::Reset => {
                drop(request.accept());
                None
            }
            Reached::Nobody => {
                tracing::debug!(%client, %local, "nothing listened in time");
                request.refuse(Refusal::Refused);
                None
            }
        }
    }

    async fn attempt(&self, client: SocketAddr, local: SocketAddr) -> Reached {
        let mut changes = self.listeners.clone();
        let port = self.rules.local(Protocol::Tcp, local.port());
        let mut end = Instant::now() + self.hold;
        loop {
            let tried = timeout_at(end, self.connect(&mut changes, client, local)).await;
            let Ok((stream, before)) = tried else { return Reached::Nobody };
            if self.taken(&stream).await {
                return Reached::Program(stream);
            }
            // Its listener went with it in the queue, or the program reset it: told apart by what listens after.
            let same = |now: &Arc<Listeners>| now.on(Protocol::Tcp, port).eq(before.on(Protocol::Tcp, port));
            if timeout(SEEN, changes.wait_for(|now| !same(now))).await.is_err() {
                return Reached::Reset;
            }
            end = Instant::now() + self.hold;
        }
    }

    /// A connection to what listens, and all that listened then.
    async fn connect(
        &self,
        changes: &mut watch::Receiver<Arc<Listeners>>,
        client: SocketAddr,
        local: SocketAddr,
    ) -> (TcpStream, Arc<Listeners>) {
        loop {
            let listeners = Arc::clone(&changes.borrow_and_update());
            if let Some(delivery) = self.delivery(&listeners, Protocol::Tcp, client, local) {
                match self.pool.connect(delivery.side, delivery.from, delivery.to).await {
                    Ok(stream) => return (stream, listeners),
                    // The program restarts at this moment, if it is refused.
                    Err(error) => tracing::debug!(%client, to = %delivery.to, %error, "not delivered yet"),
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { std::future::pending().await },
                () = sleep(AGAIN) => {}
            }
        }
    }

    /// Waits until the program has accepted the connection; `false` if it ended in the listener's queue. A program
    /// that stands at a breakpoint accepts late, and its clients wait, as in the pod.
    async fn taken(&self, stream: &TcpStream) -> bool {
        let (Ok(program), Ok(client)) = (stream.peer_addr(), stream.local_addr()) else { return false };
        let mut looks: u32 = 0;
        loop {
            match self.diag.progress(program, client) {
                Ok(Progress::Gone) => return false,
                Ok(Progress::Accepted) => return true,
                // Without data it will not go on.
                Ok(Progress::Beginning) if looks >= QUICK => return true,
                Ok(Progress::Beginning | Progress::Queued) => {}
                Err(error) => {
                    tracing::debug!(%error, "the program's end could not be seen");
                    return true;
                }
            }
            looks += 1;
            // A waiting program accepts within some tens of microseconds.
            if looks <= QUICK {
                tokio::task::yield_now().await;
            } else {
                sleep(SLOW.min(Duration::from_millis(u64::from(looks - QUICK)))).await;
            }
        }
    }

    fn delivery(
        &self,
        listeners: &Listeners,
        protocol: Protocol,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Option<Delivery> {
        let place = Place {
            addresses: &self.addresses,
            client,
            local: local.ip(),
            port: self.rules.local(protocol, local.port()),
        };
        place.delivery(listeners, protocol)
    }

    /// Never waits for a listener: a datagram that finds none is lost, as in the pod.
    async fn reach_datagrams(&self, client: SocketAddr, local: SocketAddr) -> io::Result<UdpSocket> {
        let listeners = Arc::clone(&self.listeners.borrow());
        let delivery = self.delivery(&listeners, Protocol::Udp, client, local).or_else(|| {
            let to = self.addresses.iter().find(|own| own.is_ipv4() == client.is_ipv4())?;
            let port = self.rules.local(Protocol::Udp, local.port());
            Some(Delivery { side: Side::Gateway, from: Some(client), to: SocketAddr::new(*to, port) })
        });
        let delivery = delivery.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let any = || SocketAddr::new(delivery.to.ip(), 0);
        self.pool.datagrams(delivery.side, delivery.from.unwrap_or_else(any), Some(delivery.to)).await
    }

    async fn exchange(&self, flow: Datagrams, socket: &UdpSocket) {
        let mut end = Instant::now() + IDLE;
        loop {
            tokio::select! {
                datagram = flow.recv() => match datagram {
                    Ok(bytes) => {
                        Counters::add(&self.counters.bytes_in, bytes.len());
                        if let Err(error) = socket.send(&bytes).await && error.kind() == io::ErrorKind::ConnectionRefused {
                            return flow.close(Refusal::Refused);
                        }
                    }
                    Err(_) => return,
                },
                datagram = receive(socket) => match datagram {
                    Ok(bytes) => {
                        Counters::add(&self.counters.bytes_out, bytes.len());
                        if flow.send(bytes).await.is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return flow.close(Refusal::Refused),
                    Err(_) => return,
                },
                () = sleep_until(end) => return,
            }
            end = Instant::now() + IDLE;
        }
    }
}
