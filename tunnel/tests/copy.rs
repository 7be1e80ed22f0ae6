//! Copies between flows and sockets.

mod support;

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use devproxy_tunnel::copy;
use socket2::SockRef;
use support::{Ends, pattern, sockets, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NOTHING: fn(usize) = |_| ();

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
        let endless = async {
            loop {
                writing.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            read = reading.read_to_end(&mut got) => read.unwrap(),
            () = endless => unreachable!(),
        };
        got
    };
    let (ended, (), got) =
        within(async { tokio::join!(copy(&socket, &far, NOTHING, NOTHING), server, talk) }).await;
    ended.unwrap();
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
async fn who_writes_on_to_one_who_reads_no_more_is_reset_soon_and_who_ends_is_not() {
    for ends_well in [false, true] {
        let mut ends = Ends::new().await;
        let (mut near, far) = ends.flow().await;
        let (mut client, socket) = sockets().await;
        near.write_all(b"last").await.unwrap();
        near.shutdown().await.unwrap();
        drop(near);
        let copied = async {
            let ended = copy(&socket, &far, NOTHING, NOTHING).await;
            SockRef::from(&socket).set_linger(ended.is_err().then_some(Duration::ZERO)).unwrap();
            drop(socket);
            ended.map_err(|error| error.kind())
        };
        let talk = async {
            client.write_all(b"what nobody reads").await.unwrap();
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"last");
            if ends_well {
                return client.shutdown().await;
            }
            loop {
                client.write_all(b"more").await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (ended, said): (_, io::Result<()>) = within(async { tokio::join!(copied, talk) }).await;
        assert_eq!(ended, if ends_well { Ok(()) } else { Err(ErrorKind::ConnectionReset) });
        assert_eq!(said.is_ok(), ends_well);
    }
}

#[tokio::test]
async fn a_reset_behind_the_own_end_of_file_reaches_an_end_that_is_silent() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.flow().await;
    let ((mut client, laptop), (agent, mut server)) = (sockets().await, sockets().await);
    let relay = |socket, flow| async move {
        let ended = copy(&socket, &flow, NOTHING, NOTHING).await;
        SockRef::from(&socket).set_linger(ended.is_err().then_some(Duration::ZERO)).unwrap();
        ended.map_err(|error| error.kind())
    };
    let talk = async {
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        server.ready(tokio::io::Interest::ERROR).await.unwrap();
    };
    let (_, ended, ()) = within(async { tokio::join!(relay(laptop, near), relay(agent, far), talk) }).await;
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}
