//! A session: the detached *session process* that holds tunnel, Lease and cluster objects, and what talks to it.
//!
//! - [`protocol`]: messages between terminal process, `exec`, `status`, `restore` and the session process
//! - [`runtime`]: the 0700 runtime folder with one control socket a session
//! - [`process`]: the session process and its requests
//! - [`shared`]: what the session and those requests have in common
//! - [`ahead`]: what is done while the terminal process still plans
//! - [`live`]: the session itself: establish, serve, restore
//! - [`outlet`]: where its events go
//! - [`link`]: carrier, tunnel and control flow to the agent, made again after a loss
//! - [`handover`]: when the program is ready to take the traffic over
//! - [`client`]: the other end of the control socket

pub mod ahead;
pub mod client;
pub mod handover;
pub mod link;
pub mod live;
pub mod outlet;
pub mod process;
pub mod protocol;
pub mod runtime;
pub mod shared;
