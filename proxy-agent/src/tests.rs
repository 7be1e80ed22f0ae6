//! The whole agent on the loopback, with a laptop's end of the tunnel.

mod bed;
mod control;
mod inbound;
mod outbound;
