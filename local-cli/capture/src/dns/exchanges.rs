//! Which program waits for which answer. Pure: the clock is an argument.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// A resolver has given up by then.
const PATIENCE: Duration = Duration::from_secs(15);
/// Questions at once; the oldest make room. A small part of the 65,536 ids, so that a free one is found soon.
const OPEN: usize = 8192;
/// Bytes of a DNS header.
const HEADER: usize = 12;
/// Questions that the cache may answer are shorter: a name, type and class, an EDNS record.
const CACHEABLE: usize = 300;

/// The open questions to one nameserver. Each gets an id of ours, since two programs may use the same one.
pub(super) struct Exchanges {
    open: HashMap<u16, Exchange>,
    order: VecDeque<(u16, u64)>,
    asked: u64,
    /// Ids are not to be guessed by another pod that would answer first.
    secret: RandomState,
}

struct Exchange {
    program: SocketAddr,
    id: [u8; 2],
    line: u64,
    asked: u64,
    question: Option<Bytes>,
    since: Instant,
}

/// An answer that somebody waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) program: SocketAddr,
    /// With the asker's id.
    pub(super) message: Vec<u8>,
    /// The question, unless it was too long for the cache.
    pub(super) question: Option<Bytes>,
    /// When it was asked.
    pub(super) since: Instant,
}

impl Exchanges {
    pub(super) fn new() -> Self {
        Self { open: HashMap::new(), order: VecDeque::new(), asked: 0, secret: RandomState::new() }
    }

    /// Notes the question and returns it with its id replaced; `None` if it is too short for a DNS message.
    pub(super) fn ask(
        &mut self,
        program: SocketAddr,
        line: u64,
        message: &[u8],
        now: Instant,
    ) -> Option<Bytes> {
        if message.len() < HEADER {
            return None;
        }
        while self.open.len() >= OPEN {
            let (id, asked) = self.order.pop_front()?;
            if self.open.get(&id).is_some_and(|exchange| exchange.asked == asked) {
                self.open.remove(&id);
            }
        }
        self.asked += 1;
        let start = self.secret.hash_one(self.asked).to_ne_bytes();
        let mut ours = u16::from_ne_bytes([start[0], start[1]]);
        while self.open.contains_key(&ours) {
            ours = ours.wrapping_add(1);
        }
        let mut forwarded = message.to_vec();
        forwarded[..2].copy_from_slice(&ours.to_be_bytes());
        let forwarded = Bytes::from(forwarded);
        let exchange = Exchange {
            program,
            id: [message[0], message[1]],
            line,
            asked: self.asked,
            question: (message.len() <= CACHEABLE).then(|| forwarded.clone()),
            since: now,
        };
        self.open.insert(ours, exchange);
        self.order.push_back((ours, self.asked));
        Some(forwarded)
    }

    /// Whose answer it is; `None` if nobody waits for it.
    pub(super) fn answer(&mut self, message: &[u8]) -> Option<Answered> {
        if message.len() < HEADER {
            return None;
        }
        let exchange = self.open.remove(&u16::from_be_bytes([message[0], message[1]]))?;
        let mut answer = message.to_vec();
        answer[..2].copy_from_slice(&exchange.id);
        Some(Answered {
            program: exchange.program,
            message: answer,
            question: exchange.question,
            since: exchange.since,
        })
    }

    /// Forgets the questions of a line that has failed; returns who asked them.
    pub(super) fn give_up(&mut self, line: u64) -> Vec<SocketAddr> {
        let mut programs = Vec::new();
        self.open.retain(|_, exchange| {
            if exchange.line == line {
                programs.push(exchange.program);
            }
            exchange.line != line
        });
        programs
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.open.retain(|_, exchange| now < exchange.since + PATIENCE);
        let open = &self.open;
        self.order.retain(|(id, asked)| open.get(id).is_some_and(|exchange| exchange.asked == *asked));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn program(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn message(id: u16, tail: u8) -> Vec<u8> {
        let mut message = vec![tail; 20];
        message[..2].copy_from_slice(&id.to_be_bytes());
        message
    }

    #[test]
    fn an_answer_reaches_the_one_who_asked_with_its_own_id() {
        let (mut exchanges, now) = (Exchanges::new(), Instant::now());
        let first = exchanges.ask(program(1), 1, &message(7, 1), now).unwrap();
        let second = exchanges.ask(program(2), 1, &message(7, 2), now).unwrap();
        assert_ne!(first[..2], second[..2]);
        let mut answer = |id: &[u8]| exchanges.answer(id).map(|answer| (answer.program, answer.message));
        assert_eq!(answer(&second), Some((program(2), message(7, 2))));
        assert_eq!(answer(&first), Some((program(1), message(7, 1))));
        assert_eq!(exchanges.answer(&first), None);
    }

    #[test]
    fn a_failed_line_names_its_askers_only() {
        let (mut exchanges, now) = (Exchanges::new(), Instant::now());
        exchanges.ask(program(1), 1, &message(7, 1), now);
        let kept = exchanges.ask(program(2), 2, &message(7, 2), now).unwrap();
        assert_eq!(exchanges.give_up(1), [program(1)]);
        assert!(exchanges.answer(&kept).is_some());
    }

    #[test]
    fn open_questions_are_bounded_and_expire() {
        let (mut exchanges, now) = (Exchanges::new(), Instant::now());
        let first = exchanges.ask(program(1), 1, &message(7, 1), now).unwrap();
        for n in 0..OPEN {
            exchanges.ask(program(2), 1, &message(u16::try_from(n).unwrap(), 1), now);
        }
        assert_eq!(exchanges.open.len(), OPEN);
        assert!(exchanges.answer(&first).is_none_or(|answer| answer.program == program(2)));
        exchanges.expire(now + PATIENCE);
        assert!(exchanges.open.is_empty() && exchanges.order.is_empty());
    }

    proptest! {
        #[test]
        fn hostile_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut exchanges = Exchanges::new();
            let _ = exchanges.ask(program(1), 1, &bytes, Instant::now());
            let _ = exchanges.answer(&bytes);
        }
    }
}
