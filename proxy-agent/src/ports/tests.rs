use std::net::Ipv4Addr;

use devproxy_tunnel::control::Scope;
use tokio::net::TcpStream;

use super::*;
use crate::route::Route;

fn ports() -> (Ports, mpsc::Receiver<Accepted>) {
    Ports::new(Arc::new(Routes::new(Route::default())))
}

async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap().local_addr().unwrap().port()
}

fn entry(protocol: Protocol, scope: Scope, port: u16) -> PodPort {
    PodPort { protocol, scope, port }
}

async fn connects(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

#[tokio::test]
async fn exactly_the_table_listens() {
    let (mut ports, mut accepted) = ports();
    let (first, second) = (free_port().await, free_port().await);
    let [a, b] = [first, second].map(|port| entry(Protocol::Tcp, Scope::Pod, port));
    assert_eq!(ports.set(&[a]).await, []);
    assert!(connects(first).await && !connects(second).await);
    assert_eq!(ports.set(&[b]).await, []);
    assert!(!connects(first).await && connects(second).await);
    // The connection that the first port accepted is still there.
    assert_eq!(accepted.recv().await.unwrap().connection.local_addr().unwrap().port(), first);
    assert_eq!(ports.set(&[]).await, []);
    assert!(!connects(second).await);
}

#[tokio::test]
async fn a_port_changes_its_scope() {
    let (mut ports, _accepted) = ports();
    let port = free_port().await;
    for scope in [Scope::Pod, Scope::Loopback, Scope::Pod] {
        assert_eq!(ports.set(&[entry(Protocol::Tcp, scope, port)]).await, []);
        assert!(connects(port).await);
    }
}

#[tokio::test]
async fn a_port_that_a_sidecar_has_is_reported_and_the_others_open() {
    let (mut ports, _accepted) = ports();
    let sidecar = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let taken = entry(Protocol::Tcp, Scope::Pod, sidecar.local_addr().unwrap().port());
    let free = entry(Protocol::Tcp, Scope::Pod, free_port().await);
    assert_eq!(ports.set(&[taken, free]).await, [(taken, "Address already in use".to_owned())]);
    assert!(connects(free.port).await);
    // Tried again with the next table.
    drop(sidecar);
    assert_eq!(ports.set(&[taken, free]).await, []);
}

#[tokio::test]
async fn the_same_number_is_free_for_the_other_protocol() {
    let (mut ports, _accepted) = ports();
    let port = free_port().await;
    let table = [Protocol::Tcp, Protocol::Udp].map(|protocol| entry(protocol, Scope::Pod, port));
    assert_eq!(ports.set(&table).await, []);
}
