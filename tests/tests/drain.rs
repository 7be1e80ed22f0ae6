//! `--drain=labels`: originals that die at once on SIGTERM lose no request, and no pod is left without an owner.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::{App, Bed, Laptop, Namespace, Objects, Run};
use nix::sys::signal::Signal;
use serde_json::Value;

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours: the original's pods start, the stand-in drains.
const RESTORE: Duration = Duration::from_mins(2);

/// Whose pods die at once on SIGTERM.
async fn cart(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop, Objects)> {
    let shop = bed.namespace(purpose).await?;
    shop.deploy(App::shop("cart").replicas(2).drain(0)).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;
    Ok((shop, laptop, before))
}

fn start(laptop: &Laptop, flags: &[&str]) -> Result<Run> {
    let words = ["swap", "cart"].iter().chain(flags).chain(&["--", "shopd"]).copied();
    laptop.devproxy(words)?.env("VERSION", "mine").spawn()
}

async fn restored(shop: &Namespace, before: &Objects) -> Result<()> {
    shop.ready("cart").await?;
    // The replacements of drained pods may still be on their way out.
    let same = shop.until("the end of all others", RESTORE, async || {
        shop.objects().await.is_ok_and(|now| before.require_same(&now).is_ok())
    });
    let same = same.await;
    before.require_same(&shop.objects().await?)?;
    same
}

/// Failed requests of the handover.
async fn failures(shop: &Namespace, laptop: &Laptop, flags: &[&str]) -> Result<u64> {
    let load = shop.load("http://cart:8080/").rate(300).start().await?;
    let mut swap = start(laptop, flags)?;
    swap.wait_for("✓ handover", SWAP).await?;
    load.until_answered_by("mine", 600, SWAP).await?;
    let report = load.finish().await?;
    println!("{flags:?}: {} requests, {} failed", report.total, report.failed);
    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?;
    ensure!(exit.stderr.contains("cart 0 → 2 replicas, 2 ready; all of ours is gone"), "{exit:?}");
    Ok(report.failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_at_the_handover_of_an_original_that_dies_at_once() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "drain").await?;
    ensure!(failures(&shop, &laptop, &[]).await? > 0, "without the flag its last requests are lost");
    restored(&shop, &before).await?;
    assert_eq!(failures(&shop, &laptop, &["--drain=labels"]).await?, 0);
    restored(&shop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_labels_are_nobodys_orphans_wherever_the_handover_stops() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "orphans").await?;
    let other = bed.laptop().await?;
    other.login(&shop).await?;
    let names = pods(&shop).await?;

    // Right after the labels were taken off.
    let swap = labels_off(&shop, &laptop).await?;
    let same = replicas(&shop).await? == 2;
    kill_all(&laptop, &swap)?;
    laptop.relay().resume();
    ensure!(same && replicas(&shop).await? == 2, "it was scaled before it could be killed");
    let exit = other.devproxy(["restore", "cart", "--force"])?.output(RESTORE).await?.success()?;
    ensure!(!exit.stderr.contains("not in the EndpointSlices"), "it waited for pods that left: {exit:?}");
    assert_eq!(drained(&shop).await?, Vec::<Value>::new());
    restored(&shop, &before).await?;
    assert_eq!(pods(&shop).await?, names, "the same pods have their labels again");

    // When the original has been scaled as well.
    let swap = start(&laptop, &["--drain=labels"])?;
    shop.until("scaled", SWAP, async || replicas(&shop).await.is_ok_and(|replicas| replicas == 0)).await?;
    kill_all(&laptop, &swap)?;
    assert_eq!(drained(&shop).await?.len(), 2, "they were deleted before it could be killed");
    other.devproxy(["restore", "cart", "--force"])?.output(RESTORE).await?.success()?;
    assert_eq!(drained(&shop).await?, Vec::<Value>::new());
    restored(&shop, &before).await?;

    // Ended right after the labels were taken off.
    let mut swap = labels_off(&shop, &laptop).await?;
    swap.signal(Signal::SIGTERM)?;
    laptop.relay().resume();
    swap.wait(RESTORE).await?;
    assert_eq!(drained(&shop).await?, Vec::<Value>::new());
    restored(&shop, &before).await
}

/// A session in the moment when the labels of both pods are off, on a wire that leaves it there for seconds.
async fn labels_off(shop: &Namespace, laptop: &Laptop) -> Result<Run> {
    let mut swap = start(laptop, &["--drain=labels"])?;
    swap.wait_for("waiting until something listens", SWAP).await?;
    laptop.relay().delay(Duration::from_millis(700));
    shop.until("labels", SWAP, async || drained(shop).await.is_ok_and(|drained| drained.len() == 2)).await?;
    Ok(swap)
}

/// Both processes at once: neither may see the other die.
fn kill_all(laptop: &Laptop, swap: &Run) -> Result<()> {
    swap.signal(Signal::SIGSTOP)?;
    laptop.session_process()?.signal(Signal::SIGKILL);
    swap.signal(Signal::SIGKILL)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_says_what_it_takes_and_which_right_is_missing() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, _) = cart(&bed, "plan").await?;
    let plan =
        laptop.devproxy(["swap", "cart", "--drain=labels", "--dry-run"])?.output(SWAP).await?.success()?;
    for line in [
        "take the labels app, pod-template-hash off the pods of cart",
        "undo: give them back, or delete these pods once cart serves again",
        "delete these pods of cart 5 s later",
    ] {
        ensure!(plan.stdout.contains(line), "{line}: {plan:?}");
    }

    let rights = include_str!("../../deploy/rbac.yaml").replace("verbs: [patch, delete]", "verbs: [get]");
    laptop.login_with(&shop, &rights).await?;
    let refused = laptop.devproxy(["swap", "cart", "--drain=labels", "--", "shopd"])?.output(SWAP).await?;
    let cause = format!(
        "error: user `system:serviceaccount:{0}:developer` may not, in namespace `{0}`: patch, delete pods [DP-FORBIDDEN]",
        shop.name()
    );
    ensure!(refused.code() == 125 && refused.stderr.starts_with(&cause), "{refused:?}");
    Ok(())
}

/// The pods whose labels are off and which are not on their way out.
async fn drained(shop: &Namespace) -> Result<Vec<Value>> {
    let pods = shop.get(["pods", "--selector", "devproxy.dev/draining"]).await?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    Ok(pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
}

async fn pods(shop: &Namespace) -> Result<Vec<String>> {
    let pods = shop.get(["pods", "--selector", "app=cart"]).await?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = pods.iter().map(|pod| pod["metadata"]["name"].to_string()).collect();
    names.sort();
    Ok(names)
}

async fn replicas(shop: &Namespace) -> Result<u64> {
    shop.get(["deployment", "cart"]).await?["spec"]["replicas"].as_u64().context("no replicas")
}
