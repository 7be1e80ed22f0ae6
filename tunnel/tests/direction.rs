//! Copies between flows and sockets.

mod support;

use std::{future::poll_fn, io::ErrorKind, task::Poll};

use devproxy_tunnel::{Direction, Flow};
use support::{Ends, pattern, sockets, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn upload(socket: &mut TcpStream, flow: &mut Flow) -> std::io::Result<usize> {
    let (mut direction, mut moved) = (Direction::default(), 0);
    poll_fn(|cx| direction.poll(cx, socket, flow, |bytes| moved += bytes)).await?;
    Ok(moved)
}

async fn download(flow: &mut Flow, socket: &mut TcpStream) -> std::io::Result<usize> {
    let (mut direction, mut moved) = (Direction::default(), 0);
    poll_fn(|cx| direction.poll(cx, flow, socket, |bytes| moved += bytes)).await?;
    Ok(moved)
}

#[tokio::test]
async fn bulk_passes_from_socket_to_socket_whole_and_so_does_its_end() {
    let mut ends = Ends::new().await;
    let (mut near, mut far) = ends.flow().await;
    let ((mut client, mut laptop), (mut agent, mut server)) = (sockets().await, sockets().await);
    let sent = pattern(9 << 20);
    let mut got = Vec::new();
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
    let (uploaded, downloaded, (), read) = within(async {
        tokio::join!(
            upload(&mut laptop, &mut near),
            download(&mut far, &mut agent),
            write,
            server.read_to_end(&mut got)
        )
    })
    .await;
    read.unwrap();
    assert_eq!((uploaded.unwrap(), downloaded.unwrap()), (sent.len(), sent.len()));
    assert!(got == sent, "bytes differ");
}

#[tokio::test]
async fn a_reset_is_seen_while_the_socket_takes_nothing() {
    let mut ends = Ends::new().await;
    let (mut near, mut far) = ends.flow().await;
    let (mut socket, client) = sockets().await;
    let mut direction = Direction::default();
    let fill = async {
        let piece = pattern(64 << 10);
        while near.write_all(&piece).await.is_ok() {}
    };
    let blocked = async {
        poll_fn(|cx| match direction.poll(cx, &mut far, &mut socket, |_| ()) {
            Poll::Ready(ended) => panic!("{ended:?}"),
            Poll::Pending if direction.is_blocked() => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
    };
    within(async {
        tokio::select! {
            () = fill => panic!("the flow ended"),
            () = blocked => {}
        }
    })
    .await;
    near.reset();
    let ended = within(poll_fn(|cx| direction.poll(cx, &mut far, &mut socket, |_| ()))).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(client);
}

#[tokio::test]
async fn a_flow_that_is_read_no_more_is_an_error_only_for_who_writes() {
    for writes in [false, true] {
        let mut ends = Ends::new().await;
        let (mut near, mut far) = ends.flow().await;
        let (mut client, mut socket) = sockets().await;
        // Its reader has gone: what it said before still arrives.
        near.write_all(b"last").await.unwrap();
        near.shutdown().await.unwrap();
        drop(near);
        let mut said = Vec::new();
        within(far.read_to_end(&mut said)).await.unwrap();
        assert_eq!(said, b"last");
        let mut direction = Direction::default();
        poll_fn(|cx| {
            assert!(direction.poll(cx, &mut socket, &mut far, |_| ()).is_pending());
            Poll::Ready(())
        })
        .await;
        if writes {
            client.write_all(b"x").await.unwrap();
        } else {
            client.shutdown().await.unwrap();
        }
        let ended = within(poll_fn(|cx| direction.poll(cx, &mut socket, &mut far, |_| ()))).await;
        assert_eq!(ended.err().map(|error| error.kind()), writes.then_some(ErrorKind::ConnectionReset));
    }
}
