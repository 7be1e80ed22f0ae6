//! The node's network namespace and the one pair of interfaces that joins it to the machine.

use std::fs;

use anyhow::Result;

use super::Place;
use crate::host::namespace::NetworkNamespace;
use crate::host::program::run;

/// The ranges inside of every node: private and unique-local ones that hardly any machine uses itself.
#[derive(Debug)]
pub struct Ranges;

impl Ranges {
    /// Pods of both families, as the controllers take them.
    pub const PODS: &str = "10.244.0.0/16,fd00:10:244::/56";
    /// Services of both families.
    pub const SERVICES: &str = "10.96.0.0/16,fd00:10:96::/112";
    /// CoreDNS.
    pub const DNS: &str = "10.96.0.10";
}

pub(super) fn create(place: Place) -> Result<()> {
    let namespace = place.network();
    let node = NetworkNamespace::create(namespace.name())?;
    let interface = place.interface();
    run("ip", &["link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", node.name()])?;
    run("ip", &["addr", "add", &format!("{}/24", place.gateway()), "dev", interface])?;
    run("ip", &["addr", "add", &format!("{}/64", place.gateway6()), "dev", interface, "nodad"])?;
    run("ip", &["link", "set", interface, "up"])?;
    node.ip(&["addr", "add", &format!("{}/24", place.address()), "dev", "eth0"])?;
    node.ip(&["addr", "add", &format!("{}/64", place.address6()), "dev", "eth0", "nodad"])?;
    node.ip(&["link", "set", "eth0", "up"])?;
    // A default route that leads nowhere: kube-proxy and the API server want one, and no packet leaves the machine,
    // which does not forward for this range.
    node.ip(&["route", "add", "default", "via", &place.gateway()])?;
    node.ip(&["-6", "route", "add", "default", "via", &place.gateway6()])?;
    node.enter(|| {
        // /proc/sys/net shows the namespace of the thread that opens it.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        Ok(())
    })
}

pub(super) fn remove(place: Place) -> Result<()> {
    if run("ip", &["link", "show", place.interface()]).is_ok() {
        run("ip", &["link", "delete", place.interface()])?;
    }
    place.network().remove()
}
