//! The shell's network is the pod's: the same probe, run in the original's pod and in the shell, prints the same.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use devproxy_tests::host::namespace::NetworkNamespace;
use devproxy_tests::host::packages;
use devproxy_tests::host::program::run;
use devproxy_tests::{App, Bed, Image, Laptop, Namespace, pod_addresses};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SWAP: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
const PROBED: Duration = Duration::from_secs(90);
const PROBE: &str = include_str!("network/probe.py");

/// Networks behind the node, each with its answer as nftables has it; of the ranges for documentation, so nobody's.
const FATES: [(&str, &str, &str, &str); 6] = [
    ("no-host", "16", "reject with icmp host-unreachable", "reject with icmpv6 addr-unreachable"),
    ("no-network", "32", "reject with icmp net-unreachable", "reject with icmpv6 no-route"),
    ("prohibited", "48", "reject with icmp admin-prohibited", "reject with icmpv6 admin-prohibited"),
    ("no-port", "64", "reject with icmp port-unreachable", "reject with icmpv6 port-unreachable"),
    ("reset", "80", "meta l4proto tcp reject with tcp reset", "meta l4proto tcp reject with tcp reset"),
    ("silent", "96", "drop", "drop"),
];

/// The node's answers for [`FATES`], while it lives.
struct Fates(NetworkNamespace);

impl Fates {
    fn at(network: NetworkNamespace) -> Result<Self> {
        let fates = Self(network);
        fates.remove()?;
        let mut rules = "add table inet fates\n\
            add chain inet fates forward { type filter hook forward priority -10; }\n"
            .to_owned();
        for (_, number, v4, v6) in FATES {
            writeln!(rules, "add rule inet fates forward ip daddr 198.51.100.{number}/28 {v4}")?;
            writeln!(rules, "add rule inet fates forward ip6 daddr 2001:db8:64:{number}::/64 {v6}")?;
        }
        fates.nft(&rules)?;
        // The kernel would answer once a second only.
        fates.limit("0", "0")?;
        Ok(fates)
    }

    fn nft(&self, rules: &str) -> Result<()> {
        self.0.enter(|| run("nft", &[rules]).map(drop))
    }

    fn limit(&self, v4: &str, v6: &str) -> Result<()> {
        self.0.enter(|| {
            fs::write("/proc/sys/net/ipv4/icmp_ratelimit", v4)?;
            fs::write("/proc/sys/net/ipv6/icmp/ratelimit", v6)?;
            Ok(())
        })
    }

    fn remove(&self) -> Result<()> {
        self.nft("add table inet fates; delete table inet fates")
    }
}

impl Drop for Fates {
    fn drop(&mut self) {
        // The kernel's own limits.
        if let Err(error) = self.remove().and_then(|()| self.limit("1000", "1000")) {
            eprintln!("the test's rules stay in the node: {error:#}");
        }
    }
}

/// Waits until kube-proxy leads to `service` on both families; before, it refuses.
async fn answering(shop: &Namespace, service: &str) -> Result<()> {
    let spec = shop.get(["service", service]).await?;
    for address in spec["spec"]["clusterIPs"].as_array().into_iter().flatten() {
        let address: IpAddr = address.as_str().unwrap_or_default().parse()?;
        let url = format!("http://{}/version", SocketAddr::new(address, 8080));
        shop.until(&format!("an answer of {url}"), SWAP, async || shop.ask(&url).await.is_ok()).await?;
    }
    Ok(())
}

/// `probe`, which will be swapped, with a neighbour on its loopback; `target`, which it speaks to; and Services of
/// the kinds that DNS tells apart.
async fn shop(bed: &Bed) -> Result<Namespace> {
    let shop = bed.namespace("network").await?;
    let ready = json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    let probe = App::of(Image::Python, "probe")
        .port("http", 8080)
        .args(["-m", "http.server", "--bind", "::", "8080"])
        .container(ready)
        .sidecar(json!({
            "name": "neighbour", "image": Image::Python.reference(), "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", "mkdir /tmp/www; cd /tmp/www; echo neighbour >index.html; \
                trap exit TERM; python3 -m http.server --bind 127.0.0.1 9100 & wait"],
        }))
        .pod(json!({"terminationGracePeriodSeconds": 1}));
    let target = App::shop("target").udp_port("echo", 9090).env("UDP_ECHO", "9090");
    tokio::try_join!(shop.deploy(probe), shop.deploy(target))?;
    answering(&shop, "target").await?;
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let ports = json!([{"name": "http", "port": 8080}]);
    shop.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        service("headless", json!({
            "clusterIP": "None", "selector": {"app": "target"}, "ports": ports, "ipFamilyPolicy": "PreferDualStack",
        })),
        service("empty", json!({
            "selector": {"app": "nobody"}, "ports": ports, "ipFamilyPolicy": "PreferDualStack",
        })),
        service("elsewhere", json!({
            "type": "ExternalName", "externalName": format!("target.{}.svc.cluster.local", shop.name()),
        })),
    ]}))
    .await?;
    Ok(shop)
}

