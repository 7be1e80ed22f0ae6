use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use devproxy_tunnel::{Open, Refusal};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::bed::{Agent, free_port, local, next_read, soon};
use crate::relay::Connection;

#[tokio::test]
async fn a_reply_after_our_half_close_arrives_whole() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let server = TcpListener::bind(local(0)).await.unwrap();
    let target = server.local_addr().unwrap();
    let mut flow = laptop.open(Open::Tcp { target }).await.unwrap();
    let (mut served, _) = soon(server.accept()).await.unwrap();
    let request: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut reply = Vec::new();
    soon(async {
        tokio::join!(
            async {
                flow.write_all(&request).await.unwrap();
                flow.shutdown().await.unwrap();
                flow.read_to_end(&mut reply).await.unwrap();
            },
            async {
                let mut got = Vec::new();
                served.read_to_end(&mut got).await.unwrap();
                served.write_all(&got).await.unwrap();
                served.shutdown().await.unwrap();
            }
        );
    })
    .await;
    assert!(reply == request);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let server = TcpListener::bind(local(0)).await.unwrap();
    let mut flow = laptop.open(Open::Tcp { target: server.local_addr().unwrap() }).await.unwrap();
    let (mut served, _) = soon(server.accept()).await.unwrap();
    served.write_all(b"220 hello").await.unwrap();
    let mut greeting = [0; 9];
    soon(flow.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 hello");
}

#[tokio::test]
async fn a_closed_port_is_refused_and_so_is_the_tunnels_own() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let own: [SocketAddr; 3] = [
        local(agent.tunnel_port),
        (Ipv4Addr::UNSPECIFIED, agent.tunnel_port).into(),
        format!("[::ffff:127.0.0.1]:{}", agent.tunnel_port).parse().unwrap(),
    ];
    for target in own.into_iter().chain([local(free_port().await)]) {
        assert_eq!(laptop.open(Open::Tcp { target }).await.err(), Some(Refusal::Refused), "{target}");
    }
}

#[tokio::test]
async fn a_reset_passes_both_ways() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let server = TcpListener::bind(local(0)).await.unwrap();
    let target = server.local_addr().unwrap();

    let mut flow = laptop.open(Open::Tcp { target }).await.unwrap();
    let (served, _) = soon(server.accept()).await.unwrap();
    SockRef::from(&served).set_linger(Some(Duration::ZERO)).unwrap();
    drop(served);
    let error = soon(flow.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let flow = laptop.open(Open::Tcp { target }).await.unwrap();
    let (mut served, _) = soon(server.accept()).await.unwrap();
    drop(flow);
    assert_eq!(next_read(&mut served).await, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_reset_reaches_a_server_that_does_not_read() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let server = TcpListener::bind(local(0)).await.unwrap();
    let mut flow = laptop.open(Open::Tcp { target: server.local_addr().unwrap() }).await.unwrap();
    let (served, _) = soon(server.accept()).await.unwrap();
    // Until nothing more fits into sockets and windows.
    let bytes = vec![0; 1 << 20];
    while tokio::time::timeout(Duration::from_millis(300), flow.write_all(&bytes)).await.is_ok() {}
    drop(flow);
    soon(Connection::new(served).reset()).await;
}

#[tokio::test]
async fn the_end_of_the_tunnel_resets_what_it_carried() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let server = TcpListener::bind(local(0)).await.unwrap();
    let _flow = laptop.open(Open::Tcp { target: server.local_addr().unwrap() }).await.unwrap();
    let (mut served, _) = soon(server.accept()).await.unwrap();
    laptop.tunnel.close();
    let _ = soon(laptop.driver.join_next()).await;
    assert_eq!(next_read(&mut served).await, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_new_tunnel_replaces_the_old_one() {
    let agent = Agent::start().await;
    let first = agent.laptop(1).await;
    let server = TcpListener::bind(local(0)).await.unwrap();
    let target = server.local_addr().unwrap();
    let _flow = first.open(Open::Tcp { target }).await.unwrap();
    let (mut old, _) = soon(server.accept()).await.unwrap();
    let second = agent.laptop(2).await;
    let _flow = second.open(Open::Tcp { target }).await.unwrap();
    soon(server.accept()).await.unwrap();
    assert_eq!(next_read(&mut old).await, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn datagrams_pass_both_ways_and_a_closed_port_is_told() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let server = UdpSocket::bind(local(0)).await.unwrap();
    let target = server.local_addr().unwrap();
    for open in [Open::Udp { target }, Open::Dns { server: target }] {
        let flow = soon(laptop.tunnel.open_datagrams(open)).await.unwrap();
        for question in [Bytes::from_static(b"question"), Bytes::new()] {
            flow.send(question.clone()).await.unwrap();
            let mut got = [0; 16];
            let (length, client) = soon(server.recv_from(&mut got)).await.unwrap();
            assert_eq!(&got[..length], &question[..]);
            server.send_to(b"answer", client).await.unwrap();
            assert_eq!(soon(flow.recv()).await.unwrap(), "answer");
        }
    }
    drop(server);
    let flow = soon(laptop.tunnel.open_datagrams(Open::Udp { target })).await.unwrap();
    flow.send(Bytes::from_static(b"question")).await.unwrap();
    assert_eq!(soon(flow.recv()).await, Err(Refusal::Refused));
}

#[tokio::test]
async fn a_probe_is_echoed() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let mut flow = laptop.open(Open::Probe).await.unwrap();
    flow.write_all(b"ping").await.unwrap();
    flow.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    soon(flow.read_to_end(&mut echoed)).await.unwrap();
    assert_eq!(echoed, b"ping");
}

#[tokio::test]
async fn flows_of_the_other_direction_are_not_served() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let open = Open::Inbound { client: local(1), local: local(2) };
    assert_eq!(laptop.open(open).await.err(), Some(Refusal::Unsupported));
}

#[tokio::test]
async fn without_the_key_there_is_no_tunnel() {
    let agent = Agent::start().await;
    assert!(agent.carrier([8; 32], 1).await.is_err());
    // And it is in nobody's way.
    let laptop = agent.laptop(2).await;
    laptop.open(Open::Probe).await.unwrap();
}
