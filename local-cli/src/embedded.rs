//! The agent that the CLI carries for each architecture, so that no image has to be pulled; see `build.rs`.

use std::{fmt, str::FromStr};

/// A node's processor architecture, by its name in Kubernetes (`kubernetes.io/arch`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// `amd64`
    Amd64,
    /// `arm64`
    Arm64,
}

impl Architecture {
    /// All that an agent is carried for.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Its name in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No agent is carried for this architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no agent for the architecture `{0}`, only for amd64 and arm64")]
pub struct UnknownArchitecture(String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.name() == name)
            .ok_or_else(|| UnknownArchitecture(name.to_owned()))
    }
}

/// What goes into the stand-in's ConfigMap.
#[derive(Clone, Copy)]
pub struct Embedded {
    /// `devproxy-loader`, an executable.
    pub loader: &'static [u8],
    /// `devproxy-agent`, packed; the loader's argument.
    pub agent: &'static [u8],
}

/// The loader and agent for an architecture; together they fit into one ConfigMap.
pub fn agent(architecture: Architecture) -> Embedded {
    match architecture {
        Architecture::Amd64 => Embedded {
            loader: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-loader-amd64")),
            agent: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-agent-amd64.packed")),
        },
        Architecture::Arm64 => Embedded {
            loader: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-loader-arm64")),
            agent: include_bytes!(concat!(env!("OUT_DIR"), "/devproxy-agent-arm64.packed")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.to_string().parse(), Ok(architecture));
        }
        assert!("riscv64".parse::<Architecture>().is_err());
    }

    #[test]
    fn each_architecture_has_its_own_static_executable() {
        // e_machine of the ELF header.
        for (architecture, machine) in [(Architecture::Amd64, 62), (Architecture::Arm64, 183)] {
            let Embedded { loader, agent } = agent(architecture);
            assert_eq!(&loader[..4], b"\x7fELF");
            assert_eq!(u16::from_le_bytes([loader[18], loader[19]]), machine);
            assert_eq!(&agent[..4], b"DPA1");
        }
    }
}
