//! Which cluster the tests run on: the node of the bed, or the one that `KUBECONFIG` names.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::host::program::find;
use crate::images::Image;
use crate::kubectl::Kubectl;
use crate::node::{Node, Place, Programs};

/// A cluster to test on.
#[derive(Debug)]
pub enum Cluster {
    /// Our own node.
    Node(Node),
    /// The user's, as `KUBECONFIG` and `DEVPROXY_TEST_CONTEXT` name it.
    Users(Kubectl),
}

impl Cluster {
    /// The user's cluster if `KUBECONFIG` is set to anything but our own node, else our node, brought up if need be.
    pub fn get() -> Result<Self> {
        let own = Place::First.state().join("admin.kubeconfig");
        match std::env::var_os("KUBECONFIG").filter(|named| !named.is_empty()).map(PathBuf::from) {
            Some(named) if named != own => Self::named(named, std::env::var("DEVPROXY_TEST_CONTEXT").ok()),
            _ => Ok(Self::Node(Node::up()?)),
        }
    }

    /// The cluster of `kubeconfig` and `context` (its current one if none is given).
    pub fn named(kubeconfig: PathBuf, context: Option<String>) -> Result<Self> {
        let program = match find("kubectl") {
            Some(installed) => installed,
            None => Programs::build()?.component("kubectl"),
        };
        let kubectl = Kubectl::new(program, kubeconfig, context);
        kubectl.run(&["version"]).context("the cluster of KUBECONFIG does not answer")?;
        Ok(Self::Users(kubectl))
    }

    /// kubectl with the rights of whoever set it up: administrator on our node.
    pub fn kubectl(&self) -> &Kubectl {
        match self {
            Self::Node(node) => node.kubectl(),
            Self::Users(kubectl) => kubectl,
        }
    }

    /// Makes `image` usable in pods. A cluster of the user's has to be able to pull it.
    pub fn provide(&self, image: Image) -> Result<()> {
        match self {
            Self::Node(node) => node.import(image),
            Self::Users(_) => Ok(()),
        }
    }
}
