//! Which ports are open where, from what the program listens on. Pure.
//!
//! | the program listens on | in the pod | on the laptop |
//! |---|---|---|
//! | a declared port (TCP or UDP), wildcard or loopback | pod address, from handover to restore | – |
//! | another port, wildcard | pod address while it listens | – |
//! | another TCP port, loopback only | pod loopback while it listens | 127.0.0.1 |
//! | a debugger's port or a published one | nothing | 127.0.0.1 |
//!
//! A declared port that is published or a debugger's is open in both places. Undeclared UDP: wildcard sockets below
//! the ephemeral range only, since a client's socket looks like a server's.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use devproxy_tunnel::control::{PodPort, Protocol, Scope};

use crate::listeners::Listeners;

/// First port of Linux's default `ip_local_port_range`.
pub const EPHEMERAL: u16 = 32_768;

/// Ports on which debuggers listen by default. Whoever reaches one executes code, so the cluster must not.
///
/// gdbserver (1234, 2345), Delve (2345, 38697, 40000), vsdbg and older JDWP examples (4711), JDWP (5005, 8787),
/// debugpy (5678), Ruby's rdbg (12345) and ruby-debug-ide (1234), Chrome `DevTools` (9222), node inspector (9229, 9230).
pub const DEBUGGER_PORTS: [u16; 12] =
    [1234, 2345, 4711, 5005, 5678, 8787, 9222, 9229, 9230, 12_345, 38_697, 40_000];

/// A `--port POD[:LOCAL][/tcp|/udp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortMapping {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port in the pod.
    pub pod: u16,
    /// Port on which the program listens.
    pub local: u16,
}

/// Not a `--port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a port mapping; expected POD, POD:LOCAL, and `/udp` for UDP, ports from 1 to 65535")]
pub struct PortMappingError(String);

impl FromStr for PortMapping {
    type Err = PortMappingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || PortMappingError(text.to_owned());
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(error()),
        };
        let port = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|port: &u16| plain && *port != 0).ok_or_else(error)
        };
        let (pod, local) = match ports.split_once(':') {
            Some((pod, local)) => (port(pod)?, port(local)?),
            None => (port(ports)?, port(ports)?),
        };
        Ok(Self { protocol, pod, local })
    }
}

/// What is known about ports before the program starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRules {
    /// Container ports and the ports that Services target.
    pub declared: BTreeSet<(Protocol, u16)>,
    /// `--port`; each is declared as well.
    pub mappings: Vec<PortMapping>,
    /// `--publish`: ports of the program that only the laptop shall reach.
    pub publish: BTreeSet<u16>,
}

/// What is to be open at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenPorts {
    /// In the pod, by the agent.
    pub pod: BTreeSet<PodPort>,
    /// On the laptop's 127.0.0.1; the same port in the shell.
    pub laptop: BTreeSet<u16>,
}

impl PortRules {
    /// The port on which the program answers for a port of the pod.
    pub fn local(&self, protocol: Protocol, pod: u16) -> u16 {
        self.mappings
            .iter()
            .find(|mapping| (mapping.protocol, mapping.pod) == (protocol, pod))
            .map_or(pod, |mapping| mapping.local)
    }

    /// The table. `handover`: whether the stand-in has taken over.
    pub fn open(&self, listeners: &Listeners, handover: bool) -> OpenPorts {
        let mut open = OpenPorts::default();
        let mut declared = self.declared.clone();
        declared.extend(self.mappings.iter().map(|mapping| (mapping.protocol, mapping.pod)));
        // Ports of the program that answer under another number in the pod.
        let mapped: BTreeSet<(Protocol, u16)> = self
            .mappings
            .iter()
            .filter(|mapping| mapping.pod != mapping.local)
            .map(|mapping| (mapping.protocol, mapping.local))
            .collect();
        if handover {
            open.pod.extend(declared.iter().map(|(protocol, port)| PodPort {
                protocol: *protocol,
                scope: Scope::Pod,
                port: *port,
            }));
        }
        // Port → whether it is reachable beyond loopback: of several listeners on one port the wider one counts.
        let mut listening: BTreeMap<(Protocol, u16), bool> = BTreeMap::new();
        for listener in listeners.iter() {
            *listening.entry((listener.protocol, listener.port)).or_default() |= !listener.is_loopback();
        }
        for ((protocol, port), wide) in listening {
            let private =
                protocol == Protocol::Tcp && (self.publish.contains(&port) || DEBUGGER_PORTS.contains(&port));
            if private {
                open.laptop.insert(port);
            }
            if private || declared.contains(&(protocol, port)) || mapped.contains(&(protocol, port)) {
                continue;
            }
            match (protocol, wide) {
                (Protocol::Tcp, true) => {
                    open.pod.insert(PodPort { protocol, scope: Scope::Pod, port });
                }
                (Protocol::Tcp, false) => {
                    open.pod.insert(PodPort { protocol, scope: Scope::Loopback, port });
                    open.laptop.insert(port);
                }
                (Protocol::Udp, true) if port < EPHEMERAL => {
                    open.pod.insert(PodPort { protocol, scope: Scope::Pod, port });
                }
                (Protocol::Udp, _) => {}
            }
        }
        open
    }
}

#[cfg(test)]
mod tests;
