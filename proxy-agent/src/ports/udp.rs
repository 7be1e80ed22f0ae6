//! One mirrored UDP port: a flow for each client that sends to it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use devproxy_tunnel::Open;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{datagram::LARGEST, listener::unmapped, route::Route};

/// Clients of one port at a time; datagrams of more are lost.
const CLIENTS: usize = 1024;

/// A client's flow ends after this long without a datagram.
const IDLE: Duration = Duration::from_mins(1);

/// After a failed receive, against a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// Datagrams of one client that wait for the tunnel; what is over it is lost, as in a full socket.
const WAITING: usize = 64;

/// Serves the port until it is dropped.
pub(crate) async fn serve(socket: UdpSocket, port: u16, route: watch::Receiver<Route>) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, (u64, mpsc::Sender<Bytes>)> = HashMap::new();
    let mut flows = JoinSet::new();
    let mut serial = 0;
    let mut buffer = vec![0; LARGEST];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else {
                    // ICMP errors of earlier replies are reported here and belong to nobody.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let datagram = Bytes::copy_from_slice(&buffer[..length]);
                if let Some((_, queue)) = clients.get(&client)
                    && !queue.is_closed()
                {
                    let _ = queue.try_send(datagram);
                    continue;
                }
                if flows.len() >= CLIENTS {
                    continue;
                }
                serial += 1;
                let (queue, waiting) = mpsc::channel(WAITING);
                let _ = queue.try_send(datagram);
                clients.insert(client, (serial, queue));
                let association = Association { socket: socket.clone(), client, port };
                let flow = association.run(waiting, route.clone());
                flows.spawn(async move { flow.await; (client, serial) });
            }
            Some(ended) = flows.join_next() => if let Ok((client, serial)) = ended
                // A newer flow of the same client may have taken its place already.
                && clients.get(&client).is_some_and(|(present, _)| *present == serial)
            {
                clients.remove(&client);
            },
        }
    }
}

struct Association {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    port: u16,
}

impl Association {
    async fn run(self, mut waiting: mpsc::Receiver<Bytes>, route: watch::Receiver<Route>) {
        // Without a laptop they are lost: UDP clients repeat.
        let Some(tunnel) = route.borrow().tunnel.clone() else { return };
        let client = unmapped(self.client);
        let local = SocketAddr::new(source_towards(client).await, self.port);
        let Ok(flow) = tunnel.open_datagrams(Open::InboundUdp { client, local }).await else { return };
        let mut deadline = Instant::now() + IDLE;
        loop {
            tokio::select! {
                datagram = waiting.recv() => {
                    let Some(datagram) = datagram else { return };
                    if flow.send(datagram).await.is_err() {
                        return;
                    }
                }
                answer = flow.recv() => {
                    let Ok(answer) = answer else { return };
                    let _ = self.socket.send_to(&answer, self.client).await;
                }
                () = tokio::time::sleep_until(deadline) => return,
            }
            deadline = Instant::now() + IDLE;
        }
    }
}

/// The address that the client has sent to: the one that the kernel answers from. (An address of the pod beside its
/// main one would need `IP_PKTINFO` here and for the reply.)
async fn source_towards(client: SocketAddr) -> IpAddr {
    let any: IpAddr =
        if client.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let asked = async {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(client).await?;
        socket.local_addr()
    };
    asked.await.map_or(any, |address| address.ip())
}
