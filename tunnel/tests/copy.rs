//! Copies between flows and sockets.

#![allow(clippy::expect_used, reason = "a test's helpers fail the test by panicking")]

mod support;

use std::{io::ErrorKind, time::Duration};

use devproxy_tunnel::{Flow, copy};
use socket2::SockRef;
use support::{Ends, pattern, sockets, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::Instant,
};

const NOTHING: fn(usize) = |_| ();

/// Copies to the end and resets the socket if there was a fault, as the users of `copy` do.
async fn relay(socket: TcpStream, flow: Flow) -> Result<(), ErrorKind> {
    let ended = copy(&socket, &flow, NOTHING, NOTHING).await;
    let linger = ended.is_err().then_some(Duration::ZERO);
    SockRef::from(&socket).set_linger(linger).expect("a TCP socket");
    ended.map_err(|error| error.kind())
}

#[tokio::test]
async fn bulk_passes_from_socket_to_socket_whole_and_so_does_its_end() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.flow().await;
    let ((mut client, laptop), (agent, mut server)) = (sockets().await, sockets().await);
    let sent = pattern(9 << 20);
    let (mut got, mut uploaded, mut downloaded) = (Vec::new(), 0, 0);
    let write = async {
        // Pieces of all sizes: those that are kept where they were read, and those that are copied.
        for piece in sent.chunks(100_003) {
            let (small, large) = piece.split_at(piece.len() / 50);
            client.write_all(small).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(large).await.unwrap();
        }
        client.shutdown().await.unwrap();
    };
    let read = async {
        server.read_to_end(&mut got).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let (up, down, (), ()) = within(async {
        tokio::join!(
            copy(&laptop, &near, |count| uploaded += count, NOTHING),
            copy(&far, &agent, |count| downloaded += count, NOTHING),
            write,
            read
        )
    })
    .await;
    up.and(down).unwrap();
    assert_eq!((uploaded, downloaded), (sent.len(), sent.len()));
    assert!(got == sent, "bytes differ");
}

#[tokio::test]
async fn a_reset_is_seen_while_the_socket_takes_nothing() {
    let mut ends = Ends::new().await;
    let (mut near, far) = ends.flow().await;
    let (socket, client) = sockets().await;
    SockRef::from(&socket).set_send_buffer_size(1000).unwrap();
    SockRef::from(&client).set_recv_buffer_size(1000).unwrap();
    near.write_all(&pattern(200_000)).await.unwrap();
    drop(near);
    let ended = within(copy(&socket, &far, NOTHING, NOTHING)).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_last_words_of_one_who_reads_no_more_arrive_while_the_other_still_writes() {
    let mut ends = Ends::new().await;
    let (mut near, far) = ends.flow().await;
    let (client, socket) = sockets().await;
    // Far more than the window: the word that nobody reads any more comes before the most of it.
    let sent = pattern(3 << 20);
    let (mut reading, mut writing) = client.into_split();
    let server = async {
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        drop(near);
    };
    let talk = async move {
        let (mut got, piece) = (Vec::new(), pattern(50_000));
        let upload = async {
            while writing.write_all(&piece).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let (read, ()) = tokio::join!(reading.read_to_end(&mut got), upload);
        read.unwrap();
        got
    };
    let (_, (), got) = within(async { tokio::join!(relay(socket, far), server, talk) }).await;
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[tokio::test]
async fn the_end_of_file_ahead_of_a_reset_is_passed_on() {
    let mut ends = Ends::new().await;
    let (mut near, far) = ends.flow().await;
    let (agent, mut server) = sockets().await;
    let sent = pattern(50_000);
    near.write_all(b"a request, of which the server reads nothing").await.unwrap();
    let copied = async {
        let ended = copy(&agent, &far, NOTHING, NOTHING).await;
        drop(far);
        ended
    };
    let serve = async {
        server.write_all(&sent).await.unwrap();
        server.shutdown().await.unwrap();
        server.readable().await.unwrap();
        // With something unread, which resets.
        drop(server);
    };
    let mut got = Vec::new();
    let ask = async {
        near.read_to_end(&mut got).await.unwrap();
        // Until it is told that nobody reads this.
        let error = loop {
            match near.write(b"and more").await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    };
    let (ended, (), ()) = within(async { tokio::join!(copied, serve, ask) }).await;
    ended.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn who_has_heard_all_of_one_who_reads_no_more_is_reset_at_once() {
    let mut ends = Ends::new().await;
    let (mut near, far) = ends.flow().await;
    let (mut client, socket) = sockets().await;
    near.write_all(b"last").await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    let talk = async {
        client.ready(Interest::ERROR).await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"last");
        client.write_all(b"more").await.unwrap_err();
    };
    let (ended, ()) = within(async { tokio::join!(relay(socket, far), talk) }).await;
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

/// Says more than the kernel of one who does not read takes (64 KiB at first), and reads no more.
async fn last_words(mut near: Flow) -> Vec<u8> {
    let words = pattern(250_000);
    near.write_all(&words).await.expect("within the window");
    near.shutdown().await.expect("nobody ended it");
    words
}

#[tokio::test]
async fn the_last_words_wait_for_one_who_reads_late() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.flow().await;
    let (client, socket) = sockets().await;
    let sent = last_words(near).await;
    let (mut reading, mut writing) = client.into_split();
    let upload = async move {
        while writing.write_all(&[0; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let mut got = Vec::new();
    let read = async {
        // Several looks at what is left.
        tokio::time::sleep(Duration::from_millis(500)).await;
        reading.read_to_end(&mut got).await.unwrap();
    };
    let (ended, (), ()) = within(async { tokio::join!(relay(socket, far), upload, read) }).await;
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[tokio::test(start_paused = true)]
async fn one_who_reads_nothing_gets_30_s_for_the_last_words() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.flow().await;
    let (client, socket) = sockets().await;
    last_words(near).await;
    let start = Instant::now();
    let ended = tokio::time::timeout(Duration::from_mins(2), relay(socket, far)).await.unwrap();
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    assert!(start.elapsed() >= Duration::from_secs(30));
    drop(client);
}

#[tokio::test]
async fn an_answer_to_a_lost_tunnel_is_not_taken() {
    let mut ends = Ends::new().await;
    let (mut near, far) = ends.flow().await;
    let (agent, mut server) = sockets().await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let serve = async {
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        ends.laptop_driver.abort();
        server.ready(Interest::ERROR).await.unwrap();
        server.write_all(b"answer").await.unwrap_err();
    };
    let (ended, ()) = within(async { tokio::join!(relay(agent, far), serve) }).await;
    assert_eq!(ended, Err(ErrorKind::ConnectionAborted));
}

#[tokio::test]
async fn a_reset_behind_the_own_end_of_file_reaches_an_end_that_is_silent() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.flow().await;
    let ((mut client, laptop), (agent, mut server)) = (sockets().await, sockets().await);
    let talk = async {
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        server.ready(Interest::ERROR).await.unwrap();
    };
    let (_, ended, ()) = within(async { tokio::join!(relay(laptop, near), relay(agent, far), talk) }).await;
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}
