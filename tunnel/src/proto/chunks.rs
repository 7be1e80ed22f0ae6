//! A byte queue that holds about as much memory as it holds bytes, but for its smallest chunk.

use std::collections::VecDeque;

/// Size of the chunks of a busy queue.
const CHUNK: usize = 16 << 10;

/// Size of the chunk that a socket is read into: one system call for all that it mostly has.
const LARGE: usize = 64 << 10;

/// A large chunk with less in it is worth a copy, so that memory follows bytes.
const WORTH_KEEPING: usize = LARGE / 4 * 3;

/// Size of the chunk of a message: a keystroke, a question and its answer.
const SMALL: usize = 256;

/// Spare chunks kept of each size, 1 MiB and 16 KiB,
const SPARE: usize = 64;
/// and 1 MiB of large ones.
const SPARE_LARGE: usize = 16;

/// Pieces that one look at a queue shows: 128 KiB of a busy one.
pub const SHOWN: usize = 8;

/// Chunks between two uses. An allocator that gives memory back to the kernel at once (musl's, and glibc's at the
/// top of its heap) would pay with a page fault for each 4 KiB that passes, and musl's for a message too, where it is the
/// only one of its size.
#[derive(Debug, Default)]
pub struct Pool {
    chunks: Vec<Vec<u8>>,
    small: Vec<Vec<u8>>,
    /// All of each is initialised, to be read into.
    large: Vec<Vec<u8>>,
}

impl Pool {
    /// A chunk for at least one of so many bytes.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        match bytes {
            ..=SMALL => self.small.pop().unwrap_or_else(|| Vec::with_capacity(SMALL)),
            CHUNK.. => self.chunks.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK)),
            _ => Vec::with_capacity(bytes),
        }
    }

    /// A chunk to be read into, full of whatever was there last.
    fn take_large(&mut self) -> Vec<u8> {
        self.large.pop().unwrap_or_else(|| vec![0; LARGE])
    }

    fn give(&mut self, mut chunk: Vec<u8>) {
        let (spare, most, initialised) = match chunk.capacity() {
            SMALL => (&mut self.small, SPARE, 0),
            CHUNK => (&mut self.chunks, SPARE, 0),
            LARGE => (&mut self.large, SPARE_LARGE, LARGE),
            _ => return,
        };
        if spare.len() < most {
            chunk.resize(initialised, 0);
            spare.push(chunk);
        }
    }
}

/// Bytes in order. Small pushes share a chunk, so that a peer sending single bytes cannot make each cost an allocation.
#[derive(Debug, Default)]
pub struct Chunks {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are already taken.
    head: usize,
    len: usize,
}

impl Chunks {
    /// Queued bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        while !bytes.is_empty() {
            let last = match self.pieces.back_mut() {
                Some(last) if last.len() < last.capacity() => last,
                _ => {
                    // Doubles up to CHUNK: an idle flow with one message pays for little more than the message, or for SMALL.
                    self.pieces.push_back(pool.take(bytes.len().max(self.len)));
                    continue;
                }
            };
            let (fits, rest) = bytes.split_at(bytes.len().min(last.capacity() - last.len()));
            last.extend_from_slice(fits);
            self.len += fits.len();
            bytes = rest;
        }
    }

    /// Appends what `fill` puts into the slice it is given, of at most `most` bytes; it says how many they are. Many
    /// bytes stay where they were put.
    pub fn fill(&mut self, most: usize, fill: impl FnOnce(&mut [u8]) -> usize, pool: &mut Pool) -> usize {
        let mut chunk = pool.take_large();
        let most = most.min(LARGE);
        let filled = fill(&mut chunk[..most]).min(most);
        if filled < WORTH_KEEPING {
            self.push(&chunk[..filled], pool);
            pool.give(chunk);
        } else {
            chunk.truncate(filled);
            self.len += filled;
            self.pieces.push_back(chunk);
        }
        filled
    }

    /// Shows the first pieces to `look`, which says how many of their bytes it took. Returns that.
    pub fn drain(&mut self, look: impl FnOnce(&[&[u8]]) -> usize, pool: &mut Pool) -> usize {
        // Mostly a message, which is one piece.
        if let Some(only) = self.pieces.front()
            && self.pieces.len() == 1
        {
            let only = &only[self.head..];
            let taken = look(&[only]).min(only.len());
            return self.take(taken, |_| (), pool);
        }
        let mut shown: [&[u8]; SHOWN] = [&[]; SHOWN];
        let (mut count, mut bytes, mut head) = (0, 0, self.head);
        for (slice, piece) in shown.iter_mut().zip(&self.pieces) {
            *slice = &piece[head..];
            bytes += slice.len();
            count += 1;
            head = 0;
        }
        let taken = look(&shown[..count]).min(bytes);
        self.take(taken, |_| (), pool)
    }

    /// Appends all of `other`.
    pub fn append(&mut self, mut other: Self, pool: &mut Pool) {
        let all = other.len;
        other.take(all, |bytes| self.push(bytes, pool), &mut Pool::default());
    }

    /// Takes up to `most` bytes, handing each contiguous piece to `sink`. Returns how many were taken.
    pub fn take(&mut self, most: usize, mut sink: impl FnMut(&[u8]), pool: &mut Pool) -> usize {
        let mut left = most;
        while left > 0 {
            let Some(first) = self.pieces.front() else { break };
            let end = first.len().min(self.head + left);
            sink(&first[self.head..end]);
            left -= end - self.head;
            if end == first.len() {
                self.head = 0;
                if let Some(chunk) = self.pieces.pop_front() {
                    pool.give(chunk);
                }
            } else {
                self.head = end;
            }
        }
        self.shrink_first(pool);
        if self.pieces.is_empty() && self.pieces.capacity() > 32 {
            self.pieces = VecDeque::new();
        }
        self.len -= most - left;
        most - left
    }

    /// What little is left of a large chunk may wait for long.
    fn shrink_first(&mut self, pool: &mut Pool) {
        let Some(first) = self.pieces.front_mut() else { return };
        let rest = &first[self.head..];
        if first.capacity() == LARGE && rest.len() <= CHUNK {
            let mut small = pool.take(rest.len());
            small.extend_from_slice(rest);
            pool.give(std::mem::replace(first, small));
            self.head = 0;
        }
    }

    /// Forgets all behind the first `most` bytes.
    pub fn truncate(&mut self, most: usize) {
        while self.len > most
            && let Some(mut last) = self.pieces.pop_back()
        {
            let held = last.len() - if self.pieces.is_empty() { self.head } else { 0 };
            let cut = held.min(self.len - most);
            self.len -= cut;
            if cut < held {
                last.truncate(last.len() - cut);
                self.pieces.push_back(last);
            }
        }
        if self.pieces.is_empty() {
            self.head = 0;
        }
    }

    /// Forgets all bytes and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
