//! Everything that talks to the Kubernetes API: what a session changes in the cluster, and how it is put back.
//!
//! Objects are mostly JSON values: a typed model would drop the fields of a newer cluster.
//!
//! - [`api`]: the connection, with the same settings as kubectl
//! - [`target`], [`plan`](mod@plan): what the user named, and what will be done about it; reads only
//! - [`stand_in`], [`shell`]: the objects that carry the agent
//! - [`swap`]: runs the plan's steps, hands the traffic over, undoes
//! - [`record`], [`lease`]: the lock, the heartbeat and the memory of a session
//! - [`event`]: what teammates read on the original
//! - [`place`]: where a session's processes run, and whether they live; [`presence`]: whether stand-in and original are still as we left them
//! - [`find`], [`restore`](mod@restore): finds a session's record, and puts everything back from it alone
//! - [`rights`]: what a session and its restore may not be without
//! - [`candidates`]: names to choose from, for completions
//! - [`status`]: who holds what
//! - [`carrier`]: a byte stream into the agent's pod
//! - [`error`]: the one error type, with a stable code and a hint

pub mod api;
pub mod candidates;
pub mod error;
pub mod find;
pub mod kubeconfig;
pub mod lease;
pub mod name;
pub mod patience;
pub mod place;
pub mod plan;
pub mod pod;
pub mod presence;
pub mod record;
pub mod restore;
pub mod rights;
pub mod shell;
pub mod stand_in;
pub mod status;
pub mod swap;
pub mod target;

mod carrier;
mod event;
mod json;
mod ownership;
mod quantity;
mod read_ahead;
mod resource;
mod slices;
mod wait;

pub use api::{ApiSettings, Connection};
pub use carrier::{Purpose, portforward};
pub use error::{ClusterError, Right};
pub use find::{find_session, require_namespace, require_unheld};
pub use lease::Life;
pub use patience::{Again, Patience};
pub use place::Place;
pub use plan::{
    Architecture, DeclaredPort, Drain, FileKind, FileRoot, Handover, HandoverMode, Holder, Plan, PortMapping,
    Protocol, ReadyMode, Step, SwapSettings, Warning, WritableVolume, file_roots_of_pod, plan,
};
pub use pod::{AgentPod, Placed, find_agent};
pub use presence::{original_rescaled, stand_in_is_gone, stand_in_lost};
pub use record::{Original, Phase, Record};
pub use restore::{OriginalOutcome, Outcome, SpliceHook, Splicing, restore};
pub use rights::restorable;
pub use shell::{ShellSettings, shell_plan};
pub use status::{SessionInfo, sessions};
pub use swap::{AgentFiles, Agents, Progress, Swap};
