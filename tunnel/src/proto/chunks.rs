//! A byte queue that holds about as much memory as it holds bytes.

use std::collections::VecDeque;

/// Largest chunk made for small pushes; each is one allocation that the allocator keeps hot.
const CHUNK: usize = 16 << 10;

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
    pub fn push(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let queued = self.len;
        self.len += bytes.len();
        if let Some(last) = self.pieces.back_mut() {
            let room = last.capacity() - last.len();
            let (fits, rest) = bytes.split_at(room.min(bytes.len()));
            last.extend_from_slice(fits);
            bytes = rest;
        }
        if !bytes.is_empty() {
            // Doubles up to CHUNK: an idle flow with one small message pays for little more than the message.
            let mut chunk = Vec::with_capacity(bytes.len().max(queued.min(CHUNK)));
            chunk.extend_from_slice(bytes);
            self.pieces.push_back(chunk);
        }
    }

    /// Takes up to `most` bytes, handing each contiguous piece to `sink`. Returns how many were taken.
    pub fn take(&mut self, most: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let mut left = most;
        while left > 0 {
            let Some(first) = self.pieces.front() else { break };
            let end = first.len().min(self.head + left);
            sink(&first[self.head..end]);
            left -= end - self.head;
            if end == first.len() {
                self.pieces.pop_front();
                self.head = 0;
            } else {
                self.head = end;
            }
        }
        if self.pieces.is_empty() && self.pieces.capacity() > 32 {
            self.pieces = VecDeque::new();
        }
        self.len -= most - left;
        most - left
    }

    /// Forgets all bytes and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
