//! The main job: a Deployment of a real cluster is swapped for a local process by an ordinary user, and put back.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use devproxy_tests::{App, Bed, Laptop, Namespace, Objects, Run};
use nix::sys::signal::Signal;
use serde_json::json;

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours: the original's pods start, the stand-in drains.
const RESTORE: Duration = Duration::from_mins(2);

/// A namespace with `cart` in it, and a laptop whose user may `edit` there.
async fn cart(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop)> {
    let shop = bed.namespace(purpose).await?;
    shop.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"colour": "green", "long": "two\nlines\n"},
    }))
    .await?;
    shop.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"},
        "stringData": {"password": "open sesame"},
    }))
    .await?;
    let app = App::shop("cart")
        .replicas(2)
        .env("MULTI", "a\nb")
        .variable(json!({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}))
        .volume("settings", "/app/settings", json!({"configMap": {"name": "settings"}}))
        .volume(
            "password",
            "/etc/cart/password",
            json!({"secret": {"secretName": "password", "defaultMode": 0o400}}),
        );
    shop.deploy(app).await?;
    // The pod that asks is part of what is compared.
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    Ok((shop, laptop))
}

/// `devproxy swap cart -- shopd`, from the handover on.
async fn swapped(laptop: &Laptop) -> Result<Run> {
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.env("VERSION", "mine").spawn()?;
    swap.wait_for("handover", SWAP).await?;
    Ok(swap)
}

async fn restored(shop: &Namespace, before: &Objects) -> Result<()> {
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_program_takes_a_deployments_place_and_gives_it_back() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "swap").await?;
    shop.deploy(App::redis("redis")).await?;
    let before = shop.objects().await?;
    let machine = laptop.snapshot()?;

    let mut swap = swapped(&laptop).await?;
    // The original's pods answer for as long as they drain.
    shop.until_swapped("cart").await?;
    // Its clients in the cluster are answered from here, and it sees their true address.
    let answer = shop.ask("http://cart:8080/").await?;
    assert!(answer.starts_with("cart mine cart-devproxy-"), "{answer}");
    let client = shop.client().await?;
    let pod = shop.get(["pod", client]).await?;
    let own = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    let peer: SocketAddr = shop.ask("http://cart:8080/peer").await?.trim().parse()?;
    assert_eq!(peer.ip().to_string(), own);
    // It has the pod's environment, files, host name, address, DNS and network.
    assert_eq!(shop.ask("http://cart:8080/env/MULTI").await?, "a\nb");
    let local: SocketAddr = shop.ask("http://cart:8080/local").await?.trim().parse()?;
    assert_eq!(shop.ask("http://cart:8080/env/POD_IP").await?, local.ip().to_string());
    assert_eq!(shop.ask("http://cart:8080/file/app/settings/long").await?, "two\nlines\n");
    assert_eq!(shop.ask("http://cart:8080/file/etc/cart/password/password").await?, "open sesame");
    let token =
        shop.ask("http://cart:8080/file/var/run/secrets/kubernetes.io/serviceaccount/namespace").await?;
    assert_eq!(token, shop.name());
    let resolved = shop.ask("http://cart:8080/resolve/redis").await?;
    assert_eq!(resolved.lines().count(), 2, "{resolved}");
    assert!(shop.ask("http://cart:8080/redis/SET/colour/blue").await?.contains("OK"));
    assert!(shop.ask("http://cart:8080/redis/GET/colour").await?.contains("blue"));
    // Outside of the session the laptop is as it was.
    machine.clone().outside_of_sessions().require_same(&laptop.snapshot()?.outside_of_sessions())?;

    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?;
    assert_eq!(exit.code(), 0, "the exit code of shopd, which drains on SIGTERM: {exit:?}");
    restored(&shop, &before).await?;
    machine.require_same(&laptop.snapshot()?)?;
    Ok(())
}

