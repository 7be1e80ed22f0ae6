//! The namespaces as a program in them sees them. Run as root these tests do the laptop's side as an ordinary user.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod bed;
mod catcher;
mod files;
mod network;
mod process;
