//! UDP and DNS.

use std::sync::atomic::Ordering;

use crate::{
    agent::{ECHO, REFUSED, pair},
    bed::{NAMESERVER, POD4, Session, as_user},
};

#[test]
fn datagrams_of_all_lengths_are_answered_from_their_target() {
    as_user("datagrams::datagrams_of_all_lengths_are_answered_from_their_target", || {
        let session = Session::start();
        for host in ["10.96.0.50", "[fd00:96::50]", "127.0.0.1", "[::1]", &POD4.to_string()] {
            for length in ["0", "8", "1400", "8000", "60000"] {
                let said = session.run(&["datagram", length, &format!("{host}:{ECHO}")]);
                assert_eq!(said, format!("{length} bytes, the same\n{length} bytes, the same"), "{host}");
            }
            let said = session.run(&["datagrams", "100", &format!("{host}:{ECHO}")]);
            assert_eq!(said, "100 of 100", "{host}");
        }
    });
}

#[test]
fn a_closed_udp_port_is_refused() {
    as_user("datagrams::a_closed_udp_port_is_refused", || {
        let session = Session::start();
        for host in ["10.96.0.50", "[fd00:96::50]", "127.0.0.1", "[::1]"] {
            let said = session.run(&["datagram", "8", &format!("{host}:{REFUSED}")]);
            assert!(said.starts_with("error ECONNREFUSED"), "{host}: {said}");
        }
    });
}

#[test]
fn questions_to_the_nameserver_share_flows_of_their_own_kind() {
    as_user("datagrams::questions_to_the_nameserver_share_flows_of_their_own_kind", || {
        let session = Session::start();
        let server = format!("{NAMESERVER}:53");
        for _ in 0..2 {
            assert_eq!(session.run(&["datagrams", "200", &server]), "200 of 200");
        }
        assert_eq!(session.capture.counters().questions.load(Ordering::Relaxed), 400);
        let flows = session.pair.seen.dns.load(Ordering::Relaxed);
        assert_eq!(flows, 1);
        let said = session.run(&["datagram", "30", "10.96.0.11:53"]);
        assert!(said.starts_with("error ECONNREFUSED"), "another server is plain UDP: {said}");
    });
}

#[test]
fn a_known_answer_is_given_without_the_agent_until_there_is_another_tunnel() {
    as_user("datagrams::a_known_answer_is_given_without_the_agent_until_there_is_another_tunnel", || {
        let session = Session::start();
        let server = format!("{NAMESERVER}:53");
        assert_eq!(session.run(&["ask", "3", &server]), "1 1 1");
        assert_eq!(session.run(&["ask", "1", &server]), "1", "another program");
        let (next, _incoming) = session.wait(pair());
        session.capture.set_tunnel(next.laptop.clone());
        // Nothing tells when the session knows it: until then the old answer is given.
        session.wait(async {
            while next.seen.questions.load(Ordering::Relaxed) == 0 {
                session.run(&["ask", "1", &server]);
            }
        });
        assert_eq!(session.run(&["ask", "2", &server]), "1 1");
        assert_eq!(session.pair.seen.questions.load(Ordering::Relaxed), 1);
        assert_eq!(next.seen.questions.load(Ordering::Relaxed), 1);
        assert!(session.capture.counters().cached.load(Ordering::Relaxed) >= 5);
    });
}
