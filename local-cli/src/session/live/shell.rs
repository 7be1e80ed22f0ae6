//! The shell over a connected agent: namespaces, files, capture, and the tasks that keep them.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use devproxy_capture::{Capture, CaptureSettings, LocalRoutes, PortMapping, PortRules};
use devproxy_cluster::{AgentPod, Plan};
use devproxy_namespaces::{Entrance, Files, Namespaces, Spec};
use devproxy_tunnel::control::{Facts, FileKind, PodPort, Protocol, RootState, Scope};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    task::JoinSet,
    time::sleep,
};

use super::awaited::{self, Awaited};
use crate::{
    Failure,
    failure::chain,
    session::{
        ahead::helper,
        link::{self, Address, AgentHandle, Connected},
        process::{Options, Start},
        protocol::PortPair,
        shared::Shared,
    },
};

/// All that serves the shell. Dropping it ends the shell's network.
pub(super) struct Live {
    /// Commands to the agent.
    pub(super) agent: AgentHandle,
    /// The shell's traffic.
    pub(super) capture: Capture,
    /// The shell's namespaces.
    pub(super) namespaces: Arc<Namespaces>,
    /// Knows who is inside, also after the helper's end.
    pub(super) inside: Entrance,
    /// What the first agent said.
    pub(super) facts: Facts,
    /// How many files of the pod are here.
    pub(super) files: usize,
    /// What the session cannot go on without.
    pub(super) lost: mpsc::Receiver<Failure>,
    /// Link, capture, port table.
    _tasks: JoinSet<()>,
}

/// Opens the shell.
pub(super) async fn open(
    start: &Start,
    address: Address,
    mut connected: Connected,
    pod: &AgentPod,
    shared: &Shared,
) -> Result<Live, Failure> {
    let facts = connected.facts.clone();
    let spec = Spec { hostname: facts.hostname.clone(), addresses: facts.addresses.clone(), mtu: facts.mtu };
    let (namespaces, sockets) = Namespaces::create(helper(), &spec).await?;
    let inside = Entrance::of(namespaces.pid())
        .map_err(|e| Failure::new("DP-NAMESPACES", format!("the shell's namespaces are gone: {e}")))?;
    let namespaces = Arc::new(namespaces);
    let is_file = |kind: &FileKind| matches!(kind, FileKind::File(_));
    let mut trees = Vec::new();
    for state in std::mem::take(&mut connected.volumes) {
        match state {
            RootState::Tree(tree) => trees.push(tree),
            RootState::Unreadable { root, cause } => {
                shared
                    .outlet
                    .notice(&format!("`{root}` is not here: the agent cannot read it: {cause}"))
                    .await;
            }
        }
    }
    let files = trees.iter().flat_map(|tree| &tree.entries).filter(|entry| is_file(&entry.kind)).count();
    let content = Files {
        resolv_conf: facts.resolv_conf.clone(),
        hosts: facts.hosts.clone(),
        hostname: facts.hostname.clone(),
        trees,
    };
    for skipped in namespaces.mount(&content).await? {
        shared.outlet.notice(&format!("`{}` is not here: {}", skipped.path.display(), skipped.reason)).await;
    }
    let ports = port_rules(&start.plan, &start.options);
    let settings = CaptureSettings {
        addresses: facts.addresses.clone(),
        nameservers: nameservers(&facts.resolv_conf),
        ports: ports.clone(),
        hold: Duration::from_secs(start.options.hold),
        local: LocalRoutes::parse(&start.options.local).map_err(|e| Failure::new("DP-USAGE", e))?,
    };
    let (capture, driving) =
        Capture::start(settings, connected.tunnel.clone(), Arc::clone(&namespaces), sockets)
            .map_err(|e| Failure::new("DP-CAPTURE", e))?;

    let (loss, lost) = mpsc::channel(4);
    let mut tasks = JoinSet::new();
    tasks.spawn(report(loss.clone(), async move {
        let cause = driving.await.err().map_or_else(String::new, |error| chain(&error));
        Failure::new("DP-CAPTURE", format!("the shell's network failed: {cause}"))
    }));
    let helper = Arc::clone(&namespaces);
    tasks.spawn(report(loss, async move {
        helper.ended().await;
        Failure::new("DP-NAMESPACES", "the shell's namespaces are gone")
    }));
    let context = link::Context {
        address,
        capture: capture.clone(),
        namespaces: Arc::clone(&namespaces),
        roots: pod.roots(),
        shared: shared.clone(),
    };
    let (agent, keeping) = link::keep(context, connected);
    tasks.spawn(keeping);
    tasks.spawn(port_table(capture.clone(), ports, agent.clone(), shared.clone()));
    let awaited = Awaited::of(&start.plan, &start.options);
    tasks.spawn(awaited::watch(awaited, capture.clone(), shared.clone()));
    tasks.spawn(notices(capture.clone(), shared.clone()));
    Ok(Live { agent, capture, namespaces, inside, facts, files, lost, _tasks: tasks })
}