/// What the probe is asked.
async fn questions(shop: &Namespace) -> Result<Value> {
    let services = shop.service_addresses("target").await?;
    let empty = shop.service_addresses("empty").await?;
    let pods = shop.get(["pods", "--selector=app=target"]).await?;
    let pods = pod_addresses(&pods["items"][0])?;
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for (service, empty, pod) in [(services[0], empty[0], pods[0]), (services[1], empty[1], pods[1])] {
        tcp.push(json!(["service", service, 8080]));
        tcp.push(json!(["pod", pod, 8080]));
        tcp.push(json!(["refusing", pod, 9]));
        tcp.push(json!(["no endpoints", empty, 8080]));
        udp.push(json!(["small", service, 9090, 5]));
        udp.push(json!(["large", pod, 9090, 8192]));
        udp.push(json!(["refusing", pod, 9, 5]));
    }
    for (fate, number, ..) in FATES {
        for address in [format!("198.51.100.{number}"), format!("2001:db8:64:{number}::1")] {
            tcp.push(json!([fate, address, 80]));
            udp.push(json!([fate, address, 80, 5]));
        }
    }
    for address in ["127.0.0.1", "::1", "127.8.8.8"] {
        tcp.push(json!(["own server", address, 8080]));
        tcp.push(json!(["own refusing", address, 9]));
        udp.push(json!(["own refusing", address, 9, 5]));
    }
    for address in [json!("0.0.0.0"), json!("::"), json!(format!("::ffff:{}", pods[0]))] {
        tcp.push(json!(["odd", address, 8080]));
    }
    for address in ["224.0.0.1", "255.255.255.255", "ff02::1", "fe80::1"] {
        tcp.push(json!(["no host", address, 8080]));
    }
    let namespace = shop.name();
    Ok(json!({
        "routed": services,
        "tcp": tcp,
        "udp": udp,
        "own": [8080, 9],
        "names": [
            "target", format!("target.{namespace}"), format!("target.{namespace}.svc"),
            format!("target.{namespace}.svc.cluster.local"), format!("target.{namespace}.svc.cluster.local."),
            "headless", "elsewhere", "empty", "kubernetes.default", "missing", "missing.default.svc.cluster.local",
            "localhost", "TARGET", "127.0.0.1", "",
        ],
        "reverse": [services[0], services[1], "10.96.0.1", "192.0.2.1", "127.0.0.1"],
        "urls": ["http://127.0.0.1:9100/", "http://target:8080/env/NAME", "http://headless:8080/env/NAME"],
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_sees_in_the_shell_what_it_sees_in_the_pod() -> Result<()> {
    packages::require_laptop()?;
    let bed = Bed::get().await?;
    let shop = shop(&bed).await?;
    let _fates = Fates::at(bed.node()?.network())?;
    let asked = questions(&shop).await?.to_string();
    let in_pod = shop.exec("deployment/probe", ["python3", "-c", PROBE, &asked]).await?;
    println!("{in_pod}");

    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    laptop.write_file("probe.py", 0o644, PROBE.as_bytes())?;
    let mut swap = laptop.devproxy(["swap", "probe", "-c", "probe", "--", "shopd"])?.spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("probe").await?;
    let in_shell = laptop
        .devproxy(["exec", "probe", "--", "python3", "probe.py", &asked])?
        .output(PROBED)
        .await?
        .success()?
        .stdout;
    ensure!(in_pod == in_shell, "{}", differences(&in_pod, &in_shell));

    // What its own kind of line must say, whatever both said.
    for (line, wanted) in [
        ("tcp refusing", "ECONNREFUSED"),
        ("tcp silent", "ETIMEDOUT"),
        ("tcp with a limit silent", "no answer"),
        ("tcp no-host", "EHOSTUNREACH"),
        ("tcp no-network", "ENETUNREACH"),
        ("tcp no-port", "ECONNREFUSED"),
        ("tcp reset", "ECONNREFUSED"),
        ("tcp service ", "connected peer="),
        ("tcp no endpoints", "ECONNREFUSED"),
        ("udp refusing", "ECONNREFUSED"),
        ("udp large", "8192 bytes, same=True, seen as own"),
        ("url http://127.0.0.1:9100/", "neighbour"),
    ] {
        let lines: Vec<_> = in_shell.lines().filter(|found| found.starts_with(line)).collect();
        ensure!(!lines.is_empty() && lines.iter().all(|found| found.contains(wanted)), "{line}: {lines:#?}");
    }

    the_shells_own_listener_wins(&laptop).await?;
    dig_answers(&shop, &laptop).await?;
    clients_are_seen_by_their_true_address(&shop).await?;
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?.success()?;
    shop.ready("probe").await
}

fn differences(in_pod: &str, in_shell: &str) -> String {
    let (pod, shell): (Vec<_>, Vec<_>) = (in_pod.lines().collect(), in_shell.lines().collect());
    let only = |of: &[&str], not_in: &[&str], sign: &str| -> String {
        let lines = of.iter().filter(|line| !not_in.contains(line));
        lines.flat_map(|line| [sign, " ", line, "\n"]).collect()
    };
    only(&pod, &shell, "pod  ") + &only(&shell, &pod, "shell")
}

async fn the_shells_own_listener_wins(laptop: &Laptop) -> Result<()> {
    let program = "import socket, urllib.request, http.server, threading\n\
        url = 'http://127.0.0.1:9100/'\n\
        print(urllib.request.urlopen(url).read().decode().strip())\n\
        s = socket.create_server(('127.0.0.1', 9100))\n\
        c = socket.create_connection(('127.0.0.1', 9100))\n\
        a, peer = s.accept()\n\
        print(peer == c.getsockname())\n\
        c.close(); a.close(); s.close()\n\
        print(urllib.request.urlopen(url).read().decode().strip())\n";
    let exec = laptop.devproxy(["exec", "probe", "--", "python3", "-c", program])?;
    let said = exec.output(PROBED).await?.success()?.stdout;
    ensure!(said == "neighbour\nTrue\nneighbour\n", "{said}");
    Ok(())
}

async fn dig_answers(shop: &Namespace, laptop: &Laptop) -> Result<()> {
    let [v4, v6] = shop.service_addresses("target").await?;
    let full = format!("target.{}.svc.cluster.local", shop.name());
    let srv = format!("_http._tcp.{full}");
    for (question, wanted) in [
        (vec!["+search", "target", "A"], format!("{v4}\n")),
        (vec!["+search", "target", "AAAA"], format!("{v6}\n")),
        (vec!["+tcp", &full, "A"], format!("{v4}\n")),
        (vec![&srv, "SRV"], format!(" 8080 {full}.\n")),
        (vec!["+tcp", &srv, "SRV"], format!(" 8080 {full}.\n")),
        (vec!["-x", "10.96.0.1"], "kubernetes.default.svc.cluster.local.\n".to_owned()),
    ] {
        let words = ["exec", "probe", "--", "dig", "+short"].into_iter().chain(question.iter().copied());
        let answer = laptop.devproxy(words)?.output(PROBED).await?.success()?.stdout;
        ensure!(
            answer.lines().count() == 1 && answer.ends_with(&wanted),
            "{question:?}: {answer:?} instead of {wanted:?}"
        );
    }
    Ok(())
}

async fn clients_are_seen_by_their_true_address(shop: &Namespace) -> Result<()> {
    let client = shop.client().await?;
    let client = pod_addresses(&shop.get(["pod", client]).await?)?;
    for (service, client) in shop.service_addresses("probe").await?.into_iter().zip(client) {
        let url = format!("http://{}/peer", SocketAddr::new(service, 8080));
        let peer: SocketAddr = shop.ask(&url).await?.trim().parse()?;
        ensure!(peer.ip() == client, "{peer} instead of {client}");
    }
    Ok(())
}
