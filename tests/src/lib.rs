//! The test bed of devproxy, and the words that tests are written in.
//!
//! - [`node`]: a real Kubernetes node on this machine, up in seconds;
//! - [`kubectl`]: how the bed speaks to the API;
//! - [`images`]: container images made by hand from the machine's own Debian packages;
//! - [`laptop`]: where the product runs: a network namespace and a user of its own;
//! - [`host`]: what the bed does to the machine it runs on.

pub mod host;
pub mod images;
pub mod kubectl;
pub mod laptop;
pub mod node;
