//! The agent: runs in the stand-in's target container, inside the original's image, and does in the pod what the
//! laptop asks for through the tunnel.
//!
//! One thread, no TLS, no Kubernetes. From outside to inside:
//!
//! - [`settings`]: the command line and the session key
//! - [`lifecycle`]: start, signals, draining, exit; the place where all parts are put together
//! - [`carrier`]: the tunnel port: who holds the key becomes a lane
//! - [`session`]: which tunnel is the current one, and what to do with each flow that the laptop opens:
//!   [`dial`] (TCP), [`datagram`] (UDP, DNS), [`control`], [`files`]
//! - [`ports`]: what listens in the pod; [`inbound`]: one accepted connection, held until the laptop answers
//! - [`route`]: where accepted connections go: the tunnel, or the restored pods
//! - [`relay`]: copies bytes both ways with half-close and reset
//! - [`memory`]: a tunnel that fits into the container
//! - [`facts`], [`readiness`], [`log`]
//!
//! All tasks live in a `JoinSet` of the part that started them; all queues are bounded.

mod carrier;
mod control;
mod datagram;
mod dial;
mod facts;
mod files;
mod inbound;
mod lifecycle;
mod listener;
mod log;
mod memory;
mod ports;
mod readiness;
mod relay;
mod route;
mod session;
pub mod settings;

pub use lifecycle::{StartError, run};

#[cfg(test)]
mod tests;
