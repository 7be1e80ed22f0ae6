//! The tunnel over in-memory carriers.

mod support;

use std::io::ErrorKind;

use bytes::Bytes;
use devproxy_tunnel::{Carrier, Open, Refusal, Role, SessionKey, Tunnel, TunnelId};
use support::{Ends, pattern, target, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

#[tokio::test]
async fn bulk_arrives_whole_in_both_directions() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.flow().await;
    let sent = pattern(8 << 20);
    let mut tasks = JoinSet::new();
    for flow in [near, far] {
        let sent = sent.clone();
        tasks.spawn(async move {
            let (mut read, mut write) = tokio::io::split(flow);
            let mut got = Vec::new();
            let ((), end) = tokio::join!(
                async {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                },
                read.read_to_end(&mut got)
            );
            end.unwrap();
            assert!(got == sent, "bytes differ");
        });
    }
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
}

#[tokio::test]
async fn half_close_leaves_the_other_direction_open() {
    let mut ends = Ends::new().await;
    let (mut near, mut far) = ends.flow().await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut got = String::new();
    within(far.read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    got.clear();
    within(near.read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "answer");
    assert_eq!(near.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_was_written_before_a_reset_is_read_before_it() {
    let mut ends = Ends::new().await;
    // As much as leaves on the home lane, and as much as goes on on a bulk lane.
    for count in [6, 100_000] {
        let (mut near, mut far) = ends.flow().await;
        let sent = pattern(count);
        near.write_all(&sent).await.unwrap();
        drop(near);
        let mut got = vec![0; count];
        within(far.read_exact(&mut got)).await.unwrap();
        assert!(got == sent);
        assert_eq!(within(far.read(&mut got)).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn dropping_an_unfinished_flow_resets_it_which_is_an_error_on_read_and_write_and_never_an_end() {
    let mut ends = Ends::new().await;
    let (near, mut far) = ends.flow().await;
    drop(near);
    assert_eq!(within(far.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(far.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_flow_dropped_after_shutdown_still_delivers_and_stops_the_other_writer() {
    let mut ends = Ends::new().await;
    let (mut near, mut far) = ends.flow().await;
    let sent = pattern(100_000);
    near.write_all(&sent).await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    let mut got = Vec::new();
    within(far.read_to_end(&mut got)).await.unwrap();
    assert!(got == sent);
    within(async {
        let error = loop {
            match far.write(&[0; 1024]).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    })
    .await;
}

#[tokio::test]
async fn every_refusal_reaches_the_opener() {
    let mut ends = Ends::new().await;
    for why in [
        Refusal::Refused,
        Refusal::HostUnreachable,
        Refusal::NetworkUnreachable,
        Refusal::Prohibited,
        Refusal::TimedOut,
        Refusal::Unsupported,
        Refusal::Overloaded,
        Refusal::Closed,
    ] {
        let (answer, ()) = tokio::join!(ends.laptop.open(target()), async {
            ends.agent_incoming.next().await.unwrap().refuse(why);
        });
        assert_eq!(answer.unwrap_err(), why);
    }
    let (answer, ()) = tokio::join!(ends.laptop.open(target()), async {
        drop(ends.agent_incoming.next().await.unwrap());
    });
    assert_eq!(answer.unwrap_err(), Refusal::Closed);
}

#[tokio::test]
async fn a_request_hears_that_its_opener_gave_up() {
    let mut ends = Ends::new().await;
    let laptop = ends.laptop.clone();
    let mut opener = JoinSet::new();
    opener.spawn(async move { laptop.open(target()).await });
    let request = within(ends.agent_incoming.next()).await.unwrap();
    assert_eq!(*request.open(), target());
    opener.shutdown().await;
    within(request.cancelled()).await;
    let mut flow = request.accept();
    assert_eq!(within(flow.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn opens_that_nobody_takes_are_refused_as_overloaded() {
    let mut ends = Ends::new().await;
    let mut openers = JoinSet::new();
    for _ in 0..1100 {
        let laptop = ends.laptop.clone();
        openers.spawn(async move { laptop.open(target()).await });
    }
    for _ in 0..1100 - 1024 {
        let refused = within(openers.join_next()).await.unwrap().unwrap();
        assert_eq!(refused.unwrap_err(), Refusal::Overloaded);
    }
    let request = within(ends.agent_incoming.next()).await.unwrap();
    request.accept();
}

#[tokio::test]
async fn datagrams_keep_their_bounds_and_order() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.datagrams().await;
    for size in [0, 1, 1200, 9000, 65_507] {
        near.send(Bytes::from(pattern(size))).await.unwrap();
        assert!(within(far.recv()).await.unwrap() == pattern(size));
        far.send(Bytes::from(pattern(size))).await.unwrap();
        assert!(within(near.recv()).await.unwrap() == pattern(size));
    }
    assert_eq!(near.send(Bytes::from(vec![0; 65_508])).await, Err(Refusal::Unsupported));
    far.send(Bytes::from_static(b"last words")).await.unwrap();
    far.close(Refusal::Refused);
    assert_eq!(&within(near.recv()).await.unwrap()[..], b"last words");
    assert_eq!(within(near.recv()).await, Err(Refusal::Refused));
    assert_eq!(within(near.send(Bytes::new())).await, Err(Refusal::Refused));
}

#[tokio::test]
async fn datagrams_beyond_the_queue_are_dropped_and_hold_nothing_up() {
    let mut ends = Ends::new().await;
    let (near, far) = ends.datagrams().await;
    for number in 0..2000_u32 {
        within(near.send(Bytes::copy_from_slice(&number.to_le_bytes()))).await.unwrap();
    }
    let (mut stream, mut echo) = ends.flow().await;
    stream.write_all(b"after").await.unwrap();
    within(echo.read_exact(&mut [0; 5])).await.unwrap();
    near.close(Refusal::Closed);
    let mut last = None;
    let mut count = 0;
    while let Ok(datagram) = within(far.recv()).await {
        let number = u32::from_le_bytes(datagram[..].try_into().unwrap());
        assert!(last < Some(number));
        last = Some(number);
        count += 1;
    }
    assert_eq!(count, 256);
}

#[tokio::test]
async fn a_wrong_key_is_refused_at_both_ends() {
    let (near, far) = tokio::io::duplex(4096);
    let wrong = SessionKey::from_bytes([8; SessionKey::LEN]);
    let right = support::key();
    let (near, far) = within(async {
        tokio::join!(Carrier::handshake(near, Role::Laptop, &wrong, TunnelId(1)), async {
            // The agent drops its end when the proof fails, as its accept loop does.
            Carrier::handshake(far, Role::Agent, &right, TunnelId(0)).await
        })
    })
    .await;
    assert_eq!(far.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(near.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_stranger_gets_ten_seconds() {
    let (near, _far) = tokio::io::duplex(4096);
    let key = support::key();
    let error = Carrier::handshake(near, Role::Agent, &key, TunnelId(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_flows_at_once() {
    let ends = Ends::new().await;
    let mut incoming = ends.agent_incoming;
    let mut servers = JoinSet::new();
    servers.spawn(async move {
        let mut echoes = JoinSet::new();
        while let Some(request) = incoming.next().await {
            echoes.spawn(async move {
                let (mut read, mut write) = tokio::io::split(request.accept());
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let mut clients = JoinSet::new();
    for number in 0..1000_usize {
        let laptop = ends.laptop.clone();
        clients.spawn(async move {
            let sent = pattern(number * 37 + 1);
            let (mut read, mut write) = tokio::io::split(laptop.open(target()).await.unwrap());
            let mut got = Vec::new();
            let ((), end) = tokio::join!(
                async {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                },
                read.read_to_end(&mut got)
            );
            end.unwrap();
            assert!(got == sent);
        });
    }
    within(async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_cut_carrier_fails_all_flows_with_an_error() {
    let mut ends = Ends::new().await;
    let (mut near, mut far) = ends.flow().await;
    let (_datagrams, far_datagrams) = ends.datagrams().await;
    near.write_all(b"before").await.unwrap();
    within(far.read_exact(&mut [0; 6])).await.unwrap();
    ends.laptop_driver.abort();
    let _cancelled = within(ends.drivers.join_next()).await;
    let kind = |error: std::io::Error| error.kind();
    assert_eq!(within(near.read(&mut [0; 8])).await.map_err(kind), Err(ErrorKind::ConnectionAborted));
    assert_eq!(within(far.read(&mut [0; 8])).await.map_err(kind), Err(ErrorKind::ConnectionAborted));
    assert_eq!(far.write(b"x").await.map_err(kind), Err(ErrorKind::ConnectionAborted));
    assert_eq!(within(far_datagrams.recv()).await, Err(Refusal::Closed));
    assert!(within(ends.agent_incoming.next()).await.is_none());
    within(ends.agent.closed()).await;
    assert_eq!(ends.agent.open(target()).await.unwrap_err(), Refusal::Closed);
    assert_eq!(ends.end_of(Role::Agent).await.map_err(kind), Err(ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn close_delivers_what_is_queued_and_ends_both_drivers_well() {
    let mut ends = Ends::new().await;
    let (mut near, mut far) = ends.flow().await;
    let sent = pattern(100_000);
    near.write_all(&sent).await.unwrap();
    near.shutdown().await.unwrap();
    ends.laptop.close();
    let mut got = Vec::new();
    within(far.read_to_end(&mut got)).await.unwrap();
    assert!(got == sent);
    ends.end_of(Role::Laptop).await.unwrap();
    assert_eq!(ends.laptop.open(target()).await.unwrap_err(), Refusal::Closed);
    within(ends.agent.closed()).await;
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_tunnel() {
    let mut ends = Ends::new().await;
    let Ends { laptop, laptop_incoming, .. } = ends;
    drop(laptop);
    drop(laptop_incoming);
    let mut ended = 0;
    while let Some(driver) = within(ends.drivers.join_next()).await {
        driver.unwrap().1.unwrap();
        ended += 1;
    }
    assert_eq!(ended, 2);
}

#[tokio::test]
async fn attached_lanes_carry_bulk_in_order() {
    let mut ends = Ends::new().await;
    for _ in 0..3 {
        let (near, far) = support::carriers(TunnelId(7)).await;
        ends.laptop.attach(near).await.unwrap();
        ends.agent.attach(far).await.unwrap();
    }
    let (stranger, _far) = support::carriers(TunnelId(8)).await;
    assert_eq!(ends.laptop.attach(stranger).await, Err(Refusal::Unsupported));
    let sent = support::pattern(2 << 20);
    for _ in 0..8 {
        let (mut near, mut far) = ends.flow().await;
        let mut received = Vec::new();
        let write = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let ((), read) = within(async { tokio::join!(write, far.read_to_end(&mut received)) }).await;
        read.unwrap();
        assert!(received == sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_falls_silent_ends_the_tunnel() {
    let (near, far) = support::carriers(TunnelId(1)).await;
    let (_tunnel, _incoming, drive) = Tunnel::new(Role::Laptop, near);
    // Nobody drives the other end: its carrier stays open and says nothing.
    let error = drive.await.unwrap_err();
    drop(far);
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_round_trip_is_measured_soon_after_the_start() {
    let ends = Ends::new().await;
    within(async {
        while ends.laptop.round_trip().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn kinds_of_flows_are_not_mixed_up() {
    let ends = Ends::new().await;
    assert_eq!(ends.laptop.open(support::udp()).await.unwrap_err(), Refusal::Unsupported);
    assert_eq!(ends.laptop.open_datagrams(target()).await.unwrap_err(), Refusal::Unsupported);
    assert_eq!(
        ends.laptop.open(Open::Files { roots: vec!["x".repeat(20_000)] }).await.unwrap_err(),
        Refusal::Unsupported
    );
}

#[tokio::test]
async fn without_anybody_to_take_them_opens_are_refused() {
    let mut ends = Ends::new().await;
    let early = ends.laptop.clone();
    let mut opener = JoinSet::new();
    opener.spawn(async move { early.open(target()).await });
    let request = within(ends.agent_incoming.next()).await.unwrap();
    drop(ends.agent_incoming);
    request.refuse(Refusal::TimedOut);
    assert_eq!(within(opener.join_next()).await.unwrap().unwrap().unwrap_err(), Refusal::TimedOut);
    assert_eq!(within(ends.laptop.open(target())).await.unwrap_err(), Refusal::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrow_carriers_that_cut_everything_change_nothing() {
    let mut ends = Ends::over(101).await;
    for width in [1, 7, 4096] {
        let (near, far) = tokio::io::duplex(width);
        let (near, far) = support::proved(near, far, TunnelId(7)).await;
        ends.laptop.attach(near).await.unwrap();
        ends.agent.attach(far).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for number in 0..24_usize {
        let (near, far) = ends.flow().await;
        for flow in [near, far] {
            let sent = pattern(number * 1013 + 1);
            tasks.spawn(async move {
                let (mut read, mut write) = tokio::io::split(flow);
                let mut got = Vec::new();
                let ((), end) = tokio::join!(
                    async {
                        write.write_all(&sent).await.unwrap();
                        write.shutdown().await.unwrap();
                    },
                    read.read_to_end(&mut got)
                );
                end.unwrap();
                assert!(got == sent, "bytes differ");
            });
        }
    }
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
}

#[tokio::test]
async fn a_writer_waits_for_its_reader_and_goes_on_with_it() {
    let mut ends = Ends::new().await;
    let (mut near, mut far) = ends.flow().await;
    let sent = pattern(3 << 20);
    let expected = sent.clone();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        near.write_all(&sent).await.unwrap();
        near
    });
    // Another flow passes while the first one stands.
    let (mut other, mut echo) = ends.flow().await;
    for _ in 0..50 {
        other.write_all(&[1; 1000]).await.unwrap();
        within(echo.read_exact(&mut [0; 1000])).await.unwrap();
    }
    assert!(writer.try_join_next().is_none(), "3 MiB cannot have found room");
    let mut got = vec![0; expected.len()];
    within(far.read_exact(&mut got)).await.unwrap();
    assert!(got == expected);
    within(writer.join_next()).await.unwrap().unwrap();
}
