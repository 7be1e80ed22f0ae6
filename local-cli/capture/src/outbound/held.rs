//! The table of connection attempts that the kernel holds for us. Pure: the clock is an argument.

use std::{collections::HashMap, time::Duration};

use devproxy_tunnel::Refusal;
use tokio::time::Instant;

use crate::{packet::Syn, queue::HeldPacket};

/// As many as the kernel's queue may hold.
const ENTRIES: usize = 16_384;
/// A kernel retransmits a SYN for 127 s by default (`tcp_syn_retries` 6).
const SILENCE: Duration = Duration::from_secs(130);
/// A retransmission that crossed the verdict arrives at once; an `accept` ends the entry sooner.
const PASSED: Duration = Duration::from_secs(10);

/// What to do with a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Dial its target.
    New,
    /// Drop it: a retransmission of one that is held, was let pass, or shall stay unanswered.
    Known,
    /// Drop it: too many are held; the program's kernel sends it again.
    Full,
}

#[derive(Default)]
pub(crate) struct Held {
    attempts: HashMap<Syn, Attempt>,
    /// How many of them are being dialled.
    dialling: usize,
}

enum Attempt {
    Dialling(HeldPacket),
    Done { until: Instant },
}

impl Held {
    pub(crate) fn arrive(&mut self, syn: Syn, packet: &HeldPacket, now: Instant) -> Arrival {
        match self.attempts.get(&syn) {
            Some(Attempt::Dialling(_)) => return Arrival::Known,
            Some(Attempt::Done { until }) if *until > now => return Arrival::Known,
            _ => {}
        }
        if self.dialling >= ENTRIES {
            return Arrival::Full;
        }
        self.dialling += 1;
        self.attempts.insert(syn, Attempt::Dialling(packet.clone()));
        Arrival::New
    }

    /// Takes the packet of an answered dial. The attempt is remembered where retransmissions may follow.
    pub(crate) fn answered(
        &mut self,
        syn: &Syn,
        refusal: Option<Refusal>,
        now: Instant,
    ) -> Option<HeldPacket> {
        let Attempt::Dialling(packet) = self.attempts.remove(syn)? else { return None };
        self.dialling -= 1;
        let until = match refusal {
            None => Some(now + PASSED),
            Some(Refusal::TimedOut) => Some(now + SILENCE),
            Some(_) => None,
        };
        // Beyond the bound a retransmission is dialled again, which costs a flow but blocks no other attempt.
        if let Some(until) = until
            && self.attempts.len() - self.dialling < ENTRIES
        {
            self.attempts.insert(*syn, Attempt::Done { until });
        }
        Some(packet)
    }

    /// The attempt has become a connection.
    pub(crate) fn forget(&mut self, syn: &Syn) {
        if let Some(Attempt::Dialling(_)) = self.attempts.remove(syn) {
            self.dialling -= 1;
        }
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        self.attempts.retain(|_, attempt| match attempt {
            Attempt::Dialling(_) => true,
            Attempt::Done { until } => *until > now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::held_packet;

    fn syn(sequence: u32) -> Syn {
        Syn { source: "10.0.0.1:4000".parse().unwrap(), target: "10.0.0.2:80".parse().unwrap(), sequence }
    }

    #[test]
    fn a_retransmitted_syn_is_dialled_once_and_a_new_connection_again() {
        let (mut held, now) = (Held::default(), Instant::now());
        assert_eq!(held.arrive(syn(1), &held_packet(1), now), Arrival::New);
        assert_eq!(held.arrive(syn(1), &held_packet(2), now), Arrival::Known);
        assert_eq!(held.arrive(syn(2), &held_packet(3), now), Arrival::New);
        assert_eq!(held.answered(&syn(1), Some(Refusal::Refused), now), Some(held_packet(1)));
        assert_eq!(held.answered(&syn(1), None, now), None);
        assert_eq!(held.arrive(syn(1), &held_packet(4), now), Arrival::New);
    }

    #[test]
    fn a_silent_target_stays_silent_for_the_whole_attempt() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.arrive(syn(1), &held_packet(1), now);
        held.answered(&syn(1), Some(Refusal::TimedOut), now);
        let later = now + Duration::from_secs(129);
        held.sweep(later);
        assert_eq!(held.arrive(syn(1), &held_packet(2), later), Arrival::Known);
        held.sweep(now + SILENCE);
        assert_eq!(held.arrive(syn(1), &held_packet(3), now + SILENCE), Arrival::New);
    }

    #[test]
    fn a_connected_attempt_is_known_until_it_is_claimed() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.arrive(syn(1), &held_packet(1), now);
        held.answered(&syn(1), None, now);
        assert_eq!(held.arrive(syn(1), &held_packet(2), now), Arrival::Known);
        held.forget(&syn(1));
        assert_eq!(held.arrive(syn(1), &held_packet(3), now), Arrival::New);
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut held, now) = (Held::default(), Instant::now());
        for n in 0..u32::try_from(ENTRIES).unwrap() {
            assert_eq!(held.arrive(syn(n), &held_packet(n), now), Arrival::New);
        }
        assert_eq!(held.arrive(syn(u32::MAX), &held_packet(0), now), Arrival::Full);
    }
}
