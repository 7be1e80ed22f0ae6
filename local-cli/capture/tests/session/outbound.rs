//! What the program dials.

use std::sync::atomic::Ordering;

use devproxy_capture::LocalRoutes;
use devproxy_tunnel::Tunnel;

use crate::{
    agent::{
        AFTER_END, ECHO, ENDING, HOST_UNREACHABLE, NETWORK_UNREACHABLE, OPEN, PROHIBITED, REFUSED, RESETTING,
        SILENT, SLOW, pair,
    },
    bed::{POD4, POD6, Session, as_user, settings},
};

const REMOTE: [&str; 2] = ["10.96.0.50", "[fd00:96::50]"];

#[test]
fn each_refusal_is_the_errno_of_the_pod() {
    as_user("outbound::each_refusal_is_the_errno_of_the_pod", || {
        let session = Session::start();
        for host in REMOTE {
            let v6 = host.starts_with('[');
            for (port, errno) in [
                (REFUSED, "ECONNREFUSED"),
                (HOST_UNREACHABLE, "EHOSTUNREACH"),
                (NETWORK_UNREACHABLE, "ENETUNREACH"),
                (PROHIBITED, if v6 { "EACCES" } else { "EHOSTUNREACH" }),
            ] {
                let said = session.run(&["connect", &format!("{host}:{port}")]);
                assert!(said.starts_with(&format!("error {errno}")), "{host}:{port}: {said}");
            }
            let said = session.run(&["connect-within", "2500", &format!("{host}:{SILENT}")]);
            assert_eq!(said, "silence", "{host}");
        }
        let dials = session.pair.seen.dials.load(Ordering::Relaxed);
        assert_eq!(dials, 10, "retransmitted SYNs are not dialled again");
    });
}

#[test]
fn the_peer_is_the_dialled_target() {
    as_user("outbound::the_peer_is_the_dialled_target", || {
        let session = Session::start();
        for host in REMOTE.into_iter().chain([
            "127.0.0.1",
            "[::1]",
            "127.0.0.53",
            &POD4.to_string(),
            &format!("[{POD6}]"),
        ]) {
            let target = format!("{host}:{OPEN}");
            assert_eq!(session.run(&["connect", &target]), format!("peer {target} said tunnel {target}"));
        }
        let target = format!("10.96.0.50:{SLOW}");
        assert_eq!(session.run(&["connect", &target]), format!("peer {target} said tunnel {target}"));
        assert_eq!(session.pair.seen.dials.load(Ordering::Relaxed), 8);
        assert_eq!(session.capture.counters().outbound.load(Ordering::Relaxed), 8);
    });
}

#[test]
fn a_local_listener_wins_on_loopback_only() {
    as_user("outbound::a_local_listener_wins_on_loopback_only", || {
        let session = Session::start();
        let _wide = session.keep(&["serve", "0.0.0.0:80"]);
        for host in ["127.0.0.1".to_owned(), POD4.to_string()] {
            let said = session.run(&["half-close", &format!("{host}:80")]);
            assert!(said.contains("sees"), "{host}: {said}");
        }
        let said = session.run(&["connect", "10.96.0.50:80"]);
        assert!(said.contains("tunnel 10.96.0.50:80"), "{said}");
    });
}

#[test]
fn a_port_that_only_the_agent_holds_for_us_is_refused() {
    as_user("outbound::a_port_that_only_the_agent_holds_for_us_is_refused", || {
        let session = Session::start();
        session.capture.set_handover(true);
        let mut ports = session.capture.pod_ports();
        session.wait(async { ports.wait_for(|open| !open.is_empty()).await.map(drop) }).unwrap();
        let said = session.run(&["connect", "127.0.0.1:8080"]);
        assert!(said.starts_with("error ECONNREFUSED"), "{said}");
        assert_eq!(session.pair.seen.dials.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn half_close_and_reset_pass_both_ways() {
    as_user("outbound::half_close_and_reset_pass_both_ways", || {
        let session = Session::start();
        for host in REMOTE.into_iter().chain(["127.0.0.1"]) {
            let said = session.run(&["half-close", &format!("{host}:{AFTER_END}")]);
            assert!(said.ends_with("said question answered"), "{host}: {said}");
            let said = session.run(&["half-close", &format!("{host}:{RESETTING}")]);
            assert!(said.starts_with("error ECONNRESET"), "{host}: {said}");
            assert_eq!(session.run(&["abort", &format!("{host}:{ENDING}")]), "reset");
        }
        session.wait(async {
            while session.pair.seen.endings.lock().unwrap().len() < 3 {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(*session.pair.seen.endings.lock().unwrap(), ["ConnectionReset"; 3]);
    });
}

#[test]
fn many_connections_at_once_all_succeed() {
    as_user("outbound::many_connections_at_once_all_succeed", || {
        let session = Session::start();
        for host in REMOTE.into_iter().chain(["127.0.0.1"]) {
            assert_eq!(session.run(&["many", "250", &format!("{host}:{ECHO}")]), "250 of 250", "{host}");
        }
    });
}

#[test]
fn a_long_copy_is_exact() {
    as_user("outbound::a_long_copy_is_exact", || {
        let session = Session::start();
        let length = 64 << 20;
        let said = session.run(&["bulk", &length.to_string(), &format!("10.96.0.50:{ECHO}")]);
        assert_eq!(said, format!("{length} bytes, 0 wrong"));
    });
}

#[test]
fn listed_networks_leave_by_the_laptop() {
    as_user("outbound::listed_networks_leave_by_the_laptop", || {
        let local = LocalRoutes::parse(["127.0.0.9/32"]).unwrap();
        let session = Session::with(devproxy_capture::CaptureSettings { local, ..settings() });
        let laptop = std::net::TcpListener::bind("127.0.0.9:0").unwrap();
        let target = laptop.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            use std::io::Write;
            laptop.accept().unwrap().0.write_all(b"the laptop")
        });
        assert_eq!(session.run(&["connect", &target.to_string()]), format!("peer {target} said the laptop"));
        serving.join().unwrap().unwrap();
        let said = session.run(&["connect", &target.to_string()]);
        assert!(said.starts_with("error ECONNREFUSED"), "{said}");
        assert_eq!(session.pair.seen.dials.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_lost_tunnel_pauses_new_connections_and_resets_old_ones() {
    as_user("outbound::a_lost_tunnel_pauses_new_connections_and_resets_old_ones", || {
        let mut session = Session::start();
        assert!(session.run(&["connect", "10.96.0.50:80"]).contains("tunnel"));
        session.pair.tasks.abort_all();
        let (next, _incoming) = session.wait(async {
            session.pair.laptop.closed().await;
            pair().await
        });
        let (capture, laptop): (_, Tunnel) = (session.capture.clone(), next.laptop.clone());
        session.tasks.spawn_on(
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                capture.set_tunnel(laptop);
            },
            session.runtime.handle(),
        );
        let said = session.run(&["connect", "10.96.0.50:80"]);
        assert!(said.contains("tunnel 10.96.0.50:80"), "{said}");
        assert_eq!(next.seen.dials.load(Ordering::Relaxed), 1);
    });
}
