//! Over which way a load goes. Other tools on PATH are named, not measured.

use devproxy_tests::host::program::is_installed;

/// One way between two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Column {
    /// From pod to pod through a Service
    Direct,
    /// From the laptop through `kubectl port-forward` to a pod
    PortForward,
    /// From memory through our carrier alone to a pod
    Pump,
    /// From the session's shell to a Service
    Outbound,
    /// From a pod through a Service to a program on the laptop
    Inbound,
}

impl Column {
    pub(crate) const ALL: [Self; 5] =
        [Self::Direct, Self::PortForward, Self::Pump, Self::Outbound, Self::Inbound];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PortForward => "port-forward",
            Self::Pump => "pump",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Tools of the same purpose, and whether they are installed.
pub(crate) fn others() -> Vec<(&'static str, bool)> {
    ["telepresence", "mirrord"].map(|name| (name, is_installed(name))).into()
}
