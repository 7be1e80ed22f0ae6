//! Capture in real namespaces, as a program inside and a client of the cluster see it. Run as root these tests do
//! the laptop's side as an ordinary user.

mod agent;
mod bed;
mod datagrams;
mod inbound;
mod outbound;
