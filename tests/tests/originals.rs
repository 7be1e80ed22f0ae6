//! Originals of every shape: each is swapped, answered for from the laptop, and put back as it was.

use std::time::Duration;

use anyhow::{Result, ensure};
use devproxy_tests::{App, Bed, Image, Laptop, Namespace, Objects, Run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours.
const RESTORE: Duration = Duration::from_mins(2);

/// A namespace with a client in it, and a laptop whose user may `edit` there.
async fn place(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop)> {
    let shop = bed.namespace(purpose).await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    Ok((shop, laptop))
}

/// `cart` as most tests need it: it leaves soon.
fn cart() -> App {
    App::shop("cart").drain(1)
}

/// `devproxy swap cart FLAGS -- shopd`, from the handover on.
async fn swapped(laptop: &Laptop, flags: &[&str]) -> Result<Run> {
    let words = ["swap", "cart"].iter().chain(flags).chain(&["--", "shopd"]).copied();
    let mut swap = laptop.devproxy(words)?.env("VERSION", "mine").spawn()?;
    swap.wait_for("✓ handover", SWAP).await?;
    Ok(swap)
}

/// Asks the local program until it is the one that answers: with a handover at once it may start after it.
async fn mine(shop: &Namespace, url: &str) -> Result<()> {
    let mut answer = String::new();
    let answered = shop
        .until("the local program's answer", SWAP, async || {
            answer = shop.ask(url).await.unwrap_or_else(|error| error.to_string());
            answer.contains(" mine ")
        })
        .await;
    ensure!(answered.is_ok() && answer.starts_with("cart mine cart-devproxy-"), "{url}: {answer}");
    Ok(())
}

/// Ends the program and waits until all is as before. Gives what was printed.
async fn restored(shop: &Namespace, mut swap: Run, before: &Objects) -> Result<String> {
    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?;
    ensure!(exit.code() == 0, "{exit:?}");
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)?;
    Ok(exit.stderr)
}

