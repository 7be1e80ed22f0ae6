//! The way without a queue, which needs no namespaces: an ordinary listener is its own target.

use devproxy_tunnel::{Carrier, Incoming, Open, Role, SessionKey, Tunnel, TunnelId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::local::LocalRoutes;

async fn tunnel(tasks: &mut JoinSet<()>) -> (Tunnel, Incoming) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let key = SessionKey::from_bytes([1; SessionKey::LEN]);
    let (near, far) = tokio::join!(
        Carrier::handshake(near, Role::Laptop, &key, TunnelId(1)),
        Carrier::handshake(far, Role::Agent, &key, TunnelId(1)),
    );
    let (laptop, laptop_incoming, driver) = Tunnel::new(Role::Laptop, near.unwrap());
    tasks.spawn(async move {
        let _ = driver.await;
        drop(laptop_incoming);
    });
    let (agent, incoming, driver) = Tunnel::new(Role::Agent, far.unwrap());
    tasks.spawn(async move {
        let _ = driver.await;
        drop(agent);
    });
    (laptop, incoming)
}

#[tokio::test]
async fn without_a_queue_a_refusal_is_a_reset_after_the_fact() {
    let mut tasks = JoinSet::new();
    let (laptop, mut incoming) = tunnel(&mut tasks).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = listener.local_addr().unwrap();
    let catchers = TcpCatchers { tcp4: Some(listener.into()), tcp6: None, queue: None };
    let (_keep, tunnels) = watch::channel(laptop);
    let dialler = Dialler::new(tunnels, Arc::new(LocalRoutes::default()));
    let counters = Arc::new(Counters::default());
    let raw = Arc::new(Raw::new(None, None));
    let outbound = Outbound::new(catchers, raw, dialler, Arc::clone(&counters), None).unwrap();
    tasks.spawn(async move { outbound.run().await.unwrap() });

    let mut program = TcpStream::connect(target).await.unwrap();
    let request = incoming.next().await.unwrap();
    assert_eq!(*request.open(), Open::Tcp { target });
    let mut flow = request.accept();
    flow.write_all(b"hello").await.unwrap();
    flow.shutdown().await.unwrap();
    let mut heard = String::new();
    program.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");

    let mut program = TcpStream::connect(target).await.unwrap();
    incoming.next().await.unwrap().refuse(Refusal::Refused);
    let error = program.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(counters.refused.load(Ordering::Relaxed), 1);
}
