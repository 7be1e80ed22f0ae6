//! Capture in real namespaces, as a program inside and a client of the cluster see it. Run as root these tests do
//! the laptop's side as an ordinary user.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

mod agent;
mod bed;
mod datagrams;
mod inbound;
mod outbound;
