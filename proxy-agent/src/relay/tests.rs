use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::*;
use crate::{inbound, route::Route};

/// Both ends of a TCP connection over the loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// `client` and `server` with a relay of two connections between them.
async fn relayed(tasks: &mut JoinSet<()>) -> (TcpStream, TcpStream) {
    let (client, first) = pair().await;
    let (second, server) = pair().await;
    tasks.spawn(relay_connections(Connection::new(first), Connection::new(second)));
    (client, server)
}

fn abort(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

async fn kind_of_next_read(stream: &mut TcpStream) -> Result<usize, io::ErrorKind> {
    let mut bytes = [0; 16];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut bytes));
    read.await.expect("the end is passed on").map_err(|e| e.kind())
}

#[tokio::test]
async fn a_reply_after_the_requests_end_arrives_whole() {
    let mut tasks = JoinSet::new();
    let (mut client, mut server) = relayed(&mut tasks).await;
    let request: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let sent = request.clone();
    let mut reply = Vec::new();
    tokio::join!(
        async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut reply).await.unwrap();
        },
        async {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            server.write_all(&got).await.unwrap();
            server.shutdown().await.unwrap();
        }
    );
    assert!(reply == request);
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reset_is_a_reset_at_the_other_end() {
    let mut tasks = JoinSet::new();
    let (client, mut server) = relayed(&mut tasks).await;
    abort(client);
    assert_eq!(kind_of_next_read(&mut server).await, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_reset_after_the_own_end_of_file_is_seen() {
    let mut tasks = JoinSet::new();
    let (mut client, mut server) = relayed(&mut tasks).await;
    client.shutdown().await.unwrap();
    assert_eq!(kind_of_next_read(&mut server).await, Ok(0));
    abort(client);
    // A read would only repeat the end of file; the reset is in the socket's error.
    let server = Connection::new(server);
    tokio::time::timeout(Duration::from_secs(10), server.reset()).await.expect("the reset is passed on");
    assert_eq!(server.0.take_error().unwrap().map(|e| e.kind()), Some(io::ErrorKind::BrokenPipe));
}

#[tokio::test]
async fn a_cancelled_relay_is_no_end_of_file() {
    let mut tasks = JoinSet::new();
    let (mut client, mut server) = relayed(&mut tasks).await;
    tasks.shutdown().await;
    assert_eq!(kind_of_next_read(&mut client).await, Err(io::ErrorKind::ConnectionReset));
    assert_eq!(kind_of_next_read(&mut server).await, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_connection_that_waits_holds_no_buffer() {
    let (near, far) = pair().await;
    let (_routes, route) = watch::channel(Route::default());
    let held = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let serving = inbound::serve(Connection::new(near), far.local_addr().unwrap(), route, held);
    // A connection may cost 4 KiB in all, as much as a buffer for what is sent ahead.
    assert!(size_of_val(&serving) < 2048, "{} bytes", size_of_val(&serving));
}