/// The stand-in's pod.
async fn stand_in(shop: &Namespace) -> Result<Value> {
    let pods = shop.get(["pods", "--selector", "devproxy.dev/session"]).await?;
    Ok(pods["items"][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_without_a_shell_under_the_strictest_pod_security() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "restricted").await?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    shop.kubectl(["label", "namespace", shop.name(), enforce]).await?;
    shop.deploy(App::bare_shop("cart").drain(1).restricted()).await?;
    let before = shop.objects().await?;
    let swap = swapped(&laptop, &[]).await?;
    mine(&shop, "http://cart:8080/").await?;
    let pod = stand_in(&shop).await?;
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(pod["spec"]["securityContext"]["runAsUser"], 1_234_567);
    restored(&shop, swap, &before).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_containers_with_its_neighbour_on_localhost() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "sidecar").await?;
    let neighbour = json!({
        "name": "neighbour", "image": Image::Shop.reference(), "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "PORT", "value": "9000"}, {"name": "NAME", "value": "neighbour"}, {"name": "DRAIN", "value": "1"}],
    });
    shop.deploy(cart().sidecar(neighbour)).await?;
    let before = shop.objects().await?;

    let refused = laptop.devproxy(["swap", "cart", "--", "shopd"])?.output(SWAP).await?;
    assert_eq!(refused.code(), 125, "{refused:?}");
    assert_eq!(
        refused.stderr,
        "error: cart has several containers: cart, neighbour [DP-CONTAINER]\nhint: choose one with -c: cart, neighbour\n"
    );
    let swap = swapped(&laptop, &["-c", "cart"]).await?;
    shop.until_swapped("cart").await?;
    mine(&shop, "http://cart:8080/").await?;
    let neighbour = shop.ask("http://cart:8080/get/127.0.0.1:9000/").await?;
    assert!(neighbour.starts_with("neighbour v1 cart-devproxy-"), "{neighbour}");
    restored(&shop, swap, &before).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_a_command_arguments_and_init_containers() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "init").await?;
    let prepare = json!({
        "name": "prepare", "image": Image::Shop.reference(), "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", "echo prepared"],
    });
    let app = cart()
        .command(["/bin/sh", "-c"])
        .args(["exec shopd serve"])
        .pod(json!({"initContainers": [prepare]}));
    shop.deploy(app).await?;
    let before = shop.objects().await?;

    let swap = swapped(&laptop, &[]).await?;
    mine(&shop, "http://cart:8080/").await?;
    let init = &stand_in(&shop).await?["status"]["initContainerStatuses"][0];
    assert_eq!(
        (&init["name"], &init["state"]["terminated"]["exitCode"]),
        (&json!("prepare"), &json!(0)),
        "{init}"
    );
    let printed = restored(&shop, swap, &before).await?;
    assert!(printed.contains("init containers run again: prepare; --skip-init leaves them out"), "{printed}");

    let swap = swapped(&laptop, &["--skip-init"]).await?;
    mine(&shop, "http://cart:8080/").await?;
    assert_eq!(stand_in(&shop).await?["spec"].get("initContainers"), None);
    restored(&shop, swap, &before).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_crashes_and_one_with_no_replica_are_handed_over_at_once() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "broken").await?;
    shop.start(cart().command(["/bin/false"])).await?;
    let selector = ["pods", "--selector", "app=cart"];
    shop.until("a crash", SWAP, async || {
        let pods = shop.get(selector).await.unwrap_or_default();
        pods["items"][0]["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    })
    .await?;
    let before = shop.objects().await?;
    // The program starts only when it is told to.
    let words = ["swap", "cart", "--", "bash", "-c", "read go; exec shopd"];
    let mut swap = laptop.devproxy(words)?.env("VERSION", "mine").spawn()?;
    swap.wait_for("! no pod of cart is ready: cart: exit code 1", SWAP).await?;
    swap.wait_for("✓ handover", SWAP).await?;
    swap.write("go\n")?;
    mine(&shop, "http://cart:8080/").await?;
    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?;
    assert_eq!(exit.code(), 0, "{exit:?}");
    shop.until("the restore", RESTORE, async || {
        shop.objects().await.is_ok_and(|now| before.require_same(&now).is_ok())
    })
    .await?;

    shop.deploy(cart().replicas(0)).await?;
    shop.until("the end of its pod", RESTORE, async || {
        shop.get(selector).await.is_ok_and(|pods| pods["items"] == json!([]))
    })
    .await?;
    let before = shop.objects().await?;
    let swap = swapped(&laptop, &[]).await?;
    mine(&shop, "http://cart:8080/").await?;
    let printed = restored(&shop, swap, &before).await?;
    assert!(printed.contains("cart has 0 replicas, and will have 0 again afterwards"), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_files_from_everywhere_and_no_token() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "files").await?;
    shop.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"colour": "green", "size": "large"},
    }))
    .await?;
    shop.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"}, "stringData": {"password": "open sesame"},
    }))
    .await?;
    let sources = json!([
        {"configMap": {"name": "settings", "items": [{"key": "size", "path": "deep/size"}]}},
        {"secret": {"name": "password"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}},
        {"serviceAccountToken": {"path": "token", "audience": "vault"}},
    ]);
    let app = cart()
        .pod(json!({"automountServiceAccountToken": false, "securityContext": {"runAsUser": 1000}}))
        .volume(
            "sealed",
            "/etc/cart/sealed",
            json!({"secret": {"secretName": "password", "defaultMode": 0o400}}),
        )
        .volume("settings", "/etc/cart/settings", json!({"configMap": {"name": "settings"}}))
        .volume("password", "/etc/cart/secret/password", json!({"secret": {"secretName": "password"}}))
        .volume("missing", "/etc/cart/missing", json!({"configMap": {"name": "missing", "optional": true}}))
        .volume("all", "/etc/cart/all", json!({"projected": {"sources": sources}}));
    let mut manifest = app.manifest();
    // One file of a volume that is there as a whole too.
    let mounts = &mut manifest["items"][0]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"];
    let mounts = mounts.as_array_mut().expect("the manifest has mounts");
    mounts.push(json!({"name": "settings", "mountPath": "/etc/cart/colour.conf", "subPath": "colour"}));
    // One that its user may not read, which is no reason not to start.
    mounts.push(json!({"name": "sealed", "mountPath": "/etc/cart/sealed.key", "subPath": "password"}));
    shop.apply(&manifest).await?;
    shop.ready("cart").await?;
    let asked = [
        "settings/colour",
        "secret/password/password",
        "colour.conf",
        "all/deep/size",
        "all/password",
        "all/labels",
    ];
    let file = async |name: &str| shop.ask(&format!("http://cart:8080/file/etc/cart/{name}")).await;
    let mut there = Vec::new();
    for name in asked {
        there.push(file(name).await?);
    }
    assert_eq!(there, ["green", "open sesame", "green", "large", "open sesame", "cart"]);
    let before = shop.objects().await?;

    let swap = swapped(&laptop, &[]).await?;
    mine(&shop, "http://cart:8080/").await?;
    let mut here = Vec::new();
    for name in asked {
        here.push(file(name).await?);
    }
    assert_eq!(here, there);
    assert_eq!(file("all/token").await?.split('.').count(), 3, "a token has three parts");
    // The kubelet's own links are there, no file is.
    let missing = shop.ask("http://cart:8080/files/etc/cart/missing").await?;
    assert!(missing.lines().all(|line| line.contains(" ..")), "{missing}");
    let token = shop.ask("http://cart:8080/file/var/run/secrets/kubernetes.io/serviceaccount/token").await;
    assert!(token.is_err(), "a token that the pod does not have: {token:?}");
    let sealed = "`/etc/cart/sealed.key` is not here: the agent cannot read it: Permission denied";
    let printed = restored(&shop, swap, &before).await?;
    assert!(printed.contains(sealed), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_on_a_low_port_behind_a_named_target_port_and_a_headless_service() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "ports").await?;
    let app =
        App::of(Image::Shop, "cart").port("web", 80).env("NAME", "cart").env("PORT", "80").env("DRAIN", "1");
    shop.deploy(app.service(json!({"clusterIP": "None"}))).await?;
    shop.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
        "spec": {"selector": {"app": "cart"}, "ports": [{"port": 8000, "targetPort": "web"}]},
    }))
    .await?;
    let before = shop.objects().await?;
    let swap = swapped(&laptop, &[]).await?;
    mine(&shop, "http://cart:80/").await?;
    mine(&shop, "http://front:8000/").await?;
    restored(&shop, swap, &before).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_no_room_for_a_second_pod_goes_first() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "room").await?;
    let (app, port) = App::shop_on_host_port("cart");
    shop.deploy(app).await?;
    shop.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart"},
        "spec": {"selector": {"app": "cart"}, "ports": [{"port": 8080, "targetPort": "http"}]},
    }))
    .await?;
    let before = shop.objects().await?;
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.env("VERSION", "mine").spawn()?;
    let reason = format!("cart scaled to 0 (host port {port} is there once per node)");
    swap.wait_for(&reason, SWAP).await?;
    mine(&shop, "http://cart:8080/").await?;
    restored(&shop, swap, &before).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_a_namespace_whose_quota_is_full_goes_first() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "quota").await?;
    shop.deploy(cart()).await?;
    // Its pod and the client's.
    shop.kubectl(["create", "quota", "small", "--hard=pods=2"]).await?;
    shop.until("the quota's count", SWAP, async || {
        shop.get(["quota", "small"]).await.is_ok_and(|quota| quota["status"]["used"]["pods"] == "2")
    })
    .await?;
    let before = shop.objects().await?;
    let swap = swapped(&laptop, &[]).await?;
    let printed = swap.printed();
    assert!(
        printed.contains("cart scaled to 0 (quota small has no room for one more pod (pods))"),
        "{printed}"
    );
    mine(&shop, "http://cart:8080/").await?;
    restored(&shop, swap, &before).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_a_disk_for_one_node_an_autoscaler_a_budget_and_a_limit_range() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "policies").await?;
    disk(&shop).await?;
    shop.apply(
        &json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [{
            "type": "Container", "max": {"memory": "256Mi"}, "default": {"memory": "128Mi"},
            "defaultRequest": {"memory": "32Mi"},
        }]}}),
    )
    .await?;
    shop.deploy(cart().volume("data", "/data", json!({"persistentVolumeClaim": {"claimName": "disk"}})))
        .await?;
    shop.apply(
        &json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "one"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "cart"}}}}),
    )
    .await?;
    shop.kubectl(["autoscale", "deployment", "cart", "--min=1", "--max=3", "--cpu-percent=80"]).await?;
    let before = shop.objects().await?;
    let swap = swapped(&laptop, &[]).await?;
    mine(&shop, "http://cart:8080/").await?;
    let pod = stand_in(&shop).await?;
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["memory"], "128Mi", "{pod}");
    // Neither the autoscaler nor anybody else has scaled it back.
    assert_eq!(shop.get(["deployment", "cart"]).await?["spec"]["replicas"], 0);
    let printed = restored(&shop, swap, &before).await?;
    for told in [
        "autoscaler cart pauses while it has 0 replicas",
        "disruption budget one counts the stand-in",
        "cart scaled to 0 (volume disk can be mounted once)",
    ] {
        ensure!(printed.contains(told), "{told}: {printed}");
    }
    Ok(())
}

/// A claim `disk` that one node at a time may use. Its volume goes with the namespace.
async fn disk(shop: &Namespace) -> Result<()> {
    let uid = shop.get(["namespace", shop.name()]).await?["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "v1", "kind": "Namespace", "name": shop.name(), "uid": uid}]);
    let (size, modes) = (json!({"storage": "1Mi"}), json!(["ReadWriteOnce"]));
    shop.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": shop.name(), "ownerReferences": owner},
         "spec": {"capacity": size, "accessModes": modes, "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
                  "hostPath": {"path": "/tmp"}, "claimRef": {"namespace": shop.name(), "name": "disk"}}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "disk"},
         "spec": {"accessModes": modes, "storageClassName": "", "volumeName": shop.name(),
                  "resources": {"requests": size}}},
    ]}))
    .await
}
