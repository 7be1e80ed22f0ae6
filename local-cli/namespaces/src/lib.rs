//! The session's namespaces on the laptop, made without root: user + mount + UTS + two network namespaces
//! (the *shell's* and the *gateway's*, see ARCHITECTURE.md). All unsafe code of devproxy lives in this crate.
//!
//! The tokio process never changes namespace. It starts itself again as the *helper* ([`helper::main`]), a plain
//! single-threaded process that unshares, sets up network and mounts, sends sockets up by `SCM_RIGHTS`, and stays as
//! long as its socketpair is held: it serves further sockets, file updates, and keeps the namespaces alive. If that closes
//! under it, nobody else may be left to end what runs inside, and it does so itself.
//!
//! | file | idea |
//! |---|---|
//! | `spec` | what the shell looks like, what a caller asks for |
//! | `catchers` | the sockets that come up from inside |
//! | `session` | [`Namespaces`]: the tokio side of the helper |
//! | `entrance` | [`Entrance`], [`inhabitants`]: programs inside |
//! | `hangup` | the end of what still runs inside |
//! | `channel` | packets between session and helper |
//! | `helper` | the process inside: network, sockets, mounts, files |
//! | `netlink` | rtnetlink, `nf_tables` and NFQUEUE without any program |
//! | `syscall` | the system calls that no crate wraps |
//!
//! Linux 5.8 or newer (`setns` with a pidfd), IPv6 optional.

mod catchers;
mod channel;
mod entrance;
mod failure;
mod hangup;
pub mod helper;
mod netlink;
mod session;
mod spec;
mod syscall;

pub use catchers::{Catchers, Sockets};
pub use entrance::{Entrance, inhabitants, processes};
pub use failure::NamespaceError;
pub use session::Namespaces;
pub use spec::{Family, Files, Kind, Side, Skipped, Spec};
pub use syscall::{close_inherited, watch};

/// `SO_MARK` of devproxy's own sockets. It must share no bit with [`DELIVER`], or our own packets come back to us.
pub const OWN: u32 = 8;

/// Firewall mark of packets that are delivered to a socket of ours although their destination is elsewhere.
pub const DELIVER: u32 = 1;