/// The nameservers of a resolv.conf.
pub(super) fn nameservers(resolv_conf: &[u8]) -> Vec<IpAddr> {
    String::from_utf8_lossy(resolv_conf)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok())
        .collect()
}

fn port_rules(plan: &Plan, options: &Options) -> PortRules {
    let mappings = plan
        .ports
        .iter()
        .filter(|port| port.local != port.port)
        .map(|port| PortMapping { protocol: protocol(port.protocol), pod: port.port, local: port.local })
        .collect();
    PortRules {
        declared: plan.ports.iter().map(|port| (protocol(port.protocol), port.port)).collect(),
        mappings,
        publish: options.publish.iter().copied().collect(),
    }
}

fn protocol(protocol: devproxy_cluster::Protocol) -> Protocol {
    match protocol {
        devproxy_cluster::Protocol::Tcp => Protocol::Tcp,
        devproxy_cluster::Protocol::Udp => Protocol::Udp,
    }
}

async fn report(loss: mpsc::Sender<Failure>, losing: impl Future<Output = Failure>) {
    let failure = losing.await;
    let _ = loss.send(failure).await;
}

/// Keeps the agent's listeners equal to the port table.
async fn port_table(capture: Capture, rules: PortRules, agent: AgentHandle, shared: Shared) {
    let mut wanted = capture.pod_ports();
    let mut told = BTreeSet::new();
    loop {
        let ports = wanted.borrow_and_update().clone();
        shared.update(|status| {
            let texts = ports.iter().map(|port| port_text(*port, &rules)).collect();
            status.ports.insert("pod".to_owned(), texts);
        });
        match agent.listen(&ports).await {
            Ok(failed) => {
                for (port, cause) in failed {
                    if told.insert(port) {
                        let port = port_text(port, &rules);
                        shared.outlet.notice(&format!("{port} cannot be opened in the pod: {cause}")).await;
                    }
                }
            }
            Err(_) if agent.is_over() => return,
            Err(failure) => {
                tracing::info!(%failure, "port table not applied");
                sleep(Duration::from_secs(1)).await;
                wanted.mark_changed();
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

fn port_text(port: PodPort, rules: &PortRules) -> String {
    let protocol = if port.protocol == Protocol::Udp { "udp" } else { "tcp" };
    let loopback = if port.scope == Scope::Loopback { " (loopback)" } else { "" };
    let port = PortPair { pod: port.port, local: rules.local(port.protocol, port.port) };
    format!("{port}/{protocol}{loopback}")
}

async fn notices(capture: Capture, shared: Shared) {
    let mut notices = capture.notices();
    drop(capture);
    loop {
        match notices.recv().await {
            Ok(notice) => shared.outlet.notice(&notice.to_string()).await,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_in_order() {
        let text = b"search shop.svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a # second\noptions ndots:5\n";
        let read = nameservers(text);
        assert_eq!(read, ["10.96.0.10".parse::<IpAddr>().unwrap(), "fd00::a".parse().unwrap()]);
    }
}