/// Files of `user` in `folder` and in the user's folders below that hold `secret`.
fn files_with(secret: &str, user: u32, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.uid() != user => {}
            Ok(metadata) if metadata.is_dir() => found.extend(files_with(secret, user, &path)),
            Ok(metadata) if metadata.is_file() => {
                let content = fs::read(&path).unwrap_or_default();
                if content.windows(secret.len()).any(|part| part == secret.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_on_the_laptops_disk_in_arguments_or_in_the_log() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "secrets").await?;
    let before = shop.objects().await?;
    let mut swap = laptop.devproxy(["-vv", "swap", "cart", "--", "shopd"])?.env("VERSION", "mine").spawn()?;
    swap.wait_for("✓ handover", SWAP).await?;
    shop.until_swapped("cart").await?;
    let secret = "open sesame";
    assert_eq!(shop.ask("http://cart:8080/file/etc/cart/password/password").await?, secret);
    let keys = shop.get(["secrets", "--selector", "devproxy.dev/session"]).await?;
    let key = keys["items"][0]["data"]["session"].as_str().context("no session key")?;

    for secret in [secret, key] {
        // The search finds what is there.
        let probe = laptop.write_file("probe", 0o600, secret.as_bytes())?;
        assert_eq!(files_with(secret, laptop.uid(), laptop.home()), [probe.display().to_string()]);
        fs::remove_file(probe)?;
        for folder in
            [laptop.home(), laptop.runtime(), "/tmp".as_ref(), "/var/tmp".as_ref(), "/dev/shm".as_ref()]
        {
            assert_eq!(files_with(secret, laptop.uid(), folder), [""; 0]);
        }
        let told = laptop.processes().iter().any(|process| process.words().join(" ").contains(secret));
        assert!(!told, "in the arguments of a process");
    }
    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?.success()?;
    assert!(exit.stderr.contains("DEBUG") && exit.stderr.lines().count() > 20, "no log: {exit:?}");
    assert!(![secret, key].iter().any(|secret| exit.stderr.contains(secret)), "in the log");
    restored(&shop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_through_handover_restarts_and_restore() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "load").await?;
    let before = shop.objects().await?;
    let load = shop.load("http://cart:8080/").rate(300).start().await?;
    let script =
        "shopd & p=$!; while read go; do kill $p; wait $p; VERSION=$go shopd & p=$!; done; kill $p; wait $p";
    let mut swap =
        laptop.devproxy(["swap", "cart", "--", "bash", "-c", script])?.env("VERSION", "first").spawn()?;
    swap.wait_for("handover", SWAP).await?;
    let before_the_line = load.report().await?.answers_of("v1");
    load.until_answered_by("first", 300, SWAP).await?;
    for version in ["second", "third"] {
        swap.write(&format!("{version}\n"))?;
        load.until_answered_by(version, 300, SWAP).await?;
    }
    let answers = load.report().await?.answers_of("v1");
    assert_eq!(answers, before_the_line, "the handover was told while originals still answered");
    swap.close_input();
    let exit = swap.wait(RESTORE).await?;
    let original = load.report().await?.answers_of("v1");
    load.until_answered_by("v1", original + 300, SWAP).await?;
    let report = load.finish().await?;
    println!("{} requests, {} failed, slowest {} ms", report.total, report.failed, report.slowest_ms);
    report.require_no_failure().with_context(|| format!("{exit:?}"))?;
    restored(&shop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_restores_however_it_comes() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "ends").await?;
    let before = shop.objects().await?;
    let machine = laptop.snapshot()?;

    // The program ends by itself, with its own code.
    let script = "shopd & sleep 0.1; read go; kill $!; exit 7";
    let mut swap = laptop.devproxy(["swap", "cart", "--", "bash", "-c", script])?.spawn()?;
    swap.wait_for("handover", SWAP).await?;
    swap.write("go\n")?;
    assert_eq!(swap.wait(RESTORE).await?.code(), 7);
    restored(&shop, &before).await?;

    // Ctrl-C on a terminal.
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.terminal().spawn()?;
    swap.wait_for("handover", SWAP).await?;
    swap.write("\x03")?;
    swap.wait(RESTORE).await?;
    restored(&shop, &before).await?;

    // The terminal is closed.
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.terminal().spawn()?;
    swap.wait_for("handover", SWAP).await?;
    swap.close_terminal();
    gone(&shop, &laptop, &before).await?;

    // The terminal process is killed.
    let swap = swapped(&laptop).await?;
    swap.signal(Signal::SIGKILL)?;
    gone(&shop, &laptop, &before).await?;
    machine.require_same(&laptop.snapshot()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_process_restores_when_the_session_process_is_killed() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "killed").await?;
    let before = shop.objects().await?;
    // It sees the death first, or the end of the program, which the helper hangs up.
    for program_ends_first in [false, true] {
        let mut swap = swapped(&laptop).await?;
        if program_ends_first {
            let program = laptop.process("shopd")?;
            swap.signal(Signal::SIGSTOP)?;
            laptop.session_process()?.signal(Signal::SIGKILL);
            shop.until("the end of the program", RESTORE, async || !program.is_alive()).await?;
            swap.signal(Signal::SIGCONT)?;
        } else {
            laptop.session_process()?.signal(Signal::SIGKILL);
        }
        let exit = swap.wait(RESTORE).await?;
        assert_eq!(exit.code(), 125, "{exit:?}");
        assert!(exit.stderr.contains("DP-SESSION-PROCESS"), "{exit:?}");
        restored(&shop, &before).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_restores_when_both_processes_are_killed() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "both").await?;
    let before = shop.objects().await?;
    let swap = swapped(&laptop).await?;
    // Both at once: neither may see the other die.
    swap.signal(Signal::SIGSTOP)?;
    laptop.session_process()?.signal(Signal::SIGKILL);
    swap.signal(Signal::SIGKILL)?;

    let other = bed.laptop().await?;
    other.login(&shop).await?;
    let refused = other.devproxy(["restore", "cart"])?.output(RESTORE).await?;
    assert_eq!(refused.code(), 125, "its Lease has not expired yet: {refused:?}");
    assert!(refused.stderr.contains("DP-HELD"), "{refused:?}");
    other.devproxy(["restore", "cart", "--force"])?.output(RESTORE).await?.success()?;
    restored(&shop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_user_is_told_who_holds_it() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "second").await?;
    let mut swap = swapped(&laptop).await?;
    let other = bed.laptop().await?;
    other.login(&shop).await?;
    let refused = other.devproxy(["swap", "cart", "--", "shopd"])?.output(SWAP).await?;
    assert_eq!(refused.code(), 125, "{refused:?}");
    assert!(refused.stderr.contains("DP-HELD") && refused.stderr.contains("since"), "{refused:?}");
    let status = other.devproxy(["status"])?.output(SWAP).await?.success()?;
    assert!(status.stdout.contains("/cart"), "{status:?}");
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?;
    Ok(())
}

/// Waits until all of ours has left cluster and laptop.
async fn gone(shop: &Namespace, laptop: &Laptop, before: &Objects) -> Result<()> {
    shop.until("the restore", RESTORE, async || {
        laptop.processes().is_empty()
            && match shop.objects().await {
                Ok(now) => before.require_same(&now).is_ok(),
                Err(_) => false,
            }
    })
    .await?;
    restored(shop, before).await
}
