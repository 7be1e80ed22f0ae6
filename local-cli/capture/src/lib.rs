//! Carries the packets of a session's namespaces into its tunnel and back: the program in the shell has the pod's
//! network, clients of the cluster reach the program.
//!
//! - [`capture`]: [`Capture`], the session's handle, and what drives all else
//! - `outbound`: TCP of the program: SYNs held until their dial is answered, true errnos
//! - `udp`, `dns`: its datagrams
//! - `dial`, [`local`]: through the tunnel, or out through the laptop where the user says so
//! - `inbound`: connections of the cluster's clients, held while nothing listens
//! - [`listeners`], [`ports`], `publish`: what the program listens on, and which ports open where because of it
//! - [`gate`]: for `cargo xtask gate`
//! - `netlink`, `queue`, `packet`, `raw`, `pool`, `splice`: NFQUEUE, packets, sockets, copying

pub mod capture;
pub mod counters;
mod dial;
mod dns;
pub mod gate;
mod inbound;
pub mod listeners;
pub mod local;
mod netlink;
mod outbound;
mod packet;
mod pool;
pub mod ports;
mod publish;
mod queue;
mod raw;
mod splice;
mod udp;

pub use capture::{Capture, CaptureSettings, Notice};
pub use counters::Counters;
pub use listeners::{Listener, Listeners};
pub use local::{LocalRouteError, LocalRoutes};
pub use ports::{OpenPorts, PortMapping, PortRules};
