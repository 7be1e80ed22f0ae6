//! The agent that the CLI carries for each architecture, so that no image has to be pulled; see `build.rs`.

use devproxy_cluster::{AgentFiles, Agents};

/// Loader and agent for both architectures; each pair fits into one ConfigMap.
pub fn agents() -> Agents<'static> {
    Agents {
        amd64: AgentFiles {
            loader: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-loader-amd64")),
            agent: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-agent-amd64.packed")),
        },
        arm64: AgentFiles {
            loader: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-loader-arm64")),
            agent: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-agent-arm64.packed")),
        },
    }
}

#[cfg(test)]
mod tests {
    use devproxy_cluster::Architecture;

    use super::*;

    #[test]
    fn each_architecture_has_its_own_static_executable() {
        // e_machine of the ELF header.
        for (architecture, machine) in [(Architecture::Amd64, 62), (Architecture::Arm64, 183)] {
            let AgentFiles { loader, agent } = agents().of(architecture);
            assert_eq!(&loader[..4], b"\x7fELF");
            assert_eq!(u16::from_le_bytes([loader[18], loader[19]]), machine);
            assert_eq!(&agent[..4], b"DPA1");
        }
    }
}
