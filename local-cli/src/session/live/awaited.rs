//! The ports that clients are led to: whether anybody listens there, for `devproxy status`; and a word at the terminal
//! when the program listens elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use devproxy_capture::{
    Capture, Listener,
    listeners::owner,
    ports::{DEBUGGER_PORTS, EPHEMERAL},
};
use devproxy_cluster::{DeclaredPort, Original, Plan, Protocol};
use devproxy_tunnel::control;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use crate::session::{
    process::Options,
    protocol::{self, PortPair, Silence},
    shared::Shared,
};

/// A program may open another port before the one that is waited for.
const SETTLE: Duration = Duration::from_secs(3);

/// What is waited for, and what is not taken for it.
#[derive(Debug, Clone)]
pub(super) struct Awaited {
    /// The TCP ports that a Service targets, else all that are declared; by their number on the laptop.
    ports: Vec<PortPair>,
    /// These, and what the user named: who listens on one of them may have forgotten another.
    expected: Vec<PortPair>,
    /// Ports on the laptop on which listening is no mistake.
    known: BTreeSet<u16>,
    /// How long a client of a port waits on which nobody listens, seconds.
    hold: u64,
}

impl Awaited {
    pub(super) fn of(plan: &Plan, options: &Options) -> Self {
        let tcp = || plan.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        let mut ports: Vec<_> = tcp().filter(|port| port.service.is_some()).map(awaited).collect();
        if ports.is_empty() {
            ports = tcp().map(awaited).collect();
        }
        let named = tcp().filter(|port| port.mapped).map(awaited).filter(|port| !ports.contains(port));
        let mut expected: Vec<_> = ports.iter().copied().chain(named).collect();
        for list in [&mut ports, &mut expected] {
            list.sort_unstable_by_key(|port| port.local);
        }
        let known = tcp().map(|port| port.local).chain(options.publish.iter().copied());
        Self { ports, expected, known: known.chain(DEBUGGER_PORTS).collect(), hold: options.hold }
    }

    /// As numbered on the laptop.
    pub(super) fn locals(&self) -> BTreeSet<u16> {
        self.ports.iter().map(|port| port.local).collect()
    }

    /// What is told before the program starts.
    pub(super) fn line(&self, original: &Original) -> String {
        let serving = if original.ready > 0 { "'s pods answer until then" } else { " has no ready pod" };
        let mut line = "waiting until something listens on ".to_owned();
        for (index, port) in self.ports.iter().enumerate() {
            let or = if index == 0 { "" } else { " or " };
            let _ = write!(line, "{or}{}", port.local);
            if port.pod != port.local {
                let _ = write!(line, " ({port})");
            }
        }
        line + &format!("; {}{serving}", original.name)
    }

    /// How the port `local` of the laptop is told.
    pub(super) fn told(&self, local: u16) -> String {
        let port = self.ports.iter().find(|port| port.local == local);
        port.map_or_else(|| local.to_string(), ToString::to_string)
    }

    /// The expected ports on which nobody listens, of which all listeners are given.
    fn silent<'a>(&self, listeners: impl Iterator<Item = &'a Listener>) -> Vec<PortPair> {
        let tcp = listeners.filter(|listener| listener.protocol == control::Protocol::Tcp);
        let heard: BTreeSet<u16> = tcp.map(|listener| listener.port).collect();
        self.expected.iter().copied().filter(|port| !heard.contains(&port.local)).collect()
    }

    /// Whether somebody listens where the handover waits for it.
    fn is_heard(&self, silent: &[PortPair]) -> bool {
        !self.ports.iter().all(|port| silent.contains(port))
    }

    /// What the program may have opened instead: rather for the network than for itself, rather of a lasting number.
    fn elsewhere<'a>(&self, listeners: impl Iterator<Item = &'a Listener>) -> Option<&'a Listener> {
        listeners
            .filter(|listener| listener.protocol == control::Protocol::Tcp)
            .filter(|listener| !self.known.contains(&listener.port))
            .min_by_key(|listener| (listener.is_loopback(), listener.port >= EPHEMERAL, listener.port))
    }

    fn advice(&self, who: &str, elsewhere: u16) -> Option<String> {
        let first = self.ports.first()?;
        Some(format!(
            "{who} listens on {elsewhere}, nobody on {}: start devproxy with -p {}:{elsewhere}",
            protocol::any(&self.ports),
            first.pod
        ))
    }

    /// Somebody listens, but not on these.
    fn gap(&self, silent: &[PortPair]) -> String {
        let wait = if self.hold == 0 { String::new() } else { format!("wait {} s for it, then ", self.hold) };
        format!("nobody listens on {}: clients there {wait}are reset", protocol::any(silent))
    }
}

fn awaited(port: &DeclaredPort) -> PortPair {
    PortPair { pod: port.port, local: port.local }
}

/// Who holds a listener.
pub(super) fn who(listener: Option<&Listener>) -> String {
    let owner = listener.and_then(|listener| owner(listener.inode).ok().flatten());
    owner.map_or_else(|| "the program".to_owned(), |owner| format!("pid {} ({})", owner.pid, owner.command))
}

/// What may be worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remark {
    /// The program listens on another port than it should.
    Elsewhere,
    /// It listens on one of several.
    Gap,
}

