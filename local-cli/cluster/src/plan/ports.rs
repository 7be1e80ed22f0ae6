//! The ports that the local program is expected to serve: the container's, those of the Services that select the pods,
//! and the user's own. And two free ones for the agent.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{DeclaredPort, PortMapping, Protocol};
use crate::json::{list, name, selects, text};

/// The agent's ports lie below the ephemeral range (an outgoing connection of a sidecar cannot have them) and outside
/// the usual range of node ports (with hostNetwork they are the node's).
const OWN_PORTS: std::ops::Range<u16> = 20_000..29_900;

/// The ports of `container`, and the names of the Services that select the template's pods.
pub(super) fn of(
    template: &Value,
    container: &str,
    services: &[Value],
    mappings: &[PortMapping],
) -> (Vec<DeclaredPort>, Vec<String>) {
    let mut ports: Vec<DeclaredPort> = declared(template, |name| name == container)
        .map(|(protocol, port, name)| DeclaredPort {
            protocol,
            port,
            local: port,
            name,
            service: None,
            mapped: false,
        })
        .collect();
    let elsewhere: Vec<_> = declared(template, |name| name != container).collect();
    let labels = template.pointer("/metadata/labels");
    let mut selecting = Vec::new();
    for service in services.iter().filter(|service| selects(service.pointer("/spec/selector"), labels)) {
        selecting.push(name(service).to_owned());
        for port in list(service, "/spec/ports") {
            let Some(protocol) = protocol(port) else { continue };
            for (port, port_name) in targets(port, protocol, &ports, &elsewhere) {
                match ports.iter_mut().find(|known| (known.protocol, known.port) == (protocol, port)) {
                    Some(known) => {
                        known.service.get_or_insert_with(|| name(service).to_owned());
                    }
                    None => ports.push(DeclaredPort {
                        protocol,
                        port,
                        local: port,
                        name: port_name,
                        service: Some(name(service).to_owned()),
                        mapped: false,
                    }),
                }
            }
        }
    }
    for mapping in mappings {
        match ports.iter_mut().find(|known| (known.protocol, known.port) == (mapping.protocol, mapping.pod)) {
            Some(known) => {
                known.local = mapping.local;
                known.mapped = true;
            }
            None => ports.push(DeclaredPort {
                protocol: mapping.protocol,
                port: mapping.pod,
                local: mapping.local,
                name: None,
                service: None,
                mapped: true,
            }),
        }
    }
    selecting.sort();
    (ports, selecting)
}

/// The first Service that selects the template's pods and has `port` as its own, and the port of them that it leads to.
pub(super) fn behind<'a>(
    template: &Value,
    services: &'a [Value],
    named: &[DeclaredPort],
    wanted: Protocol,
    port: u16,
) -> Option<(&'a str, u16)> {
    let labels = template.pointer("/metadata/labels");
    let mut selecting = services.iter().filter(|service| selects(service.pointer("/spec/selector"), labels));
    let leads = |service: &'a Value| {
        let own = list(service, "/spec/ports")
            .iter()
            .find(|own| protocol(own) == Some(wanted) && own.get("port") == Some(&Value::from(port)))?;
        let (target, _) = targets(own, wanted, named, &[]).into_iter().next()?;
        let is_named = named.iter().any(|port| (port.protocol, port.port) == (wanted, target));
        is_named.then(|| (name(service), target))
    };
    selecting.find_map(leads)
}

/// Tunnel port and ready port: the same for one session, free of everything that the pod declares.
pub(super) fn own(session: &str, template: &Value, ports: &[DeclaredPort]) -> (u16, u16) {
    let mut taken: BTreeSet<u16> = declared(template, |_| true).map(|(_, port, _)| port).collect();
    taken.extend(ports.iter().map(|port| port.port));
    for container in list(template, "/spec/containers").iter().chain(list(template, "/spec/initContainers")) {
        for port in list(container, "/ports") {
            taken.extend(
                port.get("hostPort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()),
            );
        }
    }
    own_ports(session, &taken)
}

pub(crate) fn own_ports(session: &str, taken: &BTreeSet<u16>) -> (u16, u16) {
    let hash = Sha256::digest(session.as_bytes());
    let size = OWN_PORTS.end - OWN_PORTS.start;
    let start = u16::from_le_bytes([hash[0], hash[1]]) % size;
    let mut free =
        (0..size).map(|step| OWN_PORTS.start + (start + step) % size).filter(|port| !taken.contains(port));
    // A pod declares at most a few hundred ports; thousands are free.
    (free.next().unwrap_or(OWN_PORTS.start), free.next().unwrap_or(OWN_PORTS.start + 1))
}

type ContainerPort = (Protocol, u16, Option<String>);

/// Declared ports of the containers whose name passes `wanted`; sidecars among the init containers count.
fn declared(template: &Value, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = ContainerPort> {
    list(template, "/spec/containers")
        .iter()
        .chain(list(template, "/spec/initContainers"))
        .filter(|container| wanted(text(container, "/name")))
        .flat_map(|container| list(container, "/ports"))
        .filter_map(|port| {
            let number = port
                .get("containerPort")
                .and_then(Value::as_u64)
                .and_then(|port| u16::try_from(port).ok())?;
            let name = text(port, "/name");
            Some((protocol(port)?, number, (!name.is_empty()).then(|| name.to_owned())))
        })
        .collect::<Vec<_>>()
        .into_iter()
}

/// The ports that a Service port leads to; none if it leads to another container.
fn targets(
    service_port: &Value,
    protocol: Protocol,
    ours: &[DeclaredPort],
    elsewhere: &[ContainerPort],
) -> Vec<(u16, Option<String>)> {
    let target = service_port.get("targetPort").filter(|target| **target != 0 && **target != "");
    match target.or_else(|| service_port.get("port")) {
        Some(Value::String(wanted)) => ours
            .iter()
            .filter(|port| port.protocol == protocol && port.name.as_deref() == Some(wanted))
            .map(|port| (port.port, port.name.clone()))
            .collect(),
        Some(number) => number
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| {
                ours.iter().any(|ours| (ours.protocol, ours.port) == (protocol, *port))
                    || !elsewhere.iter().any(|other| (other.0, other.1) == (protocol, *port))
            })
            .map(|port| (port, None))
            .into_iter()
            .collect(),
        None => Vec::new(),
    }
}

/// `None` for SCTP.
fn protocol(port: &Value) -> Option<Protocol> {
    match text(port, "/protocol") {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}
