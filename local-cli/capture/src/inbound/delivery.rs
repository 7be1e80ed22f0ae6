//! Where a client's connection goes, by what listens. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use devproxy_namespaces::Side;
use devproxy_tunnel::control::Protocol;

use crate::listeners::Listeners;

/// A connection to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The namespace that it comes from.
    pub(crate) side: Side,
    /// Source address; none where the client's cannot be kept.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) to: SocketAddr,
}

/// Who connects to what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The shell's own addresses: those that the pod had when the session began.
    pub(crate) addresses: &'a BTreeSet<IpAddr>,
    pub(crate) client: SocketAddr,
    /// The pod's address that the client connected to.
    pub(crate) local: IpAddr,
    /// The program's port.
    pub(crate) port: u16,
}

impl Place<'_> {
    /// The widest listener first: one on the pod's address, then loopback, then one of the other address family,
    /// which cannot see the client's address (node listens on `::1` when told `localhost`).
    pub(crate) fn delivery(&self, listeners: &Listeners, protocol: Protocol) -> Option<Delivery> {
        let takes =
            |address: IpAddr| listeners.on(protocol, self.port).any(|listener| listener.takes(address));
        let client = SocketAddr::new(self.client.ip().to_canonical(), self.client.port());
        let v4 = client.is_ipv4();
        let to = |address: IpAddr| SocketAddr::new(address, self.port);
        // Packets with a source of the shell's own must not arrive on its eth0: the kernel takes them for forged.
        let inside = client.ip().is_loopback()
            || self.addresses.contains(&client.ip())
            || client.ip() == self.local.to_canonical();
        let own = self.addresses.iter().copied().filter(|own| own.is_ipv4() == v4);
        let loopback = loopback(v4);
        if inside {
            // A pod address that the shell does not have (the agent's pod was replaced) is no source here.
            let known = client.ip().is_loopback() || self.addresses.contains(&client.ip());
            let from = known.then_some(client);
            let prefer_loopback = client.ip().is_loopback();
            let mut candidates: Vec<IpAddr> = own.collect();
            if prefer_loopback {
                candidates.insert(0, loopback);
            } else {
                candidates.push(loopback);
            }
            if let Some(address) = candidates.into_iter().find(|address| takes(*address)) {
                return Some(Delivery { side: Side::Shell, from, to: to(address) });
            }
        } else {
            for address in own {
                if takes(address) {
                    return Some(Delivery { side: Side::Gateway, from: Some(client), to: to(address) });
                }
            }
            if takes(loopback) {
                return Some(Delivery { side: Side::Shell, from: Some(client), to: to(loopback) });
            }
        }
        let others = self.addresses.iter().copied().filter(|own| own.is_ipv4() != v4);
        [self::loopback(!v4)]
            .into_iter()
            .chain(others)
            // Whatever single loopback address it has, such as 127.0.0.2.
            .chain(listeners.on(protocol, self.port).map(|listener| listener.address))
            .find(|address| !address.is_unspecified() && takes(*address))
            .map(|address| Delivery { side: Side::Shell, from: None, to: to(address) })
    }
}

fn loopback(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(client: &str, local: &str, lines: &[&str]) -> Option<(Side, Option<String>, String)> {
        let addresses = ["10.244.3.17".parse().unwrap(), "fd00::17".parse().unwrap()].into();
        let client = client.parse().unwrap();
        let place = Place { addresses: &addresses, client, local: local.parse().unwrap(), port: 8080 };
        place
            .delivery(&Listeners::of(lines), Protocol::Tcp)
            .map(|found| (found.side, found.from.map(|from| from.to_string()), found.to.to_string()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with an Option")]
    fn expected(side: Side, from: &str, to: &str) -> Option<(Side, Option<String>, String)> {
        Some((side, (!from.is_empty()).then(|| from.to_owned()), to.to_owned()))
    }

    #[test]
    fn a_client_of_the_cluster_arrives_by_eth0_with_its_own_address() {
        let client = "10.244.0.77:41000";
        for line in ["tcp 0.0.0.0:8080", "tcp [::]:8080", "tcp 10.244.3.17:8080"] {
            assert_eq!(
                delivery(client, "10.244.3.17", &[line]),
                expected(Side::Gateway, client, "10.244.3.17:8080"),
                "{line}"
            );
        }
        let client = "[fd00::77]:41000";
        for line in ["tcp [::]:8080", "tcp [::]:8080*", "tcp [fd00::17]:8080"] {
            assert_eq!(
                delivery(client, "fd00::17", &[line]),
                expected(Side::Gateway, client, "[fd00::17]:8080"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_loopback_listener_sees_the_client_too() {
        let client = "10.244.0.77:41000";
        assert_eq!(
            delivery(client, "10.244.3.17", &["tcp 127.0.0.1:8080"]),
            expected(Side::Shell, client, "127.0.0.1:8080")
        );
        let client = "[fd00::77]:41000";
        assert_eq!(
            delivery(client, "fd00::17", &["tcp [::1]:8080"]),
            expected(Side::Shell, client, "[::1]:8080")
        );
    }

    #[test]
    fn a_listener_of_the_other_family_is_reached_without_the_address() {
        assert_eq!(
            delivery("10.244.0.77:41000", "10.244.3.17", &["tcp [::1]:8080"]),
            expected(Side::Shell, "", "[::1]:8080")
        );
        assert_eq!(
            delivery("[fd00::77]:41000", "fd00::17", &["tcp 0.0.0.0:8080"]),
            expected(Side::Shell, "", "127.0.0.1:8080")
        );
        assert_eq!(
            delivery("10.244.0.77:41000", "10.244.3.17", &["tcp 127.0.0.2:8080"]),
            expected(Side::Shell, "", "127.0.0.2:8080")
        );
    }

    #[test]
    fn a_client_inside_the_pod_stays_inside() {
        assert_eq!(
            delivery("127.0.0.1:41000", "127.0.0.1", &["tcp 0.0.0.0:8080"]),
            expected(Side::Shell, "127.0.0.1:41000", "127.0.0.1:8080")
        );
        assert_eq!(
            delivery("10.244.3.17:41000", "10.244.3.17", &["tcp 0.0.0.0:8080"]),
            expected(Side::Shell, "10.244.3.17:41000", "10.244.3.17:8080")
        );
        assert_eq!(
            delivery("10.244.3.99:41000", "10.244.3.99", &["tcp 0.0.0.0:8080"]),
            expected(Side::Shell, "", "10.244.3.17:8080"),
            "the address of a replaced agent is not the shell's"
        );
    }

    #[test]
    fn nothing_listens_nowhere_to_go() {
        assert_eq!(
            delivery("10.244.0.77:41000", "10.244.3.17", &["tcp 0.0.0.0:8081", "udp 0.0.0.0:8080"]),
            None
        );
    }
}
