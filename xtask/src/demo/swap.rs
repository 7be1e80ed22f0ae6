//! The part that the product plays.

use std::time::Duration;

use anyhow::Result;
use devproxy_tests::{Bed, Laptop, Namespace};
use nix::sys::signal::Signal;

use super::shop::CART;
use crate::steps::Steps;

const LIMIT: Duration = Duration::from_mins(1);

pub(super) async fn show(steps: &mut Steps, bed: &Bed, shop: &Namespace) -> Result<()> {
    let laptop = bed.laptop().await?;
    laptop.login(shop).await?;
    let (objects, before) = (shop.objects().await?, laptop.snapshot()?);
    let load = steps
        .step("traffic", async {
            let load = shop.load(&format!("http://{CART}:8080/")).rate(200).start().await?;
            Ok((load, "200 requests/s to cart, each on a connection of its own".to_owned()))
        })
        .await?;

    // A shell of the session, in which the developer runs, edits, and runs again.
    let mut swap = steps
        .step("swap", async {
            let script = "VERSION=laptop-1 shopd; VERSION=laptop-2 shopd";
            let mut swap = laptop.devproxy(["swap", CART, "--", "bash", "-c", script])?.spawn()?;
            swap.wait_for("handover", LIMIT).await?;
            Ok((swap, "`devproxy swap cart -- bash` as an ordinary user; it printed".to_owned()))
        })
        .await?;
    for line in swap.stderr().lines().filter(|line| line.starts_with("  ")) {
        println!("    │ {line}");
    }
    steps
        .step("laptop", async {
            load.until_answered_by("laptop-1", 100, LIMIT).await?;
            Ok(((), "cart is answered by the local process".to_owned()))
        })
        .await?;
    for (what, path, wanted) in [
        ("environment of the pod", "env/COLOUR", "green"),
        ("file of a ConfigMap", "file/etc/shop/currency", "euro"),
        ("file of a Secret", "file/var/run/payment/key", "not-on-disk"),
        ("redis by its name, through cart", "redis/PING", "PONG"),
        ("web by its name, through cart", "get/web:8080/version", "v1"),
    ] {
        let found =
            shop.ask(&format!("http://{CART}:8080/{path}")).await.unwrap_or_else(|error| error.to_string());
        steps.saw(what, found.trim(), found.trim() == wanted);
    }
    let asker = shop.get(["pod", shop.client().await?]).await?;
    let address = asker["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    let peer = shop.ask(&format!("http://{CART}:8080/peer")).await?;
    steps.saw("the client's true address", peer.trim(), peer.starts_with(&format!("{address}:")));

    steps
        .step("edit", async {
            end_local(&laptop);
            load.until_answered_by("laptop-2", 100, LIMIT).await?;
            Ok(((), "edited and started again; clients were held meanwhile".to_owned()))
        })
        .await?;
    steps
        .step("restore", async {
            end_local(&laptop);
            let exit = swap.wait(LIMIT).await?;
            let told = exit
                .stderr
                .lines()
                .find(|line| line.contains("restore"))
                .unwrap_or_default()
                .trim()
                .to_owned();
            Ok(((), format!("exit code {}; {told}", exit.code())))
        })
        .await?;
    let cluster = load.report().await?.answers_of("cluster");
    load.until_answered_by("cluster", cluster + 100, LIMIT).await?;
    let report = load.finish().await?;
    let failed = format!("{} of {} (slowest {} ms)", report.failed, report.total, report.slowest_ms);
    steps.saw("failed requests from start to end", failed, report.failed == 0);
    let versions: Vec<_> = report.versions.iter().map(|(name, count)| format!("{name} {count}")).collect();
    steps.saw("answers by version", versions.join(", "), report.versions.len() == 3);
    let difference = objects.difference(&shop.objects().await?);
    steps.saw("objects of the namespace after", same(&difference), difference.is_empty());
    let difference = before.difference(&laptop.snapshot()?);
    steps.saw("network, files and mounts of the laptop after", same(&difference), difference.is_empty());
    Ok(())
}

/// Ends the local cart as a developer's `kill` does; it drains.
fn end_local(laptop: &Laptop) {
    let programs = laptop.processes();
    let is_shopd =
        |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "shopd");
    if let Some(shopd) = programs.iter().find(|process| is_shopd(process.pid)) {
        shopd.signal(Signal::SIGTERM);
    }
}

fn same(difference: &str) -> String {
    if difference.is_empty() { "as before".to_owned() } else { difference.to_owned() }
}
