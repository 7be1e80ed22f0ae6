//! Two tunnels joined by in-memory carriers.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test by panicking")]

pub(crate) mod pair;

use std::{io, net::SocketAddr, time::Duration};

use devproxy_tunnel::{Carrier, Datagrams, Flow, Incoming, Open, Role, SessionKey, Tunnel, TunnelId};
use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// Both ends of a tunnel with their drivers.
pub(crate) struct Ends {
    pub(crate) laptop: Tunnel,
    pub(crate) laptop_incoming: Incoming,
    pub(crate) agent: Tunnel,
    pub(crate) agent_incoming: Incoming,
    pub(crate) drivers: JoinSet<(Role, io::Result<()>)>,
    pub(crate) laptop_driver: AbortHandle,
}

impl Ends {
    pub(crate) async fn new() -> Self {
        Self::over(64 << 10).await
    }

    /// Over a carrier that holds so many bytes.
    pub(crate) async fn over(width: usize) -> Self {
        let (near, far) = tokio::io::duplex(width);
        let (laptop, agent) = proved(near, far, TunnelId(7)).await;
        let (laptop, laptop_incoming, laptop_drive) = Tunnel::new(Role::Laptop, laptop);
        let (agent, agent_incoming, agent_drive) = Tunnel::new(Role::Agent, agent);
        let mut drivers = JoinSet::new();
        let laptop_driver = drivers.spawn(async move { (Role::Laptop, laptop_drive.await) });
        drivers.spawn(async move { (Role::Agent, agent_drive.await) });
        Self { laptop, laptop_incoming, agent, agent_incoming, drivers, laptop_driver }
    }

    /// A connected byte stream: the laptop's end and the agent's.
    pub(crate) async fn flow(&mut self) -> (Flow, Flow) {
        let (near, far) = tokio::join!(self.laptop.open(target()), async {
            self.agent_incoming.next().await.unwrap().accept()
        });
        (near.unwrap(), far)
    }

    /// A connected datagram flow: the laptop's end and the agent's.
    pub(crate) async fn datagrams(&mut self) -> (Datagrams, Datagrams) {
        let (near, far) = tokio::join!(self.laptop.open_datagrams(udp()), async {
            self.agent_incoming.next().await.unwrap().accept_datagrams()
        });
        (near.unwrap(), far)
    }

    /// How the driver of `role` ended.
    pub(crate) async fn end_of(&mut self, role: Role) -> io::Result<()> {
        loop {
            let (who, result) = within(self.drivers.join_next()).await.unwrap().unwrap();
            if who == role {
                return result;
            }
        }
    }
}

pub(crate) fn key() -> SessionKey {
    SessionKey::from_bytes([7; SessionKey::LEN])
}

pub(crate) async fn carriers(id: TunnelId) -> (Carrier, Carrier) {
    let (near, far) = tokio::io::duplex(64 << 10);
    proved(near, far, id).await
}

pub(crate) async fn proved(near: DuplexStream, far: DuplexStream, id: TunnelId) -> (Carrier, Carrier) {
    let key = key();
    let (near, far) = tokio::join!(
        Carrier::handshake(near, Role::Laptop, &key, id),
        Carrier::handshake(far, Role::Agent, &key, TunnelId(0)),
    );
    (near.unwrap(), far.unwrap())
}

/// Both ends of a TCP connection over the loopback.
pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

pub(crate) fn target() -> Open {
    Open::Tcp { target: SocketAddr::from(([10, 0, 0, 1], 80)) }
}

pub(crate) fn udp() -> Open {
    Open::Udp { target: SocketAddr::from(([10, 0, 0, 1], 53)) }
}

/// Bytes that show any loss, repetition or swap.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// A limit for what must happen anyway.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("nothing happened for 30 s")
}
