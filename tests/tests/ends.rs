//! How sessions end that are taken away, left early or broken while they end: nothing is left, and the words are true.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use devproxy_tests::{App, Bed, Laptop, Namespace, Objects, Run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours: the original's pods start, the stand-in drains.
const RESTORE: Duration = Duration::from_mins(2);

/// What a program leaves behind that does not hear of the end, beside a server.
const STUBBORN: &str = "(trap '' HUP; exec sleep 3600) & shopd & read go; kill $!; exit 7";

async fn cart(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop, Objects)> {
    let shop = bed.namespace(purpose).await?;
    shop.deploy(App::shop("cart")).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;
    Ok((shop, laptop, before))
}

async fn swapped(laptop: &Laptop, words: &[&str]) -> Result<Run> {
    let words = ["swap", "cart", "--"].iter().chain(words).copied();
    let mut swap = laptop.devproxy(words)?.spawn()?;
    swap.wait_for("handover", SWAP).await?;
    Ok(swap)
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
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_taken_away_says_by_whom() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "taken").await?;

    // Two at once, which both find it restored.
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    let mut first = laptop.devproxy(["restore", "cart"])?.spawn()?;
    let second = laptop.devproxy(["restore", "cart"])?.output(RESTORE).await?;
    let (first, exit) = (first.wait(RESTORE).await?, swap.wait(RESTORE).await?);
    assert_eq!((first.code(), second.code()), (0, 0), "{first:?} {second:?}");
    assert!(exit.stderr.contains("the session was ended by `devproxy restore`"), "{exit:?}");
    assert_eq!(exit.code(), 125, "{exit:?}");
    gone(&shop, &laptop, &before).await?;
    let late = laptop.devproxy(["exec", "cart", "--", "true"])?.output(SWAP).await?;
    assert!(late.code() == 125 && late.stderr.contains("DP-NO-SESSION"), "{late:?}");

    // The same while the session is still being established.
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.spawn()?;
    shop.until("the session's stand-in", SWAP, async || {
        shop.kubectl(["get", "deployments", "-o", "name"])
            .await
            .is_ok_and(|names| names.contains("-devproxy-"))
    })
    .await?;
    laptop.devproxy(["restore", "cart"])?.output(RESTORE).await?.success()?;
    let exit = swap.wait(RESTORE).await?;
    assert!(exit.code() == 125 && exit.stderr.contains("ended by `devproxy restore`"), "{exit:?}");
    gone(&shop, &laptop, &before).await?;

    // Somebody deletes the stand-in by hand.
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    let label = "app.kubernetes.io/managed-by=devproxy";
    shop.kubectl(["delete", "deployment", "-l", label]).await?;
    let exit = swap.wait(RESTORE).await?;
    assert!(exit.code() == 125 && exit.stderr.contains("DP-STAND-IN-LOST"), "{exit:?}");
    gone(&shop, &laptop, &before).await?;

    // The namespace helper is killed.
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    kill(process(&laptop, "__namespaces")?, Signal::SIGKILL)?;
    let exit = swap.wait(RESTORE).await?;
    assert!(exit.code() == 125 && exit.stderr.contains("the shell's namespaces are gone"), "{exit:?}");
    gone(&shop, &laptop, &before).await?;

    // The session process is told to end.
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    kill(session_process(&laptop)?, Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?;
    assert!(exit.code() == 125 && exit.stderr.contains("ended by SIGTERM"), "{exit:?}");
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ignores_the_end_is_ended_whoever_restores() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "stubborn").await?;

    // The session process does it.
    let mut swap = swapped(&laptop, &["bash", "-c", STUBBORN]).await?;
    swap.write("go\n")?;
    assert_eq!(swap.wait(RESTORE).await?.code(), 7);
    gone(&shop, &laptop, &before).await?;

    // It dies while it restores: the terminal process finds what is left without it.
    let mut swap = swapped(&laptop, &["bash", "-c", STUBBORN]).await?;
    let session = session_process(&laptop)?;
    swap.write("go\n")?;
    shop.until("the restore's begin", RESTORE, async || {
        let replicas = shop.kubectl(["get", "deployment", "cart", "-o", "jsonpath={.spec.replicas}"]).await;
        replicas.is_ok_and(|replicas| replicas != "0")
    })
    .await?;
    kill(session, Signal::SIGKILL)?;
    let exit = swap.wait(RESTORE).await?;
    assert_eq!(exit.code(), 7, "{exit:?}");
    assert!(exit.stderr.contains("the session process has died; restoring from here"), "{exit:?}");
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_early_gets_the_prompt_and_the_session_process_restores() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "early").await?;

    laptop.devproxy(["--version"])?.output(SWAP).await?.success()?;
    // While it is established, from a command substitution that would wait for any holder of its pipe.
    let script = "out=$(devproxy swap cart -- true 3>&1); echo left with $?";
    let mut shell = laptop.command("bash").args(["-c", script]).terminal().spawn()?;
    shop.until("the session's Lease", SWAP, async || {
        shop.kubectl(["get", "leases", "-o", "name"]).await.is_ok_and(|names| !names.trim().is_empty())
    })
    .await?;
    let session = session_process(&laptop)?;
    // It cannot answer: only so is there time for a second Ctrl-C.
    kill(session, Signal::SIGSTOP)?;
    let left = AtomicBool::new(false);
    shop.until("the prompt after Ctrl-C", SWAP, async || {
        let _ = shell.write("\x03");
        left.store(shell.printed().contains("DP-INTERRUPTED"), Ordering::Relaxed);
        left.load(Ordering::Relaxed)
    })
    .await
    .with_context(|| shell.printed())?;
    shell.wait(SWAP).await?;
    kill(session, Signal::SIGCONT)?;
    gone(&shop, &laptop, &before).await?;

    // It dies before the shell is there: not an interruption, and nothing is left.
    let mut swap = laptop.devproxy(["swap", "cart", "--", "true"])?.spawn()?;
    swap.wait_for("agent", SWAP).await?;
    kill(session_process(&laptop)?, Signal::SIGKILL)?;
    let exit = swap.wait(RESTORE).await?;
    // The program may just have run.
    assert!(exit.stderr.contains("the session process has died"), "{exit:?}");
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_does_not_listen_keeps_nobody_from_the_restore() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "stopped").await?;
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    swap.signal(Signal::SIGSTOP)?;
    laptop.devproxy(["restore", "cart"])?.output(RESTORE).await?.success()?;
    swap.signal(Signal::SIGCONT)?;
    let exit = swap.wait(RESTORE).await?;
    assert!(exit.code() == 125 && exit.stderr.contains("ended by `devproxy restore`"), "{exit:?}");
    assert!(!exit.stderr.contains("died"), "{exit:?}");
    gone(&shop, &laptop, &before).await?;

    // A closed one, on which the session process cannot even log.
    let mut swap = laptop.devproxy(["-vv", "swap", "cart", "--", "shopd"])?.terminal().spawn()?;
    swap.wait_for("handover", SWAP).await?;
    swap.close_terminal();
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_alone_is_enough_for_a_restore() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, _) = cart(&bed, "lease").await?;
    let swap = swapped(&laptop, &["shopd"]).await?;
    // Both at once: neither may see the other die.
    swap.signal(Signal::SIGSTOP)?;
    kill(session_process(&laptop)?, Signal::SIGKILL)?;
    swap.signal(Signal::SIGKILL)?;
    shop.kubectl(["delete", "leases", "--all"]).await?;

    let other = bed.laptop().await?;
    other.login(&shop).await?;
    other.devproxy(["restore", "cart"])?.output(RESTORE).await?.success()?;
    shop.ready("cart").await?;
    let replicas = shop.kubectl(["get", "deployment", "cart", "-o", "jsonpath={.spec.replicas}"]).await?;
    assert_eq!(replicas, "1");
    shop.until("that nothing of ours is left", RESTORE, async || {
        let ours =
            ["get", "deployments,leases,secrets,configmaps,pods", "-l", "devproxy.dev/session", "-o", "name"];
        shop.kubectl(ours).await.is_ok_and(|names| names.trim().is_empty())
    })
    .await?;
    let again = other.devproxy(["restore", "cart"])?.output(RESTORE).await?;
    assert!(again.code() == 125 && again.stderr.contains("DP-NO-SESSION"), "{again:?}");
    Ok(())
}

fn session_process(laptop: &Laptop) -> Result<Pid> {
    process(laptop, "__session")
}

/// The product's process with this first argument.
fn process(laptop: &Laptop, argument: &str) -> Result<Pid> {
    let found = laptop.processes().into_iter().find(|process| {
        std::fs::read(format!("/proc/{}/cmdline", process.pid))
            .is_ok_and(|words| words.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
    });
    Ok(Pid::from_raw(found.with_context(|| format!("no process {argument}"))?.pid))
}