/// Keeps the state of `devproxy status`, and gives the advice: each once, it stands in the middle of the program's output.
pub(super) async fn watch(awaited: Awaited, capture: Capture, shared: Shared) {
    if awaited.expected.is_empty() {
        return;
    }
    let mut changes = capture.listeners();
    drop(capture);
    let mut silent_since = BTreeMap::new();
    let mut told = BTreeSet::new();
    let mut pending: Option<(Remark, Instant)> = None;
    loop {
        let listeners = changes.borrow_and_update().clone();
        let silent = awaited.silent(listeners.iter());
        silent_since.retain(|local, _| silent.iter().any(|port| port.local == *local));
        for port in &silent {
            silent_since.entry(port.local).or_insert_with(Timestamp::now);
        }
        // Since when nobody listens on any of them.
        let since = silent_since.values().max().copied();
        let is_heard = awaited.is_heard(&silent);
        let silence = since.map(|since| Silence { ports: silent.clone(), since, partly: is_heard });
        shared.update(|status| status.silence = silence);

        let elsewhere = awaited.elsewhere(listeners.iter());
        let remark = match (is_heard, elsewhere) {
            (false, Some(_)) => Some(Remark::Elsewhere),
            (true, _) if !silent.is_empty() => Some(Remark::Gap),
            _ => None,
        };
        let remark = remark.filter(|remark| !told.contains(remark));
        let known = |remark| pending.filter(|(before, _)| *before == remark);
        pending = remark.map(|remark| known(remark).unwrap_or_else(|| (remark, Instant::now())));
        let settled = async {
            match pending {
                Some((remark, since)) => {
                    sleep_until(since + SETTLE).await;
                    remark
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            remark = settled => {
                let line = match remark {
                    Remark::Gap => Some(awaited.gap(&silent)),
                    Remark::Elsewhere => {
                        elsewhere.and_then(|listener| awaited.advice(&who(Some(listener)), listener.port))
                    }
                };
                if let Some(line) = line {
                    shared.outlet.notice(&line).await;
                }
                told.insert(remark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(ports: &[(u16, u16)]) -> Awaited {
        let ports: Vec<_> = ports.iter().map(|(pod, local)| PortPair { pod: *pod, local: *local }).collect();
        let known = ports.iter().map(|port| port.local).chain([9229]).collect();
        Awaited { expected: ports.clone(), ports, known, hold: 30 }
    }

    fn listener(address: &str) -> Listener {
        let address: std::net::SocketAddr = address.parse().unwrap();
        Listener {
            protocol: control::Protocol::Tcp,
            port: address.port(),
            address: address.ip(),
            only_v6: false,
            inode: 0,
            uid: 1000,
        }
    }

    fn elsewhere(awaited: &Awaited, addresses: &[&str]) -> Option<u16> {
        let listeners: Vec<_> = addresses.iter().map(|address| listener(address)).collect();
        awaited.elsewhere(listeners.iter()).map(|listener| listener.port)
    }

    #[test]
    fn the_port_meant_is_the_one_that_the_network_may_reach() {
        let awaited = ports(&[(8080, 8080)]);
        assert_eq!(elsewhere(&awaited, &["0.0.0.0:8080", "127.0.0.1:9229"]), None);
        assert_eq!(elsewhere(&awaited, &["127.0.0.1:3000"]), Some(3000));
        assert_eq!(elsewhere(&awaited, &["127.0.0.1:2000", "[::]:50051", "0.0.0.0:3000"]), Some(3000));
        assert_eq!(elsewhere(&awaited, &["127.0.0.1:2000", "[::]:50051"]), Some(50051));
    }

    #[test]
    fn a_port_that_was_forgotten_is_found_beside_one_that_answers() {
        let mut awaited = ports(&[(8080, 8080)]);
        awaited.expected.push(PortPair { pod: 9999, local: 9999 });
        let silent = |address| awaited.silent([listener(address)].iter());
        let (nothing, right) = (silent("0.0.0.0:9229"), silent("127.0.0.1:8080"));
        assert!(!awaited.is_heard(&nothing) && awaited.is_heard(&right));
        // What is named beside it does not lead the original's clients away.
        assert!(!awaited.is_heard(&silent("0.0.0.0:9999")));
        assert_eq!(
            awaited.gap(&right),
            "nobody listens on 9999: clients there wait 30 s for it, then are reset"
        );
        awaited.hold = 0;
        assert_eq!(awaited.gap(&nothing), "nobody listens on 8080 or 9999: clients there are reset");
    }

    #[test]
    fn a_mapped_port_is_told_with_the_pods() {
        let original = |ready| Original {
            name: "cart".into(),
            uid: "u-1".into(),
            replicas: 1,
            ready,
            selector: serde_json::Value::Null,
            replica_owners: Vec::new(),
        };
        let (plain, mapped) = (ports(&[(8080, 8080)]), ports(&[(8080, 3000), (9090, 9090)]));
        let serving = original(1);
        assert_eq!(
            plain.line(&serving),
            "waiting until something listens on 8080; cart's pods answer until then"
        );
        assert_eq!(
            mapped.line(&original(0)),
            "waiting until something listens on 3000 (8080→3000) or 9090; cart has no ready pod"
        );
        assert_eq!((mapped.told(3000), mapped.told(9090)), ("8080→3000".into(), "9090".into()));
        assert_eq!(
            plain.advice("pid 4711 (node)", 3000).unwrap(),
            "pid 4711 (node) listens on 3000, nobody on 8080: start devproxy with -p 8080:3000"
        );
        assert_eq!(
            mapped.advice("pid 4711 (node)", 4000).unwrap(),
            "pid 4711 (node) listens on 4000, nobody on 8080→3000 or 9090: start devproxy with -p 8080:4000"
        );
    }
}
