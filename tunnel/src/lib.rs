//! The tunnel between the laptop and the agent: many flows over one or more
//! byte streams (carriers), authenticated, flow-controlled, and numbered so
//! that a lost carrier can be replayed.
//!
//! - [`meta`]: what a flow is (the payload of OPEN) and how an open is answered
//! - [`control`]: the messages of the control and file flows
//! - [`key`]: the session key that both ends prove to each other
//! - [`proto`]: the protocol as a state machine without IO
//! - [`handshake`]: how both ends prove the key before the first record
//! - [`scratch`]: one read buffer a thread
//! - [`tunnel`]: the tokio side: [`Tunnel`], [`Incoming`], [`Flow`], and [`copy`] between a flow and a socket

pub mod control;
pub mod handshake;
pub mod key;
pub mod meta;
pub mod proto;
pub mod scratch;
pub mod tunnel;

pub use key::SessionKey;
pub use meta::{Open, Refusal};
pub use tunnel::{
    Carrier, CopyEnd, Datagrams, Flow, Incoming, Opening, Request, Role, Tunnel, TunnelId, copy,
};
