//! The agent as a process: signals, drain, exit code and its limits.

#![expect(clippy::unwrap_used, reason = "a test: what it needs and does not find is its failure")]
#![expect(clippy::expect_used, reason = "as above, with the property in words")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use devproxy_tunnel::{
    Carrier, Flow, Incoming, Open, Role, SessionKey, Tunnel, TunnelId,
    control::{self, FromAgent, PodPort, Protocol, Scope, ToAgent},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const KEY: [u8; 32] = [9; 32];

/// A running agent; killed when dropped.
struct Agent {
    child: Child,
    tunnel_port: u16,
    _folder: tempfile::TempDir,
}

/// A laptop with its control flow.
struct Laptop {
    incoming: Incoming,
    control: Flow,
    _tunnel: Tunnel,
    _driver: JoinSet<std::io::Result<()>>,
}

/// As the agent has it.
const LINGER: Duration = Duration::from_secs(5);

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn free_port() -> u16 {
    TcpListener::bind(local(0)).await.unwrap().local_addr().unwrap().port()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(40), what).await.expect("happens within 40 s")
}

impl Agent {
    /// `before` is what a shell does before it becomes the agent.
    async fn start(before: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, KEY).unwrap();
        let (tunnel_port, ready_port) = (free_port().await, free_port().await);
        let child = Command::new("sh")
            .args(["-c", &format!("{before}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_devproxy-agent")])
            .arg("--key")
            .arg(&key)
            .args(["--tunnel-port", &tunnel_port.to_string(), "--ready-port", &ready_port.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, tunnel_port, _folder: folder }
    }

    async fn laptop(&self) -> Laptop {
        let stream = soon(async {
            loop {
                match TcpStream::connect(local(self.tunnel_port)).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await;
        let key = SessionKey::from_bytes(KEY);
        let carrier = Carrier::handshake(stream, Role::Laptop, &key, TunnelId(1)).await.unwrap();
        let (tunnel, incoming, driver) = Tunnel::new(Role::Laptop, carrier);
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        let mut control = soon(tunnel.open(Open::Control)).await.unwrap();
        let facts = soon(control::read(&mut control)).await.unwrap();
        assert!(matches!(facts, FromAgent::Facts(_)));
        Laptop { incoming, control, _tunnel: tunnel, _driver: tasks }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    async fn exit(&mut self) -> ExitStatus {
        soon(async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Laptop {
    async fn listen(&mut self) -> u16 {
        let port = free_port().await;
        let entry = PodPort { protocol: Protocol::Tcp, scope: Scope::Loopback, port };
        soon(control::write(&mut self.control, &ToAgent::Listen(vec![entry]))).await.unwrap();
        assert_eq!(self.told().await, FromAgent::Listening { failed: Vec::new() });
        port
    }

    async fn make_ready(&mut self) {
        soon(control::write(&mut self.control, &ToAgent::Ready)).await.unwrap();
        assert_eq!(self.told().await, FromAgent::Ready { failed: None });
    }

    async fn told(&mut self) -> FromAgent {
        soon(control::read(&mut self.control)).await.unwrap()
    }
}

#[tokio::test]
async fn a_terminated_agent_serves_new_and_open_connections_and_exits_with_0() {
    let mut agent = Agent::start("true").await;
    let mut laptop = agent.laptop().await;
    let port = laptop.listen().await;
    laptop.make_ready().await;
    let mut open = TcpStream::connect(local(port)).await.unwrap();
    let mut open_flow = soon(laptop.incoming.next()).await.unwrap().accept();
    agent.signal(Signal::SIGTERM);
    assert_eq!(laptop.told().await, FromAgent::Terminating);

    let mut late = TcpStream::connect(local(port)).await.unwrap();
    let mut late_flow = soon(laptop.incoming.next()).await.unwrap().accept();
    for (client, flow) in [(&mut open, &mut open_flow), (&mut late, &mut late_flow)] {
        flow.write_all(b"served").await.unwrap();
        flow.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        soon(client.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"served");
    }
    assert_eq!(agent.exit().await.code(), Some(0));
    // Told in words, so the laptop need not wait for a time-out.
    assert!(soon(laptop.incoming.next()).await.is_none());
}

#[tokio::test]
async fn a_pod_that_was_never_ready_need_not_wait_for_late_clients() {
    for (ready, lingers) in [(false, false), (true, true)] {
        let mut agent = Agent::start("true").await;
        let mut laptop = agent.laptop().await;
        if ready {
            laptop.make_ready().await;
        }
        let since = Instant::now();
        agent.signal(Signal::SIGTERM);
        drop(laptop);
        assert_eq!(agent.exit().await.code(), Some(0));
        assert_eq!(since.elapsed() >= LINGER, lingers, "ready: {ready}, ended after {:?}", since.elapsed());
    }
}

#[tokio::test]
async fn what_is_held_for_a_laptop_that_has_gone_is_reset_at_the_pods_end() {
    let mut agent = Agent::start("true").await;
    let mut laptop = agent.laptop().await;
    let port = laptop.listen().await;
    // So that it waits for late clients.
    laptop.make_ready().await;
    drop(laptop);
    let mut client = TcpStream::connect(local(port)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    agent.signal(Signal::SIGTERM);
    // It would be held for 30 s.
    let read = tokio::time::timeout(Duration::from_secs(20), client.read(&mut [0; 8]))
        .await
        .expect("it is not held");
    assert_eq!(read.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(agent.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let mut agent = Agent::start("true").await;
    let mut laptop = agent.laptop().await;
    let port = laptop.listen().await;
    let mut client = TcpStream::connect(local(port)).await.unwrap();
    let _flow = soon(laptop.incoming.next()).await.unwrap().accept();
    agent.signal(Signal::SIGTERM);
    assert_eq!(laptop.told().await, FromAgent::Terminating);
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.exit().await.code(), Some(0));
    // Cut, not ended: the client must not take half a reply for a whole one.
    let error = soon(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn without_free_descriptors_clients_wait_and_are_served_later() {
    let agent = Agent::start("ulimit -n 40").await;
    let mut laptop = agent.laptop().await;
    let port = laptop.listen().await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(TcpStream::connect(local(port)).await.unwrap());
    }
    for mut client in clients {
        // Each end of a connection frees the descriptor that a waiting one needs.
        let mut flow = soon(laptop.incoming.next()).await.unwrap().accept();
        flow.write_all(b"ok").await.unwrap();
        flow.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        soon(client.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"ok");
    }
}

#[tokio::test]
async fn a_taken_tunnel_port_is_said_in_one_line() {
    let taken = TcpListener::bind(local(0)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_devproxy-agent"))
        .arg("--key")
        .arg(&key)
        .args(["--tunnel-port", &port, "--ready-port", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!("cannot listen on the tunnel port {port}: Address already in use")),
        "{said}"
    );
}
