//! What the program shares with those who run it: the bench's load, its servers and its results.

pub mod bench;
