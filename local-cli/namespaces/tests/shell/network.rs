use std::{
    fs,
    io::Read,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use devproxy_namespaces::{Family, Kind, Side};

use crate::{
    bed::{self, POD4, POD6, Session, as_user},
    catcher::{self, HELD, Held},
};

struct Served {
    session: Session,
    gateway: Arc<Held>,
    shell: Arc<Held>,
    queue: Arc<OwnedFd>,
}

fn served() -> Served {
    let (session, sockets) = Session::start();
    let runtime = session.runtime.handle();
    let (gateway, queue) = catcher::serve(sockets.gateway, &session.namespaces, runtime);
    let (shell, _) = catcher::serve(sockets.shell, &session.namespaces, runtime);
    Served { session, gateway, shell, queue }
}

#[test]
fn a_connection_out_sees_its_true_peer() {
    as_user("network::a_connection_out_sees_its_true_peer", || {
        let served = served();
        for (target, pod) in [("10.96.0.50:80", IpAddr::from(POD4)), ("[fd00:96::50]:80", POD6.into())] {
            let said = served.session.run(&["connect", target]);
            assert!(said.starts_with(&format!("peer {target} ")), "{said}");
            assert!(
                said.contains(
                    &format!("said caught {target} from {}", SocketAddr::new(pod, 1)).replace(":1", ":")
                ),
                "{said}"
            );
        }
        // At least: on a busy machine a SYN is sent again.
        assert!(served.gateway.seen(80) >= 2 && served.shell.seen(80) == 0);
    });
}

#[test]
fn a_syn_is_held_until_the_verdict() {
    as_user("network::a_syn_is_held_until_the_verdict", || {
        let served = served();
        std::thread::scope(|scope| {
            let target = format!("10.96.0.50:{HELD}");
            let session = &served.session;
            let client = scope.spawn(move || session.run(&["connect", &target]));
            served.gateway.wait_for(HELD, 1);
            assert!(!client.is_finished());
            served.gateway.release(&served.queue);
            assert!(client.join().unwrap().contains("said caught 10.96.0.50:90 from"));
        });
    });
}

#[test]
fn thousands_of_held_connections_all_get_through() {
    as_user("network::thousands_of_held_connections_all_get_through", || {
        let served = served();
        let count = 3000;
        std::thread::scope(|scope| {
            let session = &served.session;
            let client = scope.spawn(move || session.run(&["flood", "[fd00:96::50]:90", &count.to_string()]));
            served.gateway.wait_for(HELD, count);
            served.gateway.release(&served.queue);
            assert_eq!(client.join().unwrap(), format!("connected {count}"));
        });
    });
}

#[test]
fn loopback_and_the_pods_address_are_caught_where_nobody_listens() {
    as_user("network::loopback_and_the_pods_address_are_caught_where_nobody_listens", || {
        let served = served();
        let targets =
            ["127.0.0.1:5432", "[::1]:5432", "10.244.9.9:5432", "[fd00:244::9]:5432", "127.0.0.53:5432"];
        for target in targets {
            let said = served.session.run(&["connect", target]);
            assert!(
                said.contains(&format!("peer {target} ")) && said.contains("said caught"),
                "{target}: {said}"
            );
        }
        assert!(served.shell.seen(5432) >= targets.len() && served.gateway.seen(5432) == 0);
    });
}

#[test]
fn a_local_listener_wins_on_loopback() {
    as_user("network::a_local_listener_wins_on_loopback", || {
        let served = served();
        let only = served.session.keep(&["serve", "127.0.0.1:5432"]);
        assert!(only.line.starts_with("listening"), "{}", only.line);
        assert!(served.session.run(&["connect", "127.0.0.1:5432"]).contains("program sees 127.0.0.1:"));
        // The pod's address is another one: nobody listens there.
        assert!(served.session.run(&["connect", "10.244.9.9:5432"]).contains("said caught"));
        // A wildcard listener answers on both, but never for a remote address; port 80 needs no right.
        let all = served.session.keep(&["serve", "[::]:80"]);
        assert!(all.line.starts_with("listening"), "{}", all.line);
        for target in ["127.0.0.1:80", "[::1]:80", "10.244.9.9:80", "[fd00:244::9]:80"] {
            let said = served.session.run(&["connect", target]);
            assert!(said.contains("program sees"), "{target}: {said}");
        }
        assert!(served.session.run(&["connect", "10.96.0.50:80"]).contains("said caught"));
        assert_eq!(served.shell.seen(80), 0);
    });
}

#[test]
fn a_datagram_shows_its_destination_and_is_answered_from_there() {
    as_user("network::a_datagram_shows_its_destination_and_is_answered_from_there", || {
        let served = served();
        for target in [
            "10.96.0.10:53",
            "[fd00:96::10]:53",
            "127.0.0.1:53",
            "[::1]:53",
            "10.244.9.9:53",
            "[fd00:244::9]:53",
        ] {
            for size in ["0", "8", "1423", "60000"] {
                let said = served.session.run(&["ask", target, size]);
                assert_eq!(said, format!("from {target} said {target} got {size}"));
            }
        }
    });
}

#[test]
fn a_client_from_the_cluster_is_seen_with_its_own_address() {
    as_user("network::a_client_from_the_cluster_is_seen_with_its_own_address", || {
        let served = served();
        let _wild = served.session.keep(&["serve", "[::]:80"]);
        let _only4 = served.session.keep(&["serve", "127.0.0.1:3000"]);
        let _only6 = served.session.keep(&["serve", "[::1]:3001"]);
        for (side, client, target) in [
            (Side::Gateway, "10.244.0.77:41000", "10.244.9.9:80"),
            (Side::Gateway, "[fd00:244::77]:41000", "[fd00:244::9]:80"),
            (Side::Shell, "10.244.0.77:41000", "127.0.0.1:3000"),
            (Side::Shell, "[fd00:244::77]:41000", "[::1]:3001"),
            (Side::Shell, "127.0.0.1:41000", "127.0.0.1:3000"),
            (Side::Shell, "10.244.9.9:41000", "10.244.9.9:80"),
        ] {
            let said = served.inbound(side, client.parse().unwrap(), target.parse().unwrap());
            // A dual-stack listener sees IPv4 clients as mapped addresses.
            let said = said
                .replace("[::ffff:10.244.0.77]", "10.244.0.77")
                .replace("[::ffff:10.244.9.9]", "10.244.9.9");
            assert_eq!(said, format!("program sees {client}"), "{side:?} {target}");
        }
    });
}

impl Served {
    fn inbound(&self, side: Side, client: SocketAddr, target: SocketAddr) -> String {
        let family = if client.is_ipv4() { Family::V4 } else { Family::V6 };
        let made = self
            .session
            .runtime
            .block_on(self.session.namespaces.sockets(side, family, Kind::Tcp, 3))
            .unwrap();
        assert_eq!(made.len(), 3);
        let socket = socket2::Socket::from(made.into_iter().next().unwrap());
        socket.set_nonblocking(false).unwrap();
        socket.bind(&client.into()).unwrap();
        socket.connect_timeout(&target.into(), Duration::from_secs(10)).unwrap();
        let mut said = String::new();
        TcpStream::from(socket).read_to_string(&mut said).unwrap();
        said
    }
}

#[test]
fn the_same_port_connects_again_at_once() {
    as_user("network::the_same_port_connects_again_at_once", || {
        let served = served();
        for target in ["10.96.0.50:80", "127.0.0.1:5432"] {
            for _ in 0..3 {
                // The catcher closes first and keeps TIME_WAIT: the next SYN must reach the listener all the same.
                let said = served.session.run(&["connect-from", "7979", target]);
                assert!(said.contains(&format!("said caught {target}")), "{said}");
            }
        }
    });
}

#[test]
fn without_an_ipv6_address_the_network_is_unreachable_but_loopback_is_not() {
    as_user("network::without_an_ipv6_address_the_network_is_unreachable_but_loopback_is_not", || {
        let (session, sockets) = Session::with(&bed::spec(&[POD4.into()]));
        assert!(sockets.gateway.tcp6.is_none() && sockets.shell.tcp6.is_some());
        let _shell = catcher::serve(sockets.shell, &session.namespaces, session.runtime.handle());
        let said = session.run(&["connect", "[fd00:96::50]:80"]);
        assert!(said.starts_with(&format!("error {} ", nix::libc::ENETUNREACH)), "{said}");
        assert!(session.run(&["connect", "[::1]:80"]).contains("said caught"));
    });
}

#[test]
fn the_laptops_network_stays_as_it_is() {
    as_user("network::the_laptops_network_stays_as_it_is", || {
        let state = || {
            let devices = fs::read_to_string("/proc/net/dev").unwrap();
            let links: Vec<_> = devices
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, _)| name.to_owned())
                .collect();
            let read = |path: &str| fs::read(path).unwrap_or_default();
            let files = ["/proc/net/route", "/proc/net/ipv6_route", "/etc/resolv.conf", "/etc/hosts"];
            (links, files.map(read))
        };
        let (before, mounts) = (state(), bed::mounts());
        let served = served();
        assert!(served.session.run(&["connect", "10.96.0.50:80"]).contains("said caught"));
        assert_eq!(state(), before);
        assert!(bed::mounts().is_subset(&mounts));
        drop(served);
        assert_eq!(state(), before);
        assert!(bed::mounts().is_subset(&mounts));
    });
}
