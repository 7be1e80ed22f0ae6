//! Clients in the cluster reach the local program by every way that led to the original, and it sees who they are.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::{App, Bed, Namespace, pod_addresses};
use nix::sys::signal::Signal;
use serde_json::json;

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours.
const RESTORE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_the_original_leads_to_the_local_program_which_sees_its_clients() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("clients").await?;
    let cart = App::shop("cart").drain(1).udp_port("echo", 9090).env("UDP_ECHO", "9090");
    tokio::try_join!(
        shop.deploy(cart.service(json!({"type": "NodePort"}))),
        shop.deploy(App::shop("orders")),
        async { shop.client().await.map(drop) },
    )?;
    let headless =
        json!({"clusterIP": "None", "selector": {"app": "cart"}, "ports": [{"name": "http", "port": 8080}]});
    shop.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"}, "spec": headless}),
    )
    .await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.env("VERSION", "mine").spawn()?;
    swap.wait_for("✓ handover", SWAP).await?;
    shop.until_swapped("cart").await?;

    let (service, stand_in) =
        (shop.service_addresses("cart").await?, addresses(&shop, "devproxy.dev/session").await?);
    let clients = pod_addresses(&shop.get(["pod", shop.client().await?]).await?)?;
    for way in [service, stand_in].concat() {
        let peer = seen(&shop, &SocketAddr::new(way, 8080).to_string()).await?;
        let same_family = clients.iter().find(|client| client.is_ipv4() == way.is_ipv4());
        ensure!(Some(&peer) == same_family, "{way}: {peer}, not one of {clients:?}");
    }
    let full = format!("cart.{}.svc.cluster.local", shop.name());
    for name in ["cart", &full, "headless"] {
        let peer = seen(&shop, &format!("{name}:8080")).await?;
        ensure!(clients.contains(&peer), "{name}: {peer}, not one of {clients:?}");
    }

    // There the node's own address takes the client's place, as it does before a swap.
    let nodes = shop.get(["nodes"]).await?;
    let node = nodes["items"][0]["status"]["addresses"][0]["address"].as_str().context("no address")?;
    let port = &shop.get(["service", "cart"]).await?["spec"]["ports"][0]["nodePort"];
    let answer = shop.ask(&format!("http://{node}:{port}/")).await?;
    ensure!(answer.starts_with("cart mine "), "{answer}");

    let orders = addresses(&shop, "app=orders").await?;
    for text in ["hello", "again"] {
        let echoed = shop.ask(&format!("http://orders:8080/udp/cart:9090/{text}")).await?;
        let (peer, said) = echoed.split_once(' ').with_context(|| echoed.clone())?;
        let peer: SocketAddr = peer.parse()?;
        ensure!(orders.contains(&peer.ip()) && said == text, "{echoed}, not from one of {orders:?}");
    }

    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?.success()?;
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)
}

/// As whom the program at `host` sees the client.
async fn seen(shop: &Namespace, host: &str) -> Result<IpAddr> {
    let answer = shop.ask(&format!("http://{host}/peer")).await?;
    let peer: SocketAddr = answer.trim().parse().with_context(|| format!("{host}: {answer}"))?;
    Ok(peer.ip())
}

async fn addresses(shop: &Namespace, pod: &str) -> Result<[IpAddr; 2]> {
    pod_addresses(&shop.get(["pods", "--selector", pod]).await?["items"][0])
}
