//! A program that does not listen where its clients are led to: what a person is told, word for word.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::{App, Bed, Exit, Image, Laptop, Namespace, Run, snapshots};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SWAP: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(20);

async fn cart(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop)> {
    let shop = bed.namespace(purpose).await?;
    shop.deploy(App::shop("cart")).await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    Ok((shop, laptop))
}

/// What `devproxy status` says of the only session, in its column PHASE, and for programs.
async fn status(laptop: &Laptop) -> Result<(String, Value)> {
    let text = laptop.devproxy(["status"])?.output(SOON).await?.success()?.stdout;
    let (head, row) = text.split_once('\n').context("no row")?;
    let columns = head.find("PHASE").zip(head.find("AGENT")).context("no columns")?;
    let phase: String = row.chars().skip(columns.0).take(columns.1 - columns.0).collect();
    let json = laptop.devproxy(["status", "-o", "json"])?.output(SOON).await?.success()?.stdout;
    Ok((phase.trim_end().to_owned(), serde_json::from_str::<Value>(&json)?[0]["here"].take()))
}

async fn end(shop: &Namespace, mut swap: Run) -> Result<()> {
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?;
    shop.ready("cart").await
}

/// The line with a pid in it.
fn line_of<'a>(printed: &'a str, wanted: &str) -> &'a str {
    printed.lines().find(|line| line.contains(wanted)).unwrap_or_default().trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_on_another_port_is_told_how_it_is_reached() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "elsewhere").await?;
    let _filters = snapshots::filters().bind_to_scope();
    let words = ["swap", "cart", "--", "env", "PORT=3000", "shopd"];
    let mut swap = laptop.devproxy(words)?.spawn()?;
    swap.wait_for("start devproxy with", SWAP).await?;
    insta::assert_snapshot!(line_of(&swap.printed(), "start devproxy with"), @"… pid PID (shopd) listens on 3000, nobody on 8080: start devproxy with -p 8080:3000");
    let (phase, here) = status(&laptop).await?;
    ensure!(phase.starts_with("waiting, nobody listens on 8080 for ") && phase.ends_with('s'), "{phase}");
    ensure!(here["silence"]["ports"] == json!([{"pod": 8080, "local": 8080}]), "{here}");
    ensure!(here["silence"]["since"].is_string() && here["phase"] == "waiting for the program to listen");
    end(&shop, swap).await?;

    // What the line says is what has to be typed.
    let words = ["swap", "cart", "-p", "8080:3000", "--", "env", "PORT=3000", "shopd"];
    let mut swap = laptop.devproxy(words)?.env("VERSION", "mine").spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("cart").await?;
    ensure!(shop.ask("http://cart:8080/version").await? == "mine\n");
    let printed = swap.printed();
    let told =
        ["plan ", "waiting until", "leading", "handover "].map(|step| line_of(&printed, step)).join("\n");
    insta::assert_snapshot!(told, @"
    ✓ plan      1 stand-in pod, cart 1 → 0 replicas, 8080→3000/tcp  TIME
    … waiting until something listens on 3000 (8080→3000); cart's pods answer until then
    … pid PID (shopd) listens on 8080→3000: leading cart's clients to it
    ✓ handover  8080→3000 is answered by pid PID (shopd); cart scaled to 0  TIME
    ");
    let (phase, here) = status(&laptop).await?;
    ensure!(phase == "swapped" && here["silence"].is_null(), "{phase} {here}");
    ensure!(here["ports"]["pod"] == json!(["8080→3000/tcp"]), "{here}");
    end(&shop, swap).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_advice_comes_once_and_not_for_a_port_beside_the_right_one() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "beside").await?;
    // Another port first, and the right one before anybody could think that it is forgotten.
    let script = "PORT=3000 shopd & sleep 1; shopd & p=$!; read go; kill $p; wait $p; echo quiet; read go; \
                  PORT=4000 shopd & read go; kill $(jobs -p); wait";
    let mut swap = laptop.devproxy(["swap", "cart", "--", "bash", "-c", script])?.spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("cart").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(!swap.printed().contains("start devproxy with"), "{}", swap.printed());

    // Between a program's end and its next start the clients wait, and `status` says for whom.
    swap.write("stop\n")?;
    swap.wait_for("quiet", SOON).await?;
    shop.until("the silence", SOON, async || {
        status(&laptop)
            .await
            .is_ok_and(|(phase, _)| phase.starts_with("swapped, nobody listens on 8080 for "))
    })
    .await?;
    swap.wait_for("listens on 3000, nobody on 8080: start devproxy with -p 8080:3000", SOON).await?;
    swap.write("go\n")?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(swap.printed().matches("start devproxy with").count() == 1, "{}", swap.printed());
    swap.write("end\n")?;
    swap.wait(RESTORE).await?;
    shop.ready("cart").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_on_which_nobody_listens_is_told_beside_one_that_answers() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "gap").await?;
    let words = ["swap", "cart", "-p", "9999", "--hold", "20", "--", "shopd"];
    let mut swap = laptop.devproxy(words)?.spawn()?;
    swap.wait_for("nobody listens on 9999: clients there wait 20 s for it, then are reset", SWAP).await?;
    shop.until_swapped("cart").await?;
    shop.until("the gap", SOON, async || {
        status(&laptop)
            .await
            .is_ok_and(|(phase, _)| phase.starts_with("swapped, nobody listens on 9999 for "))
    })
    .await?;
    let (_, here) = status(&laptop).await?;
    ensure!(here["silence"]["ports"] == json!([{"pod": 9999, "local": 9999}]), "{here}");
    end(&shop, swap).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_without_ports_is_not_taken_away_without_a_word() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("portless").await?;
    let worker = App::of(Image::Python, "worker").args(["-c", "import time; time.sleep(3600)"]);
    shop.deploy(worker.pod(json!({"terminationGracePeriodSeconds": 1}))).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;
    let _filters = snapshots::filters().bind_to_scope();
    let warned = async |words: &[&str]| -> Result<String> {
        let exit = laptop.devproxy(words.iter().copied())?.output(RESTORE).await?.success()?;
        let all = exit.stdout + &exit.stderr;
        let lines = all.lines().filter(|line| line.contains("! ") || line.contains("handover"));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    };
    insta::assert_snapshot!(warned(&["swap", "worker", "--dry-run"]).await?, @"
    container worker, handover at once (it has no TCP ports)
    ! neither worker nor a Service names a TCP port, so it is scaled to 0 at once; `-p PORT` waits until the program listens there
    ");
    insta::assert_snapshot!(warned(&["swap", "worker", "--", "true"]).await?, @"
    ! neither worker nor a Service names a TCP port, so it is scaled to 0 at once; `-p PORT` waits until the program listens there
    ✓ handover  worker scaled to 0 (it has no TCP ports)  TIME
    ");
    shop.ready("worker").await?;
    before.require_same(&shop.objects().await?)?;
    insta::assert_snapshot!(warned(&["swap", "worker", "-p", "8080", "--dry-run"]).await?, @"container worker, handover when the program listens (it has TCP ports)");
    // With nothing to wait for, waiting would never end.
    insta::assert_snapshot!(warned(&["swap", "worker", "--handover", "listen", "--dry-run"]).await?, @"
    container worker, handover at once (it has no TCP ports)
    ! neither worker nor a Service names a TCP port, so it is scaled to 0 at once; `-p PORT` waits until the program listens there
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_own_port_is_not_taken_for_the_pods() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("service").await?;
    let own = json!({"ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    shop.deploy(App::shop("web").service(own)).await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let warned = async |ports: &str| -> Result<String> {
        let plan =
            laptop.devproxy(["swap", "web", "-p", ports, "--dry-run"])?.output(SOON).await?.success()?;
        Ok(plan.stdout.lines().filter(|line| line.starts_with('!')).collect::<Vec<_>>().join("\n"))
    };
    insta::assert_snapshot!(warned("80:3000").await?, @"! no Service leads to port 80 of web's pods, Service web leads from 80 to 8080: was `-p 8080:3000` meant?");
    insta::assert_snapshot!(warned("8081:3000").await?, @"! no Service leads to port 8081 of web's pods and no container names it, they name 8080: was `-p 8080:3000` meant?");
    insta::assert_snapshot!(warned("8080:3000").await?, @"");

    // What the line says is what has to be typed.
    let words = ["swap", "web", "-p", "8080:3000", "--", "env", "PORT=3000", "shopd"];
    let mut swap = laptop.devproxy(words)?.env("VERSION", "mine").spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("web").await?;
    ensure!(shop.ask("http://web:80/version").await? == "mine\n");
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?;
    shop.ready("web").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_was_killed_or_never_listened_is_told() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "silent").await?;
    let before = shop.objects().await?;
    let lines = |exit: &Exit| {
        let told = exit.stderr.lines().filter(|line| line.trim_start().starts_with('!'));
        format!("exit code {}\n{}", exit.code(), told.collect::<Vec<_>>().join("\n"))
    };
    let told = async |script: &str| -> Result<String> {
        let words = ["swap", "cart", "--", "bash", "-c", script];
        Ok(lines(&laptop.devproxy(words)?.output(RESTORE).await?))
    };
    insta::assert_snapshot!(told("exit 3").await?, @"
    exit code 3
      ! the program ended (exit code 3) before anything listened on 8080
    ");
    insta::assert_snapshot!(told("kill -SEGV $$").await?, @"
    exit code 139
      ! the program was ended by SIGSEGV before anything listened on 8080
    ");

    // One that has listened needs no word, unless it was killed.
    let mut swap =
        laptop.devproxy(["swap", "cart", "--", "bash", "-c", "shopd & read end; exit 3"])?.spawn()?;
    swap.wait_for("handover", SWAP).await?;
    swap.write("end\n")?;
    insta::assert_snapshot!(lines(&swap.wait(RESTORE).await?), @"exit code 3");
    let mut swap =
        laptop.devproxy(["swap", "cart", "--", "bash", "-c", "shopd & read end; kill -KILL $$"])?.spawn()?;
    swap.wait_for("handover", SWAP).await?;
    let joined = laptop.devproxy(["exec", "cart", "--", "bash", "-c", "kill -SEGV $$"])?.output(SOON).await?;
    insta::assert_snapshot!(lines(&joined), @"
    exit code 139
      ! the program was ended by SIGSEGV
    ");
    swap.write("end\n")?;
    insta::assert_snapshot!(lines(&swap.wait(RESTORE).await?), @"
    exit code 137
      ! the program was ended by SIGKILL
    ");

    // Who ends it knows.
    let mut swap = laptop.devproxy(["swap", "cart", "--", "sleep", "3600"])?.spawn()?;
    swap.wait_for("waiting until something listens", SWAP).await?;
    shop.until("the program", SOON, async || {
        laptop.processes().iter().any(|process| {
            std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).is_ok_and(|name| name == "sleep\n")
        })
    })
    .await?;
    swap.signal_group(Signal::SIGINT)?;
    insta::assert_snapshot!(lines(&swap.wait(RESTORE).await?), @"exit code 130");
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)
}
