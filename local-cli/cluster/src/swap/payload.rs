//! What a session brings into the cluster: loader and agent for the node's processor, and the session key.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::{ClusterError, plan::Architecture, stand_in};

/// What a ConfigMap may hold (`MaxSecretSize` of the API server), in bytes.
const CONFIG_MAP_LIMIT: usize = 1 << 20;

/// Loader and agent for one processor.
#[derive(Clone, Copy)]
pub struct AgentFiles<'a> {
    /// Started by the kubelet; unpacks and executes the agent.
    pub loader: &'a [u8],
    /// The agent, as the loader takes it.
    pub agent: &'a [u8],
}

/// The agent for both processors.
#[derive(Clone, Copy)]
pub struct Agents<'a> {
    /// x86-64
    pub amd64: AgentFiles<'a>,
    /// `AArch64`
    pub arm64: AgentFiles<'a>,
}

impl<'a> Agents<'a> {
    /// The one for this processor.
    pub fn of(&self, architecture: Architecture) -> AgentFiles<'a> {
        match architecture {
            Architecture::Amd64 => self.amd64,
            Architecture::Arm64 => self.arm64,
        }
    }
}

/// What the first half of the steps puts into the cluster.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    pub(super) agents: &'a Agents<'a>,
    pub(super) key: &'a [u8],
}

/// The data of the ConfigMap.
pub(super) fn binary_data(files: AgentFiles<'_>) -> Result<Value, ClusterError> {
    let bytes = files.loader.len() + files.agent.len();
    if bytes > CONFIG_MAP_LIMIT {
        return Err(ClusterError::TooLarge { bytes, limit: CONFIG_MAP_LIMIT });
    }
    Ok(json!({
        stand_in::LOADER: ByteString(files.loader.to_vec()),
        stand_in::AGENT: ByteString(files.agent.to_vec()),
    }))
}

/// The data of the Secret.
pub(super) fn key_data(key: &[u8]) -> Value {
    json!({stand_in::KEY: ByteString(key.to_vec())})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_over_the_limit_is_refused_before_the_server_does() {
        let half = vec![0; CONFIG_MAP_LIMIT / 2 + 1];
        let error = binary_data(AgentFiles { loader: &half, agent: &half }).unwrap_err();
        assert_eq!(error.code(), "DP-TOO-LARGE");
    }
}
