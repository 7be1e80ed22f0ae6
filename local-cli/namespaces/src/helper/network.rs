//! The two network namespaces, joined by the pair `dp0` (gateway) – `eth0` (shell).

use std::{
    fs::{self, File},
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
    unistd::{getgid, getuid},
};

use super::sockets::{self, Caught};
use crate::{
    Catchers, DELIVER, Family, Kind, NamespaceError, OWN, Side, Sockets, Spec,
    failure::At,
    netlink::{
        nftables::{Batch, Hold, Rule, commit},
        queue,
        route::Routes,
    },
};

type Result<T> = std::result::Result<T, NamespaceError>;

/// Index of `lo`, the first link of every network namespace.
const LOOPBACK: u32 = 1;
const INSIDE: &str = "eth0";
const BEHIND: &str = "dp0";
/// IPv6 does not work below.
const LEAST_MTU: u32 = 1280;
const MOST_MTU: u32 = 65535;
const TABLE: &str = "devproxy";
const BEFORE_ALL: i32 = -300; // NF_IP_PRI_RAW
const BEFORE_ROUTING: i32 = -150; // NF_IP_PRI_MANGLE

/// Both network namespaces; the process itself sits in the shell's.
#[derive(Debug)]
pub(super) struct Network {
    gateway: OwnedFd,
    shell: OwnedFd,
}

