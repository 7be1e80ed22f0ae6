//! The node's network namespace and the one pair of interfaces that joins it to the machine.

use std::fs;

use anyhow::Result;

use crate::host::namespace::NetworkNamespace;
use crate::host::program::run;

/// The node's addresses and ranges: carrier-grade and unique-local ranges that hardly any machine uses itself.
#[derive(Debug)]
pub struct Addresses;

impl Addresses {
    /// The node, where the API server answers on port 6443.
    pub const NODE: &str = "100.64.7.2";
    /// The node's IPv6 address.
    pub const NODE6: &str = "fd00:64:7::2";
    /// Pods of both families, as the controllers take them.
    pub const PODS: &str = "10.244.0.0/16,fd00:10:244::/56";
    /// Services of both families.
    pub const SERVICES: &str = "10.96.0.0/16,fd00:10:96::/112";
    /// CoreDNS.
    pub const DNS: &str = "10.96.0.10";
}

const NAMESPACE: &str = "dpnode";
const MACHINE_SIDE: &str = "dpn0";

pub(super) fn namespace() -> NetworkNamespace {
    NetworkNamespace::named(NAMESPACE)
}

pub(super) fn create() -> Result<()> {
    let node = NetworkNamespace::create(NAMESPACE)?;
    run("ip", &["link", "add", MACHINE_SIDE, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE])?;
    run("ip", &["addr", "add", "100.64.7.1/24", "dev", MACHINE_SIDE])?;
    run("ip", &["addr", "add", "fd00:64:7::1/64", "dev", MACHINE_SIDE, "nodad"])?;
    run("ip", &["link", "set", MACHINE_SIDE, "up"])?;
    node.ip(&["addr", "add", "100.64.7.2/24", "dev", "eth0"])?;
    node.ip(&["addr", "add", "fd00:64:7::2/64", "dev", "eth0", "nodad"])?;
    node.ip(&["link", "set", "eth0", "up"])?;
    // A default route that leads nowhere: kube-proxy and the API server want one, and no packet leaves the machine,
    // which does not forward for this range.
    node.ip(&["route", "add", "default", "via", "100.64.7.1"])?;
    node.ip(&["-6", "route", "add", "default", "via", "fd00:64:7::1"])?;
    node.enter(|| {
        // /proc/sys/net shows the namespace of the thread that opens it.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        Ok(())
    })
}

pub(super) fn remove() -> Result<()> {
    if run("ip", &["link", "show", MACHINE_SIDE]).is_ok() {
        run("ip", &["link", "delete", MACHINE_SIDE])?;
    }
    namespace().remove()
}
