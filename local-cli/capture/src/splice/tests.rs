use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test]
async fn bytes_pass_both_ways_through_a_narrow_end() {
    let (client, near) = tcp_pair().await;
    let (far, mut server) = tcp_pair().await;
    socket2::SockRef::from(&far).set_send_buffer_size(100).unwrap();
    let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let (mut reading, mut writing) = client.into_split();
    let echo = async {
        let mut buffer = vec![0; 777];
        loop {
            match server.read(&mut buffer).await.unwrap() {
                0 => break server.shutdown().await.unwrap(),
                count => server.write_all(&buffer[..count]).await.unwrap(),
            }
        }
    };
    let write = async {
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let read = async {
        let mut got = Vec::new();
        reading.read_to_end(&mut got).await.unwrap();
        got
    };
    let (spliced, (), (), got) = tokio::join!(splice(near, far, &counts.0, &counts.1), echo, write, read);
    spliced.unwrap();
    assert_eq!(got, sent);
    assert_eq!(counts.0.load(Ordering::Relaxed), sent.len() as u64);
    assert_eq!(counts.1.load(Ordering::Relaxed), sent.len() as u64);
}

#[tokio::test]
async fn a_half_close_leaves_the_other_direction_open() {
    let (mut client, near) = tcp_pair().await;
    let (far, mut server) = tcp_pair().await;
    let count = AtomicU64::new(0);
    let talk = async {
        client.shutdown().await.unwrap();
        let mut nothing = Vec::new();
        server.read_to_end(&mut nothing).await.unwrap();
        server.write_all(b"late answer").await.unwrap();
        drop(server);
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        got
    };
    let (spliced, got) = tokio::join!(splice(near, far, &count, &count), talk);
    spliced.unwrap();
    assert_eq!(got, "late answer");
}

#[tokio::test]
async fn a_reset_that_a_write_notices_is_no_end_of_file() {
    let (mut client, near) = tcp_pair().await;
    let (far, mut server) = tcp_pair().await;
    // More than these take: the splice has bytes in hand when the server leaves.
    socket2::SockRef::from(&far).set_send_buffer_size(100).unwrap();
    socket2::SockRef::from(&server).set_recv_buffer_size(100).unwrap();
    let count = AtomicU64::new(0);
    let talk = async {
        client.write_all(&vec![7; 100_000]).await.unwrap();
        server.read_exact(&mut [0; 1000]).await.unwrap();
        server.write_all(b"a part").await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        let mut got = Vec::new();
        (client.read_to_end(&mut got).await, got)
    };
    let (spliced, (read, got)) = tokio::join!(splice(near, far, &count, &count), talk);
    assert_eq!(spliced.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(got, b"a part");
}

#[tokio::test]
async fn a_reset_of_either_end_resets_the_other_behind_what_was_said() {
    for first in [true, false] {
        let (client, near) = tcp_pair().await;
        let (far, server) = tcp_pair().await;
        let (mut leaves, mut stays) = if first { (client, server) } else { (server, client) };
        let count = AtomicU64::new(0);
        leaves.write_all(b"the last words").await.unwrap();
        leaves.set_zero_linger().unwrap();
        drop(leaves);
        let read = async {
            let mut said = [0; 14];
            (stays.read_exact(&mut said).await.map(|_| said), stays.read(&mut [0; 8]).await)
        };
        let (spliced, (said, read)) = tokio::join!(splice(near, far, &count, &count), read);
        assert_eq!(&said.unwrap(), b"the last words");
        assert_eq!(spliced.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
