use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::*;

const PORT: u16 = 0x1234;

/// A carrier and the API server's end of its WebSocket.
async fn pair() -> (WebSocket<WebSocketStream<DuplexStream>>, WebSocketStream<DuplexStream>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
    (WebSocket::new(client, PORT), server)
}

async fn greeted() -> (WebSocket<WebSocketStream<DuplexStream>>, WebSocketStream<DuplexStream>) {
    let (carrier, mut server) = pair().await;
    for channel in [DATA, ERROR] {
        server.send(binary(&[channel, 0x34, 0x12])).await.unwrap();
    }
    (carrier, server)
}

fn binary(bytes: &[u8]) -> Message {
    Message::binary(bytes.to_vec())
}

#[tokio::test]
async fn bytes_pass_both_ways_without_the_channel() {
    let (mut carrier, mut server) = greeted().await;
    server.send(binary(b"\0hello ")).await.unwrap();
    server.send(binary(b"\0")).await.unwrap();
    server.send(binary(b"\0world")).await.unwrap();
    let mut received = [0; 11];
    carrier.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"hello world");

    carrier.write_all(b"reply").await.unwrap();
    carrier.flush().await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), binary(b"\0reply"));
}

#[tokio::test]
async fn a_large_write_becomes_frames_of_bounded_size() {
    let (mut carrier, mut server) = greeted().await;
    let sent: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    carrier.write_all(&sent).await.unwrap();
    carrier.shutdown().await.unwrap();
    let mut received = Vec::new();
    while let Some(Ok(Message::Binary(frame))) = server.next().await {
        assert!(frame.len() <= LARGEST_FRAME + 1);
        assert_eq!(frame[0], DATA);
        received.extend_from_slice(&frame[1..]);
    }
    assert_eq!(received, sent);
}

#[tokio::test]
async fn nothing_listening_in_the_pod_is_connection_refused() {
    let (mut carrier, mut server) = greeted().await;
    server.send(binary(b"\x01dial tcp4 127.0.0.1:1: connect: connection refused")).await.unwrap();
    let error = carrier.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains("127.0.0.1:1"));
}

#[tokio::test]
async fn the_end_of_the_websocket_is_the_end_of_the_stream() {
    let (mut carrier, mut server) = greeted().await;
    server.send(binary(b"\0last")).await.unwrap();
    server.close(None).await.unwrap();
    let mut received = Vec::new();
    carrier.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"last");
}

#[tokio::test]
async fn hostile_messages_are_refused() {
    for message in [&b""[..], b"\x02\x34\x12", b"\0\x35\x12", b"\0\x34", b"\0"] {
        let (mut carrier, mut server) = pair().await;
        server.send(binary(message)).await.unwrap();
        let error = carrier.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{message:?}");
    }
    let (mut carrier, mut server) = pair().await;
    server.send(Message::text("x")).await.unwrap();
    assert!(carrier.read(&mut [0; 8]).await.is_err());
}
