//! The bed itself: what every other test stands on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use devproxy_tests::{App, Bed, Image};
use nix::sys::signal::Signal;
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_ready_and_pods_resolve_names() -> Result<()> {
    let bed = Bed::get().await?;
    let nodes = bed.cluster().kubectl().get(&["nodes"])?;
    let ready = nodes["items"][0]["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    assert!(ready, "{nodes}");

    let shop = bed.namespace("names").await?;
    shop.deploy(App::shop("cart")).await?;
    let found = shop.ask("http://cart:8080/resolve/cart").await?;
    assert_eq!(found.lines().count(), 2, "one address of each family: {found}");
    let found = shop.ask("http://cart:8080/resolve/kubernetes.default.svc.cluster.local").await?;
    assert_eq!(found.trim(), "10.96.0.1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_answers_on_both_families_and_the_server_sees_the_client() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("dual").await?;
    shop.deploy(App::shop("cart").udp_port("echo", 9090).env("UDP_ECHO", "9090")).await?;
    let service = shop.get(["service", "cart"]).await?;
    let client = shop.client().await?;
    let pod = shop.get(["pod", client]).await?;
    for family in 0..2 {
        let address = service["spec"]["clusterIPs"][family].as_str().unwrap_or_default();
        let own = pod["status"]["podIPs"][family]["ip"].as_str().unwrap_or_default();
        let address = SocketAddr::new(address.parse()?, 8080);
        let peer: SocketAddr = shop.ask(&format!("http://{address}/peer")).await?.trim().parse()?;
        assert_eq!(peer.ip().to_string(), own);
    }
    let echoed = shop.ask("http://cart:8080/udp/cart:9090/hello").await?;
    assert!(echoed.ends_with(" hello"), "{echoed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_reaches_the_api_and_nothing_else() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("reach").await?;
    shop.deploy(App::shop("cart")).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;

    let pods = laptop.command("kubectl").args(["get", "pods", "-o", "json"]).output(SOON).await?.success()?;
    let pods: serde_json::Value = serde_json::from_str(&pods.stdout)?;
    let pod = pods["items"][0]["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    assert!(laptop.relay().connections() > 0, "the API was asked, but not through the relay");

    for unreachable in [format!("{pod}:8080"), "10.96.0.1:443".into(), "100.64.7.2:6443".into()] {
        let asked =
            laptop.command("shopd").args(["ask", &format!("http://{unreachable}/")]).output(SOON).await?;
        assert!(asked.stderr.contains("unreachable"), "{unreachable}: {asked:?}");
    }
    let others = laptop.command("kubectl").args(["get", "pods", "-n", "kube-system"]).output(SOON).await?;
    assert!(others.stderr.contains("forbidden"), "{others:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_laptop_user_has_no_capability_and_owns_its_home() -> Result<()> {
    let bed = Bed::get().await?;
    let laptop = bed.laptop().await?;
    let status = laptop.command("cat").arg("/proc/self/status").output(SOON).await?.success()?.stdout;
    for (field, value) in [("CapPrm", "0000000000000000"), ("CapEff", "0000000000000000"), ("Groups", "")] {
        let found = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        assert_eq!(found.map(str::trim), Some(value), "{field}");
    }
    let script = "set -e; touch ~/own $XDG_RUNTIME_DIR/own; ! touch /etc/own 2>/dev/null; id -u";
    let shell = laptop.command("bash").args(["-c", script]).output(SOON).await?.success()?;
    assert_eq!(shell.stdout.trim(), laptop.uid().to_string());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_delays_holds_cuts_and_refuses() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("relay").await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let relay = laptop.relay();
    let ask = || laptop.command("kubectl").args(["get", "configmaps", "-o", "name"]);

    relay.delay(Duration::from_millis(150));
    let start = Instant::now();
    ask().output(SOON).await?.success()?;
    // TCP, TLS and one request: at least two round trips of 300 ms through the relay.
    assert!(start.elapsed() > Duration::from_millis(600), "{:?}", start.elapsed());
    relay.resume();

    relay.stall();
    let mut held = ask().spawn()?;
    assert!(held.wait(Duration::from_secs(2)).await.is_err(), "it was answered through a black hole");
    relay.resume();
    ask().output(SOON).await?.success()?;

    let script = format!("exec 3<>/dev/tcp/{}; echo open; cat <&3", laptop.api_server().replace(':', "/"));
    let mut open = laptop.command("bash").args(["-c", &script]).spawn()?;
    open.wait_for("open", SOON).await?;
    shop.until("the relay's connection", SOON, async || relay.open_connections() == 1).await?;
    relay.cut();
    let cut = open.wait(SOON).await?;
    assert!(cut.stderr.contains("reset by peer"), "{cut:?}");
    shop.until("the end of the connection", SOON, async || relay.open_connections() == 0).await?;

    relay.refuse();
    let refused = ask().output(SOON).await?;
    assert!(refused.stderr.contains("refused"), "{refused:?}");
    relay.resume();
    ask().output(SOON).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_of_the_laptop_is_a_terminal() -> Result<()> {
    let bed = Bed::get().await?;
    let laptop = bed.laptop().await?;
    let mut shell = laptop.command("bash").args(["--norc", "-i"]).terminal().spawn()?;
    // Not `sleep` alone: a Ctrl-C between the start of two commands reaches none of them.
    shell.write("tty; stty size; bash -c 'echo asleep-$((1 + 1)); exec sleep 1000'\n")?;
    shell.wait_for("/dev/pts/", SOON).await?;
    shell.wait_for("24 100", SOON).await?;
    shell.wait_for("asleep-2", SOON).await?;
    shell.write("\u{3}")?;
    shell.write("echo after-$((1 + 1))\n")?;
    shell.wait_for("after-2", SOON).await?;
    shell.close_terminal();
    let exit = shell.wait(SOON).await?;
    assert_ne!(exit.code(), 0, "a closed window ends the shell by SIGHUP");
    assert!(laptop.processes().is_empty(), "{:?}", laptop.processes());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_the_laptop_shows_what_changed_and_nothing_else() -> Result<()> {
    let bed = Bed::get().await?;
    let laptop = bed.laptop().await?;
    let before = laptop.snapshot()?;
    before.require_same(&laptop.snapshot()?)?;
    laptop.command("touch").arg("/tmp/left-behind").output(SOON).await?.success()?;
    laptop.network().ip(&["route", "add", "192.0.2.0/24", "dev", "eth0"])?;
    let difference = before.difference(&laptop.snapshot()?);
    assert!(difference.contains("+ /tmp/left-behind"), "{difference}");
    assert!(difference.contains("+ 192.0.2.0/24 dev eth0"), "{difference}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_run() -> Result<()> {
    let bed = Bed::get().await?;
    let apps = bed.namespace("images").await?;
    tokio::try_join!(
        apps.deploy(App::redis("redis")),
        apps.deploy(App::postgres("postgres")),
        apps.deploy(App::shop("shop")),
        apps.deploy(App::bare_shop("bare").restricted()),
        apps.deploy(App::of(Image::Python, "python").args(["-c", "import time; time.sleep(3600)"])),
        apps.deploy(App::of(Image::Node, "node").args(["-e", "setTimeout(() => {}, 3600000)"])),
    )?;
    assert_eq!(apps.ask("http://shop:8080/redis/INCR/visits").await?, "1");
    assert_eq!(apps.ask("http://bare:8080/whoami").await?.trim(), "uid=1234567 gid=0");
    let rows = apps
        .exec("deployment/postgres", ["psql", "-h", "postgres", "-U", "postgres", "-Atc", "select 6 * 7"])
        .await?;
    assert_eq!(rows.trim(), "42");
    let program = "import json, ssl, socket; print(socket.getaddrinfo('redis', 6379)[0][4][1])";
    assert_eq!(apps.exec("deployment/python", ["python3", "-c", program]).await?.trim(), "6379");
    let program = "require('dns').lookup('redis', error => console.log(error || 'found'))";
    assert_eq!(apps.exec("deployment/node", ["node", "-e", program]).await?.trim(), "found");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_counts_no_failure_of_a_stable_service() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("stable").await?;
    shop.deploy(App::shop("cart").replicas(2).env("VERSION", "v7")).await?;
    let load = shop.load("http://cart:8080/").rate(300).keep_alive(4).start().await?;
    load.until_answered_by("v7", 1500, SOON).await?;
    shop.kubectl(["rollout", "restart", "deployment/cart"]).await?;
    shop.ready("cart").await?;
    let report = load.finish().await?.require_no_failure()?;
    assert_eq!(report.answers_of("v7"), report.total);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_counts_the_failures_of_a_killed_service() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("killed").await?;
    shop.deploy(App::shop("cart")).await?;
    let load = shop.load("http://cart:8080/").rate(300).start().await?;
    load.until_answered_by("v1", 100, SOON).await?;
    // A Service without pods refuses; a pod that is only deleted may drain and lose nothing.
    shop.kubectl(["scale", "deployment", "cart", "--replicas=0"]).await?;
    shop.until("a failure", SOON, async || load.report().await.is_ok_and(|report| report.failed > 0)).await?;
    let report = load.finish().await?;
    assert!(report.require_no_failure().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_equal_before_and_after_a_restart_of_pods_and_differ_after_a_label() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("objects").await?;
    shop.deploy(App::shop("cart")).await?;
    let before = shop.objects().await?;
    shop.kubectl(["delete", "pod", "--selector=app=cart", "--wait=true", "--grace-period=1"]).await?;
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)?;
    shop.kubectl(["label", "deployment", "cart", "left=behind"]).await?;
    let difference = before.difference(&shop.objects().await?);
    assert!(difference.contains("Deployment cart.metadata.labels.left: null → \"behind\""), "{difference}");
    shop.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "left"}})).await?;
    assert!(before.difference(&shop.objects().await?).contains("new: ConfigMap left"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_test_leaves_no_process_and_no_namespace() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("ends").await?;
    let (name, network) = (shop.name().to_owned(), {
        let laptop = bed.laptop().await?;
        // A daemon that left its group and session.
        let run = laptop.command("bash").args(["-c", "setsid sleep 1000 & sleep 1000"]).spawn()?;
        run.signal(Signal::SIGSTOP)?;
        laptop.network().clone()
    });
    assert!(!network.path().exists(), "the laptop's network is still there");
    shop.delete().await?;
    let left = bed.cluster().kubectl().run(&["get", "namespace", &name, "--ignore-not-found"])?;
    assert_eq!(left, "");
    Ok(())
}
