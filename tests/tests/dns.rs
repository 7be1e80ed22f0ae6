//! The cluster's DNS as the shell sees it: answers are given again while they are true, and no longer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::host::packages;
use devproxy_tests::{App, Bed, Laptop, Namespace, Run};
use nix::sys::signal::Signal;
use serde_json::json;

const SWAP: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
const SAID: Duration = Duration::from_secs(30);
/// What the cluster's DNS says of a Service.
const TTL: u64 = 5;
const PROBE: &str = include_str!("dns/probe.py");

/// The probe inside a swap's shell.
struct Asker {
    probe: Run,
    swap: Run,
}

impl Asker {
    async fn start(laptop: &Laptop) -> Result<Self> {
        laptop.write_file("probe.py", 0o644, PROBE.as_bytes())?;
        let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.spawn()?;
        swap.wait_for("handover", SWAP).await?;
        let probe = laptop.devproxy(["exec", "cart", "--", "python3", "probe.py"])?.spawn()?;
        Ok(Self { probe, swap })
    }

    /// What the probe says to one command.
    async fn said(&mut self, command: &str) -> Result<String> {
        self.probe.write(&format!("{command}\n"))?;
        let word = command.split(' ').next().unwrap_or_default();
        // The line comes in one write, so it is whole.
        let line = self.probe.wait_for(&format!("{word} "), SAID).await?;
        Ok(line.strip_prefix(word).unwrap_or(&line).trim().to_owned())
    }

    async fn end(mut self) -> Result<()> {
        self.probe.close_input();
        self.probe.wait(SAID).await?.success()?;
        self.swap.signal(Signal::SIGTERM)?;
        self.swap.wait(RESTORE).await?.success()?;
        Ok(())
    }
}

async fn shop(bed: &Bed) -> Result<(Namespace, Laptop)> {
    packages::require_laptop()?;
    let shop = bed.namespace("dns").await?;
    let echo = App::shop("echo").env("TCP_ECHO", "7000").port("echo", 7000);
    tokio::try_join!(shop.deploy(App::shop("cart")), shop.deploy(echo))?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    Ok((shop, laptop))
}

async fn service(shop: &Namespace, name: &str) -> Result<String> {
    shop.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "nobody"}},
    }))
    .await?;
    let made = shop.get(["service", name]).await?;
    Ok(made["spec"]["clusterIP"].as_str().context("no address")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_given_again_while_they_are_true() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = shop(&bed).await?;
    let name = format!("known.{}.svc.cluster.local.", shop.name());
    let missing = format!("missing.{}.svc.cluster.local.", shop.name());
    let address = service(&shop, "known").await?;
    let mut asker = Asker::start(&laptop).await?;

    // Behind a black hole a known name and a known absence are answered until their time is over, others not at all.
    let answer = asker.said(&format!("ask {name}")).await?;
    ensure!(answer == format!("0 {TTL} {address}"), "{answer}");
    let absence = asker.said(&format!("ask {missing}")).await?;
    ensure!(absence.starts_with("3 "), "{absence}");
    laptop.relay().stall();
    let other = asker.said(&format!("ask never-asked.{}.svc.cluster.local.", shop.name())).await?;
    ensure!(other == "silence", "{other}");
    let absence = asker.said(&format!("ask {missing}")).await?;
    ensure!(absence.starts_with("3 "), "{absence}");
    let watched = asker.said(&format!("watch {name}")).await?;
    laptop.relay().resume();
    println!("{watched}");
    let seen: Vec<(f64, u64)> = watched
        .split(", ")
        .map(|pair| {
            let (elapsed, ttl) = pair.split_once(' ').context("no pair")?;
            Ok((elapsed.parse()?, ttl.parse()?))
        })
        .collect::<Result<_>>()?;
    for (elapsed, ttl) in &seen {
        let limit = Duration::from_secs(TTL).saturating_sub(Duration::from_secs_f64(*elapsed));
        ensure!(*ttl <= limit.as_secs(), "{watched}");
    }
    let (first, last) = (seen.first().context("no answer")?, seen.last().context("no answer")?);
    ensure!(first.1 > 0 && last.1 == 0, "it counts to the end: {watched}");

    // The same again, as the cluster's DNS says it now.
    shop.until("an answer after the black hole", SAID, async || {
        asker.said(&format!("ask {name}")).await.is_ok_and(|said| said.ends_with(&format!(" {address}")))
    })
    .await?;

    times(&mut asker, &shop).await?;
    a_new_address_is_seen_when_the_old_answer_is_over(&mut asker, &shop, &name, &address).await?;
    asker.end().await?;
    shop.ready("cart").await
}

async fn a_new_address_is_seen_when_the_old_answer_is_over(
    asker: &mut Asker,
    shop: &Namespace,
    name: &str,
    old: &str,
) -> Result<()> {
    let known = asker.said(&format!("ask {name}")).await?;
    ensure!(known.ends_with(&format!(" {old}")), "{known}");
    shop.kubectl(["delete", "service", "known"]).await?;
    let new = service(shop, "known").await?;
    ensure!(new != old, "the API server gave the same address again");
    let start = Instant::now();
    shop.until("the new address", SAID, async || {
        asker.said(&format!("ask {name}")).await.is_ok_and(|said| said.ends_with(&format!(" {new}")))
    })
    .await?;
    println!("the new address was seen after {:.1} s", start.elapsed().as_secs_f64());
    // Its own cache and ours, one after the other, and the way of the change.
    ensure!(start.elapsed() < Duration::from_secs(2 * TTL + 3), "after {:?}", start.elapsed());
    Ok(())
}

/// Shown, and held against each other only as far as a busy machine allows; `cargo xtask bench` judges them.
async fn times(asker: &mut Asker, shop: &Namespace) -> Result<()> {
    let name = format!("echo.{}.svc.cluster.local.", shop.name());
    let mut medians = Vec::new();
    for command in [
        format!("echo echo.{} 7000 500", shop.name()),
        format!("misses {name} 500"),
        format!("times {name} 2000"),
        format!("echo echo.{} 7000 500", shop.name()),
    ] {
        let said = asker.said(&command).await?;
        println!("{command}: {said}");
        let median = said.split(' ').nth(1).context("no median")?;
        medians.push(median.parse::<f64>().with_context(|| said.clone())?);
    }
    let [_, missed, known, _] = medians[..] else { return Ok(()) };
    ensure!(known < missed, "an answer from here is no faster: {known} against {missed} ms");
    Ok(())
}