impl Network {
    /// Leaves the laptop's namespaces and sets all up.
    pub(super) fn create(spec: &Spec) -> Result<(Self, Sockets)> {
        leave()?;
        let gateway = current()?;
        unshare(CloneFlags::CLONE_NEWNET).at("unshare(CLONE_NEWNET)")?;
        let shell = current()?;
        let network = Self { gateway, shell };
        let kernel: Vec<_> =
            [Family::V4, Family::V6].into_iter().filter(|f| sockets::supported(*f)).collect();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in &spec.addresses {
            if kernel.contains(&Family::of(*address)) && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        let families: Vec<_> =
            kernel.iter().copied().filter(|f| addresses.iter().any(|a| Family::of(*a) == *f)).collect();

        network.within(Side::Gateway, || {
            let routes = Routes::open().at("open rtnetlink")?;
            routes
                .add_veth(BEHIND, INSIDE, network.shell.as_fd(), spec.mtu.clamp(LEAST_MTU, MOST_MTU))
                .at("make the veth pair")
        })?;
        let gateway = network.within(Side::Gateway, || behind(&addresses, &families))?;
        let shell = network.within(Side::Shell, || inside(&addresses, &kernel))?;
        let diag = sockets::diag().at("open SOCK_DIAG")?;
        Ok((network, Sockets { gateway, shell, diag }))
    }

    /// Runs `work` in one of the namespaces. For the gateway's in a thread of its own: who enters through the helper's
    /// pid (`Entrance`) gets the namespaces of its first thread, which must be the shell's at every moment.
    pub(super) fn within<T: Send>(&self, side: Side, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if side == Side::Shell {
            return work();
        }
        std::thread::scope(|scope| {
            let inside = || {
                setns(&self.gateway, CloneFlags::CLONE_NEWNET).at("setns to the gateway")?;
                work()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// User namespace with the identity map, mount and UTS namespace, and the network namespace that becomes the gateway.
fn leave() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET,
    )
    .at("unshare(CLONE_NEWUSER|NEWNS|NEWUTS|NEWNET)")?;
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1"))
}

fn current() -> Result<OwnedFd> {
    File::open("/proc/self/ns/net").map(Into::into).at("open /proc/self/ns/net")
}

/// The gateway: everything that arrives on `dp0` is for the world.
fn behind(addresses: &[IpAddr], families: &[Family]) -> Result<Catchers> {
    let link = prepare(BEHIND)?;
    // Bursts of connections wait in the catcher's backlog. The shell keeps the default, which the pod has.
    let _ = set("core/somaxconn", "16384");
    let routes = Routes::open().at("open rtnetlink")?;
    for address in addresses {
        routes.add_host_route(link, *address).at("route to the shell")?;
    }
    for family in families {
        // Any source passes the reverse-path check, and sockets with a foreign address find a way.
        routes.add_default_route(link, *family, None).at("default route of the gateway")?;
        deliver_marked(&routes, *family)?;
    }
    let set = Set::make(families)?;
    for (family, tcp, udp) in set.ports() {
        let mut batch = Batch::new(family, TABLE);
        batch.chain("deliver", BEFORE_ROUTING);
        for rule in [
            Rule::default().other_link(link).accept(),
            // Before the socket match: a SYN for a connection in TIME_WAIT must reach the listener.
            Rule::default().syn().tproxy(family, tcp).set_mark(DELIVER).accept(),
            Rule::default().tcp().socket(true).set_mark(DELIVER).accept(),
            // Finds the connected socket of a flow by itself. A match for sockets ahead of it would also find one that is
            // bound and not yet connected: to another program, when the datagram looks for it again.
            Rule::default().udp().tproxy(family, udp).set_mark(DELIVER).accept(),
        ] {
            batch.rule("deliver", &rule);
        }
        commit([batch]).at("nf_tables rules of the gateway")?;
    }
    // Echo requests will be held here beside the SYNs, in a queue of their own.
    let held = set.hold(|| vec![(Rule::default().link(link).syn(), Then::Hold)]);
    set.finish(Side::Gateway, families, held)
}

/// The shell: looks like the pod; on its loopback a local listener wins, the rest is the pod's loopback.
fn inside(addresses: &[IpAddr], kernel: &[Family]) -> Result<Catchers> {
    let link = prepare(INSIDE)?;
    let routes = Routes::open().at("open rtnetlink")?;
    for address in addresses {
        routes.add_address(link, *address).at("address of the shell")?;
    }
    for family in kernel {
        if let Some(source) = addresses.iter().find(|a| Family::of(**a) == *family) {
            routes.add_default_route(link, *family, Some(*source)).at("default route of the shell")?;
            // Not without an address: IPv6 would then choose ::1 as source and find every target reachable.
            routes.add_loopback_rule(*family).at("rule for loopback addresses")?;
        }
        deliver_marked(&routes, *family)?;
    }
    let set = Set::make(kernel)?;
    for (family, tcp, udp) in set.ports() {
        let mut batch = Batch::new(family, TABLE);
        batch.chain("deliver", BEFORE_ROUTING);
        for rule in [
            Rule::default().other_link(LOOPBACK).accept(),
            Rule::default().marked(OWN).accept(),
            Rule::default().syn().socket(false).accept(),
            Rule::default().syn().tproxy(family, tcp).set_mark(DELIVER).accept(),
            Rule::default().tcp().socket(true).set_mark(DELIVER).accept(),
            // The program's own; a flow's socket is TPROXY's to find, as in the gateway.
            Rule::default().udp().socket(false).accept(),
            Rule::default().udp().tproxy(family, udp).set_mark(DELIVER).accept(),
        ] {
            batch.rule("deliver", &rule);
        }
        commit([batch]).at("nf_tables rules of the shell")?;
    }
    let held = set.hold(|| {
        vec![
            (Rule::default().other_link(LOOPBACK), Then::Accept),
            (Rule::default().marked(OWN), Then::Accept),
            (Rule::default().syn().socket(false), Then::Accept),
            (Rule::default().syn(), Then::Hold),
        ]
    });
    set.finish(Side::Shell, kernel, held)
}

/// Sysctls of this namespace, then `lo` and `name` up. Gives the index of `name`.
fn prepare(name: &str) -> Result<u32> {
    let link = if_nametoindex(name).at(format!("find {name}"))?;
    // A new namespace inherits much of this from the laptop: Docker forwards, systemd sets rp_filter.
    for scope in ["all", "default", "lo", name] {
        set(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
    }
    set("ipv4/ip_forward", "0")?;
    set("ipv4/ip_unprivileged_port_start", "0")?;
    let gid = getgid();
    set("ipv4/ping_group_range", &format!("{gid} {gid}"))?;
    if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        set("ipv6/conf/all/forwarding", "0")?;
        for scope in ["all", "default", "lo", name] {
            set(&format!("ipv6/conf/{scope}/disable_ipv6"), "0")?;
        }
        // No link-local address, no router: the pod's addresses are all there is.
        set(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
        set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        set(&format!("ipv6/conf/{name}/router_solicitations"), "0")?;
    }
    let routes = Routes::open().at("open rtnetlink")?;
    routes.set_up(LOOPBACK, true).at("set lo up")?;
    routes.set_up(link, false).at(format!("set {name} up"))?;
    Ok(link)
}

fn deliver_marked(routes: &Routes, family: Family) -> Result<()> {
    routes.add_mark_rule(family, DELIVER).at("rule for marked packets")?;
    routes.add_local_default(LOOPBACK, family).at("route of marked packets")
}

/// `/proc/sys/net` shows the network namespace of the task that opens it.
fn set(name: &str, value: &str) -> Result<()> {
    write(&format!("/proc/sys/net/{name}"), value)
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).at(format!("write {path}"))
}

enum Then {
    Accept,
    Hold,
}

/// The catchers of one side under construction.
struct Set {
    catchers: Vec<(Family, Caught, Caught)>,
    queue: Option<OwnedFd>,
}

impl Set {
    fn make(families: &[Family]) -> Result<Self> {
        let mut catchers = Vec::new();
        for family in families {
            let tcp = sockets::catcher(*family, Kind::Tcp).at("make the TCP catcher")?;
            let udp = sockets::catcher(*family, Kind::Udp).at("make the UDP catcher")?;
            catchers.push((*family, tcp, udp));
        }
        Ok(Self { catchers, queue: sockets::queue() })
    }

    fn ports(&self) -> impl Iterator<Item = (Family, u16, u16)> {
        self.catchers.iter().map(|(family, tcp, udp)| (*family, tcp.port, udp.port))
    }

    /// Tries the ways to hold a SYN; false when the kernel has none, and then nothing is held.
    fn hold(&self, rules: impl Fn() -> Vec<(Rule, Then)>) -> bool {
        self.queue.is_some()
            && Hold::WAYS.into_iter().any(|way| {
                let batches = self.catchers.iter().map(|(family, ..)| {
                    let mut batch = Batch::new(*family, TABLE);
                    batch.chain("hold", BEFORE_ALL);
                    for (rule, then) in rules() {
                        let rule = match then {
                            Then::Accept => rule.accept(),
                            Then::Hold => rule.queue(way, queue::NUMBER),
                        };
                        batch.rule("hold", &rule);
                    }
                    batch
                });
                commit(batches).is_ok()
            })
    }

    fn finish(self, side: Side, families: &[Family], held: bool) -> Result<Catchers> {
        let raw = |family| {
            families.contains(&family).then(|| sockets::raw(family)).transpose().at("make a raw socket")
        };
        let mut catchers = Catchers {
            side,
            tcp4: None,
            tcp6: None,
            udp4: None,
            udp6: None,
            queue: self.queue.filter(|_| held),
            raw4: raw(Family::V4)?,
            raw6: raw(Family::V6)?,
        };
        for (family, tcp, udp) in self.catchers {
            match family {
                Family::V4 => (catchers.tcp4, catchers.udp4) = (Some(tcp.fd), Some(udp.fd)),
                Family::V6 => (catchers.tcp6, catchers.udp6) = (Some(tcp.fd), Some(udp.fd)),
            }
        }
        Ok(catchers)
    }
}
