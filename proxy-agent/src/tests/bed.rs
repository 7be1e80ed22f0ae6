//! A running agent and laptops that connect to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use devproxy_tunnel::{
    Carrier, Flow, Incoming, Open, Refusal, Request, Role, SessionKey, Tunnel, TunnelId,
    control::{self, Facts, FromAgent, PodPort, Protocol, Scope, ToAgent},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{lifecycle::Parts, settings::Settings};

const KEY: [u8; 32] = [7; 32];

/// The agent.
pub(super) struct Agent {
    pub(super) tunnel_port: u16,
    pub(super) ready_port: u16,
    pub(super) terminate: watch::Sender<bool>,
    pub(super) parts: Parts,
}

/// One laptop's tunnel.
pub(super) struct Laptop {
    pub(super) tunnel: Tunnel,
    pub(super) incoming: Incoming,
    pub(super) driver: JoinSet<std::io::Result<()>>,
}

/// No wait of a test is longer.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("happens within 10 s")
}

pub(super) async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap().local_addr().unwrap().port()
}

pub(super) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(super) fn pod_port(protocol: Protocol, port: u16) -> PodPort {
    PodPort { protocol, scope: Scope::Loopback, port }
}

/// What the next read of a connection ends with.
pub(super) async fn next_read(stream: &mut TcpStream) -> Result<usize, std::io::ErrorKind> {
    let mut bytes = [0; 64];
    soon(stream.read(&mut bytes)).await.map_err(|e| e.kind())
}

impl Agent {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tunnel_port = listener.local_addr().unwrap().port();
        let ready_port = free_port().await;
        let (terminate, terminating) = watch::channel(false);
        let settings = Settings { key: SessionKey::from_bytes(KEY), tunnel_port, ready_port };
        let parts = Parts::start(settings, vec![listener], terminating);
        Self { tunnel_port, ready_port, terminate, parts }
    }

    pub(super) async fn carrier(&self, key: [u8; 32], id: u64) -> std::io::Result<Carrier> {
        let stream = TcpStream::connect(local(self.tunnel_port)).await.unwrap();
        soon(Carrier::handshake(stream, Role::Laptop, &SessionKey::from_bytes(key), TunnelId(id))).await
    }

    pub(super) async fn laptop(&self, id: u64) -> Laptop {
        let carrier = self.carrier(KEY, id).await.unwrap();
        let (tunnel, incoming, driver) = Tunnel::new(Role::Laptop, carrier);
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        Laptop { tunnel, incoming, driver: tasks }
    }
}

impl Laptop {
    pub(super) async fn open(&self, open: Open) -> Result<Flow, Refusal> {
        soon(self.tunnel.open(open)).await
    }

    pub(super) async fn request(&mut self) -> Request {
        soon(self.incoming.next()).await.expect("the tunnel is up")
    }

    pub(super) async fn control(&self) -> Control {
        let mut flow = self.open(Open::Control).await.unwrap();
        match soon(control::read(&mut flow)).await.unwrap() {
            FromAgent::Facts(facts) => Control { flow, facts: *facts },
            other => panic!("{other:?} came before the facts"),
        }
    }
}

/// The control flow after its first message.
pub(super) struct Control {
    flow: Flow,
    pub(super) facts: Facts,
}

impl Control {
    pub(super) async fn ask(&mut self, order: ToAgent) -> FromAgent {
        soon(control::write(&mut self.flow, &order)).await.unwrap();
        self.next().await
    }

    pub(super) async fn next(&mut self) -> FromAgent {
        soon(control::read(&mut self.flow)).await.unwrap()
    }

    /// Listens on a free port of the pod's loopback.
    pub(super) async fn listen(&mut self, protocol: Protocol) -> u16 {
        let port = free_port().await;
        let answer = self.ask(ToAgent::Listen(vec![pod_port(protocol, port)])).await;
        assert_eq!(answer, FromAgent::Listening { failed: Vec::new() });
        port
    }
}
