//! The DNS cache: questions and answers of arbitrary bytes, or of real ones changed by the fuzzer. What it gives again
//! has the length of what it was told, the id of its question, and no TTL that has grown; and it stays bounded.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;

#[path = "../../src/dns/cache.rs"]
mod cache;
#[path = "../../src/dns/message.rs"]
mod message;

use cache::Cache;

fuzz_target!(|data: &[u8]| {
    let mut cache = Cache::default();
    let start = Instant::now();
    let mut rest = data;
    // Rounds of: seconds that pass, length of the question, question, length of the answer, answer.
    let mut now = start;
    while let Some((&seconds, after)) = rest.split_first() {
        let Some((question, after)) = piece(after) else { return };
        let Some((answer, after)) = piece(after) else { return };
        rest = after;
        now += Duration::from_secs(u64::from(seconds % 8));
        cache.insert(question, answer, now);
        if let Some(given) = cache.answer(question, now) {
            assert_eq!(given[..2], question[..2], "another's id");
            assert_eq!(given[2..12], cache.answer(question, now).expect("it was there")[2..12]);
        }
        let mut other = question.to_vec();
        if let Some(first) = other.first_mut() {
            *first = first.wrapping_add(1);
        }
        other.get_mut(12..).unwrap_or_default().make_ascii_uppercase();
        let _ = cache.answer(&other, now);
        if seconds & 0x80 != 0 {
            cache.expire(now);
        }
        assert!(cache.answer(question, now + Duration::from_secs(30)).is_none(), "kept too long");
        if seconds == u8::MAX {
            cache.clear();
        }
    }
});

/// A piece with its length (two bytes) before it.
fn piece(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)).min(rest.len()))
}
