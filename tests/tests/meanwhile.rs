//! What happens during a session: others change the original, the link breaks, the pod goes, the login expires,
//! another session begins.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::{App, Bed, Exit, Laptop, Namespace, Run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours.
const RESTORE: Duration = Duration::from_mins(2);

/// A namespace with `cart` and a client in it, and a laptop whose user may `edit` there.
async fn cart(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop)> {
    let shop = bed.namespace(purpose).await?;
    shop.deploy(App::shop("cart").drain(1)).await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    Ok((shop, laptop))
}

/// `devproxy swap NAME -- shopd`, from the handover on.
async fn swapped(laptop: &Laptop, name: &str) -> Result<Run> {
    let mut swap = laptop.devproxy(["swap", name, "--", "shopd"])?.env("VERSION", "mine").spawn()?;
    swap.wait_for("✓ handover", SWAP).await?;
    Ok(swap)
}

/// Waits until the local program answers the cluster.
async fn mine(shop: &Namespace) -> Result<()> {
    shop.until("the local program's answer", SWAP, async || {
        shop.ask("http://cart:8080/").await.is_ok_and(|answer| answer.starts_with("cart mine "))
    })
    .await
}

async fn ended(mut swap: Run) -> Result<Exit> {
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await
}

/// What is left of sessions in a namespace.
async fn remains(shop: &Namespace) -> Result<Value> {
    let kinds = "leases,deployments,configmaps,secrets,pods";
    let all = shop.get([kinds, "--selector", "devproxy.dev/session"]).await?;
    Ok(all["items"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_the_original_stays_and_is_told() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "others").await?;
    let replicas =
        async || Ok::<_, anyhow::Error>(shop.get(["deployment", "cart"]).await?["spec"]["replicas"].clone());

    let mut swap = swapped(&laptop, "cart").await?;
    shop.kubectl(["scale", "deployment", "cart", "--replicas=2"]).await?;
    swap.wait_for("cart was scaled to 2 by somebody else: its pods answer a part of the clients", RESTORE)
        .await?;
    let exit = ended(swap).await?;
    ensure!(exit.code() == 0, "{exit:?}");
    ensure!(exit.stderr.contains("cart was scaled to 2 by somebody else meanwhile and stays so"), "{exit:?}");
    assert_eq!((replicas().await?, remains(&shop).await?), (json!(2), json!([])));

    // To 0, which is what we had set, but it is theirs now.
    let mut swap = swapped(&laptop, "cart").await?;
    shop.kubectl(["scale", "deployment", "cart", "--replicas=3"]).await?;
    swap.wait_for("cart was scaled to 3 by somebody else", RESTORE).await?;
    shop.kubectl(["scale", "deployment", "cart", "--replicas=0"]).await?;
    swap.wait_for("cart was scaled to 0 by somebody else: all clients are led here again", RESTORE).await?;
    let exit = ended(swap).await?;
    let again = format!(
        "cart had 2 replicas before and answers nobody now: `kubectl scale deployment/cart -n {} --replicas=2`",
        shop.name()
    );
    ensure!(exit.stderr.contains(&again), "{exit:?}");
    assert_eq!((replicas().await?, remains(&shop).await?), (json!(0), json!([])));
    shop.kubectl(["scale", "deployment", "cart", "--replicas=2"]).await?;
    shop.kubectl(["rollout", "status", "deployment", "cart", "--timeout=60s"]).await?;

    // Applied again with another template, and with the replicas that it had before.
    let swap = swapped(&laptop, "cart").await?;
    shop.apply(&App::shop("cart").drain(1).replicas(2).env("COLOUR", "blue").manifest()).await?;
    let exit = ended(swap).await?;
    ensure!(exit.code() == 0, "{exit:?}");
    ensure!(exit.stderr.contains("cart was scaled to 2 by somebody else meanwhile and stays so"), "{exit:?}");
    assert_eq!((replicas().await?, remains(&shop).await?), (json!(2), json!([])));
    assert_eq!(shop.ask("http://cart:8080/env/COLOUR").await?, "blue");

    // Rolled out: the template is theirs, the replicas come back.
    let swap = swapped(&laptop, "cart").await?;
    shop.kubectl(["set", "env", "deployment/cart", "COLOUR=red"]).await?;
    shop.kubectl(["rollout", "restart", "deployment/cart"]).await?;
    let exit = ended(swap).await?;
    ensure!(exit.code() == 0 && exit.stderr.contains("cart 0 → 2 replicas, 2 ready"), "{exit:?}");
    assert_eq!((replicas().await?, remains(&shop).await?), (json!(2), json!([])));
    assert_eq!(shop.ask("http://cart:8080/env/COLOUR").await?, "red");

    // Deleted and made anew: that one is not ours.
    let mut swap = swapped(&laptop, "cart").await?;
    // The session sees nothing of it before it is over.
    laptop.relay().stall();
    shop.kubectl(["delete", "deployment", "cart"]).await?;
    shop.start(App::shop("cart").drain(1).replicas(2)).await?;
    laptop.relay().resume();
    let exit = swap.wait(RESTORE).await?;
    let left = "cart was deleted and made anew meanwhile and stays as it is; all of ours is gone";
    ensure!(exit.code() == 125 && exit.stderr.contains(left), "{exit:?}");
    shop.ready("cart").await?;
    assert_eq!(replicas().await?, json!(2));

    // Deleted: the stand-in and the Lease are its own and go with it.
    let mut swap = swapped(&laptop, "cart").await?;
    shop.kubectl(["delete", "deployment", "cart"]).await?;
    let exit = swap.wait(RESTORE).await?;
    // Whichever of the two is missed first.
    let lost = ["[DP-LEASE-LOST]", "[DP-STAND-IN-LOST]"].iter().any(|code| exit.stderr.contains(code));
    ensure!(exit.code() == 125 && lost, "{exit:?}");
    ensure!(exit.stderr.contains("cart was deleted meanwhile; all of ours is gone"), "{exit:?}");
    shop.until("the collection of ours", RESTORE, async || {
        remains(&shop).await.is_ok_and(|remains| remains == json!([]))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_cut_a_silence_and_the_loss_of_its_pod() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "link").await?;
    let (before, machine) = (shop.objects().await?, laptop.snapshot()?);
    let mut swap = swapped(&laptop, "cart").await?;
    mine(&shop).await?;

    laptop.relay().cut();
    swap.wait_for("connected again", SWAP).await.context("cut")?;
    mine(&shop).await.context("cut")?;

    laptop.relay().stall();
    tokio::time::sleep(Duration::from_secs(20)).await;
    laptop.relay().resume();
    swap.wait_for("connected again", SWAP).await.context("silence")?;
    mine(&shop).await.context("silence")?;

    shop.kubectl(["delete", "pod", "--selector", "devproxy.dev/session"]).await?;
    swap.wait_for("connected again", SWAP).await.context("pod")?;
    mine(&shop).await.context("pod")?;
    let status = laptop.devproxy(["status", "-o", "json"])?.output(SWAP).await?.success()?;
    let status: Value = serde_json::from_str(&status.stdout)?;
    let (here, agent) = (&status[0]["here"], &status[0]["cluster"]["agent"]);
    ensure!(here["pod"].is_string() && here["pod"] == agent["pod"], "{status}");
    ensure!(here["reconnects"] == json!(3) && here["round_trip"].is_number(), "{status}");
    let local = shop.ask("http://cart:8080/get/cart:8080/version").await.context("out and in again")?;
    assert_eq!(local, "mine\n");

    // The container dies and is started again in the same pod.
    let pods = shop.get(["pods", "--selector", "devproxy.dev/session"]).await?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("no pod")?.to_owned();
    shop.exec(&pod, ["/bin/sh", "-c", "kill 1"]).await.ok();
    swap.wait_for("connected again", SWAP).await.context("container")?;
    mine(&shop).await.context("container")?;

    let exit = ended(swap).await?;
    ensure!(exit.code() == 0, "{exit:?}");
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)?;
    machine.require_same(&laptop.snapshot()?)
}

/// Counts its calls, and gives a token that it says to be valid for five seconds.
const LOGIN: &str = r#"#!/bin/sh
echo called >>"$HOME/calls"
expires=$(date -u -d '+5 seconds' +%Y-%m-%dT%H:%M:%SZ)
cat <<END
{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
 "status": {"token": "$(cat "$HOME/token")", "expirationTimestamp": "$expires"}}
END
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_expiring_login_is_renewed_and_nothing_is_noticed() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "login").await?;
    // A token dies with the object that it is bound to.
    let token = async |name: &str| {
        shop.kubectl(["create", "secret", "generic", name]).await?;
        let bound = format!("--bound-object-name={name}");
        shop.kubectl(["create", "token", "developer-edit", "--bound-object-kind=Secret", &bound]).await
    };
    let (first, second) = (token("first").await?, token("second").await?);
    laptop.write_file("token", 0o600, first.trim().as_bytes())?;
    let plugin = laptop.write_file("login", 0o755, LOGIN.as_bytes())?;
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never"});
    laptop.write_kubeconfig(&laptop.kubeconfig(shop.name(), &json!({"exec": exec})))?;
    let before = shop.objects().await?.without("Secret first");
    let calls = || std::fs::read_to_string(laptop.home().join("calls")).unwrap_or_default().lines().count();

    let swap = swapped(&laptop, "cart").await?;
    let printed = swap.printed();
    laptop.write_file("token", 0o600, second.trim().as_bytes())?;
    shop.kubectl(["delete", "secret", "first"]).await?;
    let renewed = calls();
    // Longer than the server remembers a token (10 s), and than the Lease's heart pauses.
    tokio::time::sleep(Duration::from_secs(25)).await;
    mine(&shop).await?;
    ensure!(calls() > renewed, "the plugin was called {renewed} times before and never again");
    assert_eq!(swap.printed(), printed, "nothing is noticed");
    let exit = ended(swap).await?;
    ensure!(exit.code() == 0, "{exit:?}");
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?.without("Secret first"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_of_one_laptop_are_told_apart_and_one_is_ended_from_elsewhere() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "one").await?;
    let (other, _) = cart(&bed, "two").await?;
    // The first namespace's developer may edit the second one too.
    other
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "guest"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "developer-edit", "namespace": shop.name()}],
        }))
        .await?;
    let (before, other_before) = (shop.objects().await?, other.objects().await?);
    let there = format!("{}/cart", other.name());
    let (swap, mut swap_there) = tokio::try_join!(swapped(&laptop, "cart"), swapped(&laptop, &there))?;
    mine(&shop).await?;
    mine(&other).await?;

    let status = laptop.devproxy(["status"])?.output(SWAP).await?.success()?;
    let rows: Vec<&str> = status.stdout.lines().skip(1).collect();
    let both = [format!("{}/cart", shop.name()), there.clone()];
    ensure!(rows.len() == 2 && both.iter().all(|name| status.stdout.contains(name)), "{status:?}");
    let status = laptop.devproxy(["status", "-o", "json"])?.output(SWAP).await?.success()?;
    let status: Value = serde_json::from_str(&status.stdout)?;
    let phases: Vec<_> =
        status.as_array().into_iter().flatten().map(|row| row["here"]["phase"].clone()).collect();
    assert_eq!(phases, ["swapped", "swapped"], "{status}");

    // None of two is guessed.
    let which = laptop.devproxy(["restore"])?.output(SWAP).await?;
    let told = |line: &str| {
        line.starts_with("error: 2 sessions are yours: ") && line.ends_with(" [DP-WHICH-SESSION]")
    };
    ensure!(which.code() == 125 && which.stderr.lines().any(told), "{which:?}");
    let restore = laptop.devproxy(["restore", &there])?.output(RESTORE).await?.success()?;
    ensure!(restore.stderr.contains("cart 0 → 1 replicas, 1 ready; all of ours is gone"), "{restore:?}");
    let exit = swap_there.wait(RESTORE).await?;
    ensure!(exit.code() == 125, "{exit:?}");
    let line = "error: the session was ended by `devproxy restore` [DP-SESSION-ENDED]";
    ensure!(exit.stderr.lines().any(|said| said == line), "{exit:?}");
    other_before.require_same(&other.objects().await?)?;

    mine(&shop).await?;
    let exit = ended(swap).await?;
    ensure!(exit.code() == 0, "{exit:?}");
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)
}
