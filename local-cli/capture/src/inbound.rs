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
    time::{Instant, sleep, sleep_until},
};

pub(crate) use self::delivery::{Delivery, Place};
use crate::{
    counters::{Counters, Present},
    dial::receive,
    listeners::Listeners,
    pool::Pool,
    ports::PortRules,
    splice::splice,
};

/// Requests that wait or are being served at once.
pub(crate) const REQUESTS: usize = 4096;
/// Between two tries while nothing changes: a listener may refuse without going away (a full backlog does not).
const AGAIN: Duration = Duration::from_millis(100);
/// An inbound UDP flow without a datagram either way ends.
const IDLE: Duration = Duration::from_secs(60);

/// What all inbound flows share.
pub(crate) struct Inbound {
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) rules: Arc<PortRules>,
    pub(crate) hold: Duration,
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

    /// The connection to the program, once something listens; `None` when the request has been answered otherwise.
    async fn reach(
        &self,
        request: Request,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Option<(Request, TcpStream)> {
        let held = Present::new(&self.counters.held);
        let end = Instant::now() + self.hold;
        let mut changes = self.listeners.clone();
        let connected = tokio::select! {
            stream = self.connect(&mut changes, client, local) => Some(stream),
            () = sleep_until(end) => None,
            () = request.cancelled() => return None,
        };
        drop(held);
        match connected {
            Some(stream) => Some((request, stream)),
            None => {
                tracing::debug!(%client, %local, "nothing listened in time");
                request.refuse(Refusal::Refused);
                None
            }
        }
    }

    async fn connect(
        &self,
        changes: &mut watch::Receiver<Arc<Listeners>>,
        client: SocketAddr,
        local: SocketAddr,
    ) -> TcpStream {
        loop {
            let listeners = Arc::clone(&changes.borrow_and_update());
            if let Some(delivery) = self.delivery(&listeners, Protocol::Tcp, client, local) {
                match self.pool.connect(delivery.side, delivery.from, delivery.to).await {
                    Ok(stream) => return stream,
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
