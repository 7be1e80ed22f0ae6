//! The pod's main interface: the one with the default route, else the first that is not the loopback.

use std::net::{IpAddr, Ipv6Addr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use crate::log;

/// Of an interface that does not say: Ethernet's.
const MTU: u32 = 1500;

/// Addresses and MTU of an interface.
pub(super) struct Interface {
    /// IPv4 first, without link-local ones.
    pub(super) addresses: Vec<IpAddr>,
    /// Bytes.
    pub(super) mtu: u32,
}

/// The main interface; without any, no addresses.
pub(super) fn main() -> Interface {
    let all: Vec<_> = match getifaddrs() {
        Ok(all) => all.filter(|each| !each.flags.contains(InterfaceFlags::IFF_LOOPBACK)).collect(),
        Err(e) => {
            log::line(format_args!("cannot list the interfaces: {e}"));
            Vec::new()
        }
    };
    let addressed = |name: &String| all.iter().any(|each| each.interface_name == *name && ip(each).is_some());
    let name = default_route()
        .filter(addressed)
        .or_else(|| all.iter().find(|each| ip(each).is_some()).map(|each| each.interface_name.clone()));
    let Some(name) = name else { return Interface { addresses: Vec::new(), mtu: MTU } };
    let mut addresses: Vec<IpAddr> =
        all.iter().filter(|each| each.interface_name == name).filter_map(ip).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    Interface { addresses, mtu: mtu(&name).unwrap_or(MTU) }
}

fn ip(interface: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip()).filter(|ip| !ip.is_link_local()).map(IpAddr::V4);
    }
    let v6: Ipv6Addr = address.as_sockaddr_in6()?.ip();
    Some(v6).filter(|ip| !ip.is_unicast_link_local()).map(IpAddr::V6)
}

/// From /proc, which needs no right that `restricted` takes away.
fn default_route() -> Option<String> {
    let v4 = std::fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
    default_route_v4(&v4).or_else(|| default_route_v6(&v6)).map(str::to_owned)
}

/// Columns: `Iface Destination Gateway Flags RefCnt Use Metric Mask …`
fn default_route_v4(table: &str) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        (columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000")).then(|| columns[0])
    })
}

/// Columns: destination, its length, source, its length, next hop, metric, references, use, flags, name. The kernel's own
/// entry for "no route" is a default route of `lo`.
fn default_route_v6(table: &str) -> Option<&str> {
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let default = columns.get(1) == Some(&"00") && columns[0].bytes().all(|byte| byte == b'0');
        columns.get(9).copied().filter(|name| default && *name != "lo")
    })
}

/// From /sys, or (where a container has none) from the IPv6 settings, which say the same.
fn mtu(name: &str) -> Option<u32> {
    [format!("/sys/class/net/{name}/mtu"), format!("/proc/sys/net/ipv6/conf/{name}/mtu")]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_is_found_among_others() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                  tun0\t00000A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
                  eth0\t00000000\t0101F40A\t0003\t0\t0\t0\t00000000\n";
        assert_eq!(default_route_v4(v4), Some("eth0"));
        assert_eq!(default_route_v4("Iface\n"), None);
        let zero = "0".repeat(32);
        let no_route = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n");
        let route = format!("{zero} 00 {zero} 00 fe800000000000000000000000000001 400 1 0 3     eth0\n");
        assert_eq!(default_route_v6(&(no_route.clone() + &route)), Some("eth0"));
        assert_eq!(default_route_v6(&no_route), None);
    }
}
