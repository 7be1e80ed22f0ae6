//! The protocol as a state machine: it knows no clock, no socket and no runtime.
//!
//! [`Connection`] is one end of a tunnel. Its owner feeds it bytes and the time, and takes bytes from it:
//!
//! 1. [`Connection::add_lane`] for each carrier,
//! 2. [`Connection::handle_bytes`] with what the carrier delivered, unless [`Connection::is_congested`],
//! 3. [`Connection::poll_transmit`] until it has nothing more, the bytes to the carrier in that order,
//! 4. [`Connection::handle_timeout`] when [`Connection::poll_timeout`] is reached,
//! 5. after any of them: 3 again, since each may have queued something. Calls on flows wake the waker given to
//!    [`Connection::register_driver`] when there is something to transmit.
//!
//! The time is always an argument; `Instant::now` and everything of tokio is forbidden in this module, so that its
//! tests run in virtual time.
//!
//! On a lane travel *records* (see [`record`]), numbered from 1, each with whole *frames* (see [`frame`]).

mod bulk;
pub mod chunks;
pub mod connection;
pub mod flow;
pub mod frame;
pub mod lane;
pub mod limits;
pub mod record;
pub mod waiters;
pub mod window;
mod yielding;

pub use connection::{Connection, EndCause, ProtocolError};
pub use flow::FlowError;
pub use frame::FlowId;
pub use lane::LaneId;
pub use limits::Limits;
