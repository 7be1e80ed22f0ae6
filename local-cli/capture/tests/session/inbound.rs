//! What clients of the cluster see.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use devproxy_capture::{CaptureSettings, PortRules};
use devproxy_tunnel::{
    Flow, Open, Refusal,
    control::{PodPort, Protocol, Scope},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::bed::{POD4, POD6, Session, as_user, settings};

const CLIENT4: &str = "10.244.0.77:41000";
const CLIENT6: &str = "[fd00:244::77]:41000";

fn inbound(client: &str, port: u16) -> Open {
    let client: SocketAddr = client.parse().unwrap();
    let local = if client.is_ipv4() { (POD4, port).into() } else { (POD6, port).into() };
    Open::Inbound { client, local }
}

/// Says something, ends its direction, hears all.
async fn converse(flow: Result<Flow, Refusal>) -> Result<String, Refusal> {
    let mut flow = flow?;
    flow.write_all(b"hello").await.unwrap();
    flow.shutdown().await.unwrap();
    let mut heard = String::new();
    flow.read_to_string(&mut heard).await.unwrap();
    Ok(heard)
}

fn hear(session: &Session, open: Open) -> Result<String, Refusal> {
    session.wait(async { converse(session.pair.agent.open(open).await).await })
}

#[test]
fn the_program_sees_the_true_client() {
    as_user("inbound::the_program_sees_the_true_client", || {
        let session = Session::start();
        let _program = session.keep(&["serve", "[::]:8080"]);
        // A second connection with the same source: the first one is in TIME_WAIT at one of the ends.
        for _ in 0..2 {
            let heard = hear(&session, inbound(CLIENT6, 8080)).unwrap();
            assert_eq!(heard, format!("[{POD6}]:8080 sees {CLIENT6}\nhello"));
        }
        let heard = hear(&session, inbound(CLIENT4, 8080)).unwrap();
        assert_eq!(heard, format!("[::ffff:{POD4}]:8080 sees [::ffff:10.244.0.77]:41000\nhello"));
        assert_eq!(session.capture.counters().inbound.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn a_program_on_loopback_is_reached_too() {
    as_user("inbound::a_program_on_loopback_is_reached_too", || {
        let session = Session::start();
        let _v4 = session.keep(&["serve", "127.0.0.1:8080"]);
        let heard = hear(&session, inbound(CLIENT4, 8080)).unwrap();
        assert_eq!(heard, format!("127.0.0.1:8080 sees {CLIENT4}\nhello"));
        let heard = hear(&session, inbound(CLIENT6, 8080)).unwrap();
        assert!(heard.starts_with("127.0.0.1:8080 sees 127.0.0.1:"), "{heard}");
        let _v6 = session.keep(&["serve", "[::1]:8081"]);
        let heard = hear(&session, inbound(CLIENT6, 8081)).unwrap();
        assert_eq!(heard, format!("[::1]:8081 sees {CLIENT6}\nhello"));
        let inside = Open::Inbound {
            client: "127.0.0.1:41000".parse().unwrap(),
            local: "127.0.0.1:8080".parse().unwrap(),
        };
        assert_eq!(hear(&session, inside).unwrap(), "127.0.0.1:8080 sees 127.0.0.1:41000\nhello");
    });
}

#[test]
fn the_pod_itself_is_a_client_like_another() {
    as_user("inbound::the_pod_itself_is_a_client_like_another", || {
        let session = Session::start();
        let _program = session.keep(&["serve", "0.0.0.0:8080"]);
        let own = format!("{POD4}:41000");
        assert_eq!(hear(&session, inbound(&own, 8080)).unwrap(), format!("{POD4}:8080 sees {own}\nhello"));
    });
}

#[test]
fn a_mapped_port_is_served_by_the_programs_own() {
    as_user("inbound::a_mapped_port_is_served_by_the_programs_own", || {
        let ports = PortRules { mappings: vec!["80:3000".parse().unwrap()], ..PortRules::default() };
        let session = Session::with(CaptureSettings { ports, ..settings() });
        let _program = session.keep(&["serve", "0.0.0.0:3000"]);
        let heard = hear(&session, inbound(CLIENT4, 80)).unwrap();
        assert_eq!(heard, format!("{POD4}:3000 sees {CLIENT4}\nhello"));
    });
}

#[test]
fn connections_wait_for_a_listener() {
    as_user("inbound::connections_wait_for_a_listener", || {
        let session = Session::start();
        let mut clients = JoinSet::new();
        for n in 0..200_u16 {
            let agent = session.pair.agent.clone();
            let client = format!("10.244.0.77:{}", 42_000 + n);
            clients.spawn_on(
                async move { converse(agent.open(inbound(&client, 8080)).await).await },
                session.runtime.handle(),
            );
        }
        let counters = session.capture.clone();
        session.wait(async {
            while counters.counters().held.load(Ordering::Relaxed) < 200 {
                tokio::task::yield_now().await;
            }
        });
        let program = session.keep(&["serve", "0.0.0.0:8080"]);
        let heard = session.wait(async {
            let mut heard = Vec::new();
            while let Some(one) = clients.join_next().await {
                heard.push(one.unwrap().unwrap());
            }
            heard
        });
        assert_eq!(heard.len(), 200);
        drop(program);
        // It has gone: the next one waits again, and is served by the next program.
        let agent = session.pair.agent.clone();
        clients.spawn_on(
            async move { converse(agent.open(inbound(CLIENT4, 8080)).await).await },
            session.runtime.handle(),
        );
        let _next = session.keep(&["serve", "0.0.0.0:8080"]);
        let late = session.wait(clients.join_next()).unwrap().unwrap().unwrap();
        assert!(late.contains("sees"), "{late}");
    });
}

#[test]
fn a_program_that_restarts_loses_nobody_in_its_queue() {
    as_user("inbound::a_program_that_restarts_loses_nobody_in_its_queue", || {
        let session = Session::start();
        let stuck = session.keep(&["stall", "0.0.0.0:8080"]);
        let mut clients = JoinSet::new();
        for n in 0..50_u16 {
            let agent = session.pair.agent.clone();
            let client = format!("10.244.0.77:{}", 42_000 + n);
            clients.spawn_on(
                async move { converse(agent.open(inbound(&client, 8080)).await).await },
                session.runtime.handle(),
            );
        }
        let mut listeners = session.capture.listeners();
        session.wait(async {
            while session.capture.counters().held.load(Ordering::Relaxed) < 50 {
                tokio::task::yield_now().await;
            }
            listeners.wait_for(|all| all.on(Protocol::Tcp, 8080).next().is_some()).await.map(drop).unwrap();
        });
        drop(stuck);
        let _program = session.keep(&["serve", "0.0.0.0:8080"]);
        session.wait(async {
            while let Some(one) = clients.join_next().await {
                assert!(one.unwrap().unwrap().contains("sees"));
            }
        });
    });
}

#[test]
fn restarts_under_load_lose_no_connection() {
    as_user("inbound::restarts_under_load_lose_no_connection", || {
        let session = Session::start();
        let mut program = session.keep(&["serve", "0.0.0.0:8080"]);
        let mut clients = JoinSet::new();
        let served = Arc::new(AtomicUsize::new(0));
        for worker in 0..8_u16 {
            let (agent, served) = (session.pair.agent.clone(), Arc::clone(&served));
            clients.spawn_on(
                async move {
                    for n in 0..100_u16 {
                        let client = format!("10.244.0.77:{}", 20_000 + worker * 100 + n);
                        let heard = converse(agent.open(inbound(&client, 8080)).await).await.unwrap();
                        assert_eq!(heard, format!("{POD4}:8080 sees {client}\nhello"));
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                },
                session.runtime.handle(),
            );
        }
        for restart in 1..=3 {
            session.wait(async {
                while served.load(Ordering::Relaxed) < restart * 150 {
                    tokio::task::yield_now().await;
                }
            });
            drop(program);
            program = session.keep(&["serve", "0.0.0.0:8080"]);
        }
        session.wait(async {
            while let Some(worker) = clients.join_next().await {
                worker.unwrap();
            }
        });
        assert_eq!(served.load(Ordering::Relaxed), 800);
    });
}

#[test]
fn a_connection_that_waited_too_long_is_refused() {
    as_user("inbound::a_connection_that_waited_too_long_is_refused", || {
        let session = Session::with(CaptureSettings { hold: Duration::from_millis(300), ..settings() });
        assert_eq!(hear(&session, inbound(CLIENT4, 8080)), Err(Refusal::Refused));
        assert_eq!(session.capture.counters().held.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn mirrored_datagrams_come_from_the_client() {
    as_user("inbound::mirrored_datagrams_come_from_the_client", || {
        let session = Session::start();
        for (address, client) in [("0.0.0.0:9090", CLIENT4), ("[::1]:9091", CLIENT6)] {
            let _program = session.keep(&["serve-datagrams", address]);
            let port = address.rsplit(':').next().unwrap().parse().unwrap();
            let mut listeners = session.capture.listeners();
            session.wait(async {
                listeners
                    .wait_for(|all| all.on(Protocol::Udp, port).next().is_some())
                    .await
                    .map(drop)
                    .unwrap();
            });
            let Open::Inbound { client: from, local } = inbound(client, port) else { unreachable!() };
            let heard = session.wait(async {
                let flow = session
                    .pair
                    .agent
                    .open_datagrams(Open::InboundUdp { client: from, local })
                    .await
                    .unwrap();
                flow.send(Bytes::from_static(b"metric")).await.unwrap();
                flow.recv().await.unwrap()
            });
            assert_eq!(heard, format!("sees {client}: metric").as_bytes());
        }
    });
}

#[test]
fn ports_follow_what_listens() {
    as_user("inbound::ports_follow_what_listens", || {
        let session = Session::start();
        let mut ports = session.capture.pod_ports();
        let wide = PodPort { protocol: Protocol::Tcp, scope: Scope::Pod, port: 50_051 };
        let near = PodPort { protocol: Protocol::Tcp, scope: Scope::Loopback, port: 26_061 };
        assert!(ports.borrow().is_empty(), "our own catchers are no listeners: {:?}", ports.borrow());
        let program = session.keep(&["serve", "[::]:50051"]);
        session.wait(async { ports.wait_for(|open| *open == [wide].into()).await.map(drop) }).unwrap();
        let listeners = session.capture.listeners().borrow().clone();
        let inode = listeners.on(Protocol::Tcp, 50_051).next().unwrap().inode;
        assert!(devproxy_capture::listeners::owner(inode).unwrap().is_some());
        drop(program);
        session.wait(async { ports.wait_for(BTreeSet::is_empty).await.map(drop) }).unwrap();
        let mut notices = session.capture.notices();
        let _near = session.keep(&["serve", "127.0.0.1:26061"]);
        session.wait(async { ports.wait_for(|open| *open == [near].into()).await.map(drop) }).unwrap();
        let notice = session.wait(notices.recv()).unwrap();
        assert_eq!(notice.to_string(), "127.0.0.1:26061 on this machine reaches the program");
        let heard = session.wait(async {
            let mut laptop = TcpStream::connect("127.0.0.1:26061").await.unwrap();
            laptop.write_all(b"debug").await.unwrap();
            laptop.shutdown().await.unwrap();
            let mut heard = String::new();
            laptop.read_to_string(&mut heard).await.unwrap();
            heard
        });
        assert!(heard.starts_with("127.0.0.1:26061 sees 127.0.0.1:") && heard.ends_with("debug"), "{heard}");
    });
}
