//! The raw sockets of one side, through which the program gets its RST and ICMP answers.

use std::{net::SocketAddr, os::fd::OwnedFd};

use devproxy_tunnel::Refusal;
use socket2::{SockAddr, Socket};

use crate::packet::{self, Answer, Syn, Unreachable};

pub(crate) struct Raw {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Raw {
    pub(crate) fn new(v4: Option<OwnedFd>, v6: Option<OwnedFd>) -> Self {
        Self { v4: v4.map(Socket::from), v6: v6.map(Socket::from) }
    }

    /// Answers a SYN (`original` begins with its IP header) with what the pod's kernel said. Silence for a time-out:
    /// the program's own kernel ends it.
    pub(crate) fn refuse(&self, syn: &Syn, original: &[u8], why: Refusal) {
        let answer = match unreachable(why) {
            Some(why) => packet::unreachable(original, why),
            None if why == Refusal::TimedOut => None,
            None => Some(packet::reset(syn)),
        };
        if let Some(answer) = answer {
            self.send(&answer);
        }
    }

    /// Answers a datagram of `length` bytes. Silence where UDP knows no answer.
    pub(crate) fn refuse_datagram(
        &self,
        program: SocketAddr,
        target: SocketAddr,
        length: usize,
        why: Refusal,
    ) {
        let why = match why {
            Refusal::Refused => Some(Unreachable::Port),
            other => unreachable(other),
        };
        let answer =
            why.and_then(|why| packet::unreachable(&packet::udp_head(program, target, length)?, why));
        if let Some(answer) = answer {
            self.send(&answer);
        }
    }

    fn send(&self, answer: &Answer) {
        let socket = if answer.to.is_ipv4() { &self.v4 } else { &self.v6 };
        let Some(socket) = socket else { return };
        // Port 0: an IPv6 raw socket refuses any other.
        if let Err(error) = socket.send_to(&answer.bytes, &SockAddr::from(SocketAddr::new(answer.to, 0))) {
            tracing::debug!(%error, to = %answer.to, "an answer could not be sent");
        }
    }
}

fn unreachable(why: Refusal) -> Option<Unreachable> {
    match why {
        Refusal::HostUnreachable => Some(Unreachable::Host),
        Refusal::NetworkUnreachable => Some(Unreachable::Network),
        Refusal::Prohibited => Some(Unreachable::Prohibited),
        Refusal::Refused
        | Refusal::TimedOut
        | Refusal::Unsupported
        | Refusal::Overloaded
        | Refusal::Closed => None,
    }
}
