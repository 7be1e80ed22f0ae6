//! What the test bed does to the machine it runs on: programs, processes, network namespaces, Debian packages.
//!
//! All of it needs root; the product under test never does.

pub mod lock;
pub mod namespace;
pub mod packages;
pub mod process;
pub mod program;
pub mod root;

use anyhow::{Result, bail};

/// The bed makes namespaces, users and mounts: it is for root, unlike what it tests.
pub fn require_root() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "the test bed needs root to build a Kubernetes node (namespaces, cgroups, mounts); \
             run it as root, or set KUBECONFIG to use a cluster of yours"
        );
    }
    Ok(())
}
