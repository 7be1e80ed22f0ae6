use std::net::IpAddr;

use bytes::Bytes;
use devproxy_tunnel::{
    Open, Refusal,
    control::{FromAgent, Protocol, ToAgent},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::bed::{Agent, local, next_read, soon};

#[tokio::test]
async fn the_laptop_learns_the_true_client_before_a_byte_is_read() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let port = laptop.control().await.listen(Protocol::Tcp).await;
    let mut client = TcpStream::connect(local(port)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let request = laptop.request().await;
    let expected = Open::Inbound { client: client.local_addr().unwrap(), local: local(port) };
    assert_eq!(*request.open(), expected);
    let mut flow = request.accept();
    let mut got = [0; 5];
    soon(flow.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"hello");
    flow.write_all(b"bye").await.unwrap();
    flow.shutdown().await.unwrap();
    assert_eq!(next_read(&mut client).await, Ok(3));
    assert_eq!(next_read(&mut client).await, Ok(0));
}

#[tokio::test]
async fn a_refusal_is_a_reset() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let port = laptop.control().await.listen(Protocol::Tcp).await;
    let mut client = TcpStream::connect(local(port)).await.unwrap();
    laptop.request().await.refuse(Refusal::Refused);
    assert_eq!(next_read(&mut client).await, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_connection_waits_for_the_next_tunnel() {
    let agent = Agent::start().await;
    let mut first = agent.laptop(1).await;
    let port = first.control().await.listen(Protocol::Tcp).await;
    // Asked, not answered, and then the tunnel is gone.
    let mut before = TcpStream::connect(local(port)).await.unwrap();
    let unanswered = first.request().await;
    first.tunnel.close();
    let _ = soon(first.driver.join_next()).await;
    drop((unanswered, first));
    // Nobody there to ask.
    let mut between = TcpStream::connect(local(port)).await.unwrap();
    let mut second = agent.laptop(2).await;
    for _ in 0..2 {
        let mut flow = second.request().await.accept();
        flow.write_all(b"ok").await.unwrap();
        flow.shutdown().await.unwrap();
    }
    for client in [&mut before, &mut between] {
        assert_eq!(next_read(client).await, Ok(2));
    }
}

#[tokio::test]
async fn what_a_client_said_first_is_there_once_for_whoever_answers_at_last() {
    let agent = Agent::start().await;
    let mut first = agent.laptop(1).await;
    let port = first.control().await.listen(Protocol::Tcp).await;
    let mut client = TcpStream::connect(local(port)).await.unwrap();
    let said: Vec<u8> = (0..10_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    client.write_all(&said).await.unwrap();
    // Asked, told the beginning, and then the tunnel is gone without an answer.
    let unanswered = first.request().await;
    first.tunnel.close();
    let _ = soon(first.driver.join_next()).await;
    drop((unanswered, first));
    let mut second = agent.laptop(2).await;
    let mut flow = second.request().await.accept();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(flow.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, said);
}

#[tokio::test]
async fn a_client_that_gives_up_is_not_asked_for_any_more() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let port = laptop.control().await.listen(Protocol::Tcp).await;
    let client = TcpStream::connect(local(port)).await.unwrap();
    let request = laptop.request().await;
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    soon(request.cancelled()).await;
}

#[tokio::test]
async fn held_and_new_connections_are_spliced_to_the_restored_pods_and_answered_ones_stay() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let mut control = laptop.control().await;
    let port = control.listen(Protocol::Tcp).await;
    let restored = TcpListener::bind(("127.0.0.2", port)).await.unwrap();

    let mut answered = TcpStream::connect(local(port)).await.unwrap();
    let mut flow = laptop.request().await.accept();
    let mut held = TcpStream::connect(local(port)).await.unwrap();
    let unanswered = laptop.request().await;

    // The first of the pods is gone already: the next one is tried.
    let pods: Vec<IpAddr> = vec!["127.0.0.3".parse().unwrap(), "127.0.0.2".parse().unwrap()];
    assert_eq!(control.ask(ToAgent::Splice(pods)).await, FromAgent::Splicing);
    soon(unanswered.cancelled()).await;
    let mut late = TcpStream::connect(local(port)).await.unwrap();
    for _ in 0..2 {
        let (mut served, _) = soon(restored.accept()).await.unwrap();
        served.write_all(b"restored").await.unwrap();
    }
    assert_eq!(next_read(&mut held).await, Ok(8));
    assert_eq!(next_read(&mut late).await, Ok(8));
    flow.write_all(b"laptop").await.unwrap();
    assert_eq!(next_read(&mut answered).await, Ok(6));
}

#[tokio::test]
async fn without_restored_pods_held_connections_are_reset() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let mut control = laptop.control().await;
    let port = control.listen(Protocol::Tcp).await;
    let mut held = TcpStream::connect(local(port)).await.unwrap();
    let _unanswered = laptop.request().await;
    assert_eq!(control.ask(ToAgent::Splice(Vec::new())).await, FromAgent::Splicing);
    assert_eq!(next_read(&mut held).await, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_port_that_leaves_the_table_keeps_its_connections() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let mut control = laptop.control().await;
    let port = control.listen(Protocol::Tcp).await;
    let mut client = TcpStream::connect(local(port)).await.unwrap();
    let mut flow = laptop.request().await.accept();
    assert_eq!(control.ask(ToAgent::Listen(Vec::new())).await, FromAgent::Listening { failed: Vec::new() });
    assert!(TcpStream::connect(local(port)).await.is_err());
    flow.write_all(b"still").await.unwrap();
    assert_eq!(next_read(&mut client).await, Ok(5));
    let mut active = agent.parts.active.clone();
    soon(active.wait_for(|active| *active == 1)).await.unwrap();
    drop((client, flow));
    soon(active.wait_for(|active| *active == 0)).await.unwrap();
}

#[tokio::test]
async fn each_udp_client_has_a_flow_of_its_own() {
    let agent = Agent::start().await;
    let mut laptop = agent.laptop(1).await;
    let port = laptop.control().await.listen(Protocol::Udp).await;
    let mut flows = Vec::new();
    for text in ["a", "b"] {
        let client = UdpSocket::bind(local(0)).await.unwrap();
        client.send_to(text.as_bytes(), local(port)).await.unwrap();
        let request = laptop.request().await;
        let expected = Open::InboundUdp { client: client.local_addr().unwrap(), local: local(port) };
        assert_eq!(*request.open(), expected);
        let flow = request.accept_datagrams();
        assert_eq!(soon(flow.recv()).await.unwrap(), text);
        flows.push((client, flow));
    }
    for (client, flow) in flows {
        flow.send(Bytes::from_static(b"answer")).await.unwrap();
        let mut got = [0; 16];
        let (length, from) = soon(client.recv_from(&mut got)).await.unwrap();
        assert_eq!((&got[..length], from), (&b"answer"[..], local(port)));
    }
}
