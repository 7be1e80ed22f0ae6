//! Answers that may be given again until their time is over. Pure: the clock is an argument.
//!
//! *TTL-true*: counted from the question on, rounded down, so nothing is said for longer than the server said it, and
//! a cache behind this one (a JVM's, nscd) adds nothing either.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::message::{Answer, Question};

/// Answers at once; the oldest make room.
const ENTRIES: usize = 1024;
/// Bytes of all keys and answers.
const BYTES: usize = 256 << 10;
/// Nothing is kept longer. The cluster's own records say 5 or 30 s; names of the outside keep their counted TTL, and are
/// asked for again as `cache 30` of the cluster's DNS does.
const LONGEST: Duration = Duration::from_secs(30);

/// The answers of one nameserver.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Box<[u8]>, Entry>,
    order: VecDeque<(u64, Box<[u8]>)>,
    inserted: u64,
    bytes: usize,
}

struct Entry {
    number: u64,
    message: Box<[u8]>,
    answer: Answer,
    asked: Instant,
    until: Instant,
}

impl Cache {
    /// The answer to a question, with its id, its spelling of the name, and what is left of each TTL.
    pub(super) fn answer(&self, question: &[u8], now: Instant) -> Option<Vec<u8>> {
        let question = Question::parse(question)?;
        let entry = self.entries.get(&question.key()).filter(|entry| now < entry.until)?;
        let mut message = entry.message.to_vec();
        message[..2].copy_from_slice(question.id());
        for at in &entry.answer.names {
            message[*at..*at + question.name().len()].copy_from_slice(question.name());
        }
        let elapsed = now.saturating_duration_since(entry.asked);
        for (at, ttl) in &entry.answer.ttls {
            let left = Duration::from_secs((*ttl).into()).saturating_sub(elapsed);
            // No more than the TTL itself, which has 32 bits.
            let left = u32::try_from(left.as_secs()).unwrap_or(*ttl);
            message[*at..*at + 4].copy_from_slice(&left.to_be_bytes());
        }
        Some(message)
    }

    /// Keeps the answer to a question that was asked at `asked`, if it is one to keep.
    pub(super) fn insert(&mut self, question: &[u8], message: &[u8], asked: Instant) {
        let Some(question) = Question::parse(question) else { return };
        let Some(answer) = Answer::parse(message, &question) else { return };
        let until = asked + answer.lifetime.min(LONGEST);
        let key = question.key();
        self.inserted += 1;
        let entry = Entry { number: self.inserted, message: message.into(), answer, asked, until };
        self.bytes += size(&key, &entry);
        self.order.push_back((entry.number, key.clone()));
        if let Some(last) = self.entries.insert(key.clone(), entry) {
            self.bytes -= size(&key, &last);
        }
        while self.entries.len() > ENTRIES || self.bytes > BYTES || self.order.len() > 2 * ENTRIES {
            let Some((number, key)) = self.order.pop_front() else { return };
            self.remove(&key, number);
        }
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.entries.retain(|key, entry| {
            let is_over = entry.until <= now;
            if is_over {
                *bytes -= size(key, entry);
            }
            !is_over
        });
        let entries = &self.entries;
        self.order.retain(|(number, key)| entries.get(key).is_some_and(|entry| entry.number == *number));
    }

    /// Forgets all: another pod may be told otherwise.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn remove(&mut self, key: &[u8], number: u64) {
        if self.entries.get(key).is_some_and(|entry| entry.number == number)
            && let Some(entry) = self.entries.remove(key)
        {
            self.bytes -= size(key, &entry);
        }
    }
}

/// Bytes that an entry stands for; its key is there twice.
fn size(key: &[u8], entry: &Entry) -> usize {
    let Answer { ttls, names, .. } = &entry.answer;
    let lists = ttls.len() * size_of::<(usize, u32)>() + names.len() * size_of::<usize>();
    2 * key.len() + entry.message.len() + lists + size_of::<Entry>()
}

#[cfg(test)]
mod tests;
