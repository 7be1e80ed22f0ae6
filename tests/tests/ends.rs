//! How sessions end that are taken away, left early or broken while they end: nothing is left, and the words are true.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use devproxy_tests::{App, Bed, Image, Laptop, Namespace, Objects, Run, snapshots};
use nix::sys::signal::Signal;
use serde_json::json;

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
    let script = "echo joined; exec sleep 3600";
    let mut joined = laptop.devproxy(["exec", "cart", "--", "bash", "-c", script])?.spawn()?;
    joined.wait_for("joined", SWAP).await?;
    let mut first = laptop.devproxy(["restore", "cart"])?.spawn()?;
    let second = laptop.devproxy(["restore", "cart"])?.output(RESTORE).await?;
    let (first, exit) = (first.wait(RESTORE).await?, swap.wait(RESTORE).await?);
    assert_eq!((first.code(), second.code()), (0, 0), "{first:?} {second:?}");
    assert!(exit.stderr.contains("the session was ended by `devproxy restore`"), "{exit:?}");
    assert_eq!(exit.code(), 125, "{exit:?}");
    let exit = joined.wait(RESTORE).await?;
    let told = "  ! the session was ended by `devproxy restore` [DP-SESSION-ENDED]; ending the program\n\
                error: the session was ended by `devproxy restore` [DP-SESSION-ENDED]\n";
    assert_eq!((exit.stderr.as_str(), exit.code()), (told, 125), "{exit:?}");
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

    // Somebody else deletes the stand-in by hand, restores, or takes it over: that alone is told, not what follows from it.
    let other = bed.laptop().await?;
    other.login(&shop).await?;
    let host = host()?;
    let restored = format!("the session was ended by {}@{host} [DP-SESSION-ENDED]", other.user());
    for (words, told) in [
        (None, "was deleted [DP-STAND-IN-LOST]"),
        (Some("restore cart --force"), restored.as_str()),
        (Some("swap cart --take-over -- shopd"), restored.as_str()),
    ] {
        let mut swap = swapped(&laptop, &["shopd"]).await?;
        let mut taking = None;
        match words {
            None => {
                let label = "app.kubernetes.io/managed-by=devproxy";
                shop.kubectl(["delete", "deployment", "-l", label]).await?;
            }
            Some(words) => taking = Some(other.devproxy(words.split(' '))?.spawn()?),
        }
        let exit = swap.wait(RESTORE).await?;
        assert!(exit.code() == 125, "{exit:?}");
        let (_, after) = exit.stderr.split_once("handover").context("no handover")?;
        let line = after.lines().nth(1).unwrap_or_default();
        assert!(line.ends_with(&format!("{told}; ending the program")), "{words:?}: {exit:?}");
        if let Some(mut taking) = taking {
            if words.is_some_and(|words| words.starts_with("swap")) {
                taking.wait_for("✓ handover", RESTORE).await?;
                taking.signal(Signal::SIGTERM)?;
            }
            taking.wait(RESTORE).await?.success()?;
        }
        gone(&shop, &laptop, &before).await?;
    }

    // The namespace helper is killed.
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    laptop.helper()?.signal(Signal::SIGKILL);
    let exit = swap.wait(RESTORE).await?;
    assert!(exit.code() == 125 && exit.stderr.contains("the shell's namespaces are gone"), "{exit:?}");
    gone(&shop, &laptop, &before).await?;

    // The session process is told to end.
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    laptop.session_process()?.signal(Signal::SIGTERM);
    let exit = swap.wait(RESTORE).await?;
    assert!(exit.code() == 125 && exit.stderr.contains("ended by SIGTERM"), "{exit:?}");
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_taken_away_before_its_agent_runs_says_by_whom() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("early").await?;
    // No agent yet, and a pod that takes its time to end: so long the Lease tells whose work it is.
    let first = json!({
        "initContainers": [{
            "name": "first", "image": Image::Busybox.reference(), "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"],
        }],
        "terminationGracePeriodSeconds": 5,
    });
    shop.deploy(App::shop("cart").replicas(0).pod(first)).await?;
    let (laptop, other) = (bed.laptop().await?, bed.laptop().await?);
    laptop.login(&shop).await?;
    other.login(&shop).await?;
    let before = shop.objects().await?;
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.spawn()?;
    let running = "jsonpath={.items[*].status.initContainerStatuses[*].state.running}";
    shop.until("the first container", SWAP, async || {
        shop.kubectl(["get", "pods", "-o", running]).await.is_ok_and(|running| !running.is_empty())
    })
    .await?;
    other.devproxy(["restore", "cart", "--force"])?.output(RESTORE).await?.success()?;
    let exit = swap.wait(RESTORE).await?;
    let host = host()?;
    let told = format!("error: the session was ended by {}@{host} [DP-SESSION-ENDED]\n", other.user());
    assert!(exit.code() == 125 && exit.stderr.contains(&told), "{exit:?}");
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
    let session = laptop.session_process()?;
    swap.write("go\n")?;
    shop.until("the restore's begin", RESTORE, async || {
        let replicas = shop.kubectl(["get", "deployment", "cart", "-o", "jsonpath={.spec.replicas}"]).await;
        replicas.is_ok_and(|replicas| replicas != "0")
    })
    .await?;
    session.signal(Signal::SIGKILL);
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
    let session = laptop.session_process()?;
    assert_eq!(session.name(), "devproxy", "for ps and pkill");
    // It cannot answer: only so is there time for a second Ctrl-C.
    session.signal(Signal::SIGSTOP);
    let left = AtomicBool::new(false);
    shop.until("the prompt after Ctrl-C", SWAP, async || {
        let _ = shell.write("\x03");
        left.store(shell.printed().contains("DP-INTERRUPTED"), Ordering::Relaxed);
        left.load(Ordering::Relaxed)
    })
    .await
    .with_context(|| shell.printed())?;
    shell.wait(SWAP).await?;
    session.signal(Signal::SIGCONT);
    gone(&shop, &laptop, &before).await?;

    // It dies before the shell is there: not an interruption, and nothing is left.
    let mut swap = laptop.devproxy(["swap", "cart", "--", "true"])?.spawn()?;
    swap.wait_for("agent", SWAP).await?;
    laptop.session_process()?.signal(Signal::SIGKILL);
    let exit = swap.wait(RESTORE).await?;
    // The program may just have run.
    assert!(exit.stderr.contains("the session process has died"), "{exit:?}");
    gone(&shop, &laptop, &before).await
}

/// Whether the process has asked for signals, of which SIGHUP is the last: proc(5), `SigCgt`, a bit for each.
fn listens_to_signals(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
    status.starts_with("Name:\tdevproxy\n")
        && u64::from_str_radix(caught.trim(), 16)
            .is_ok_and(|mask| mask & (1 << (Signal::SIGHUP as i32 - 1)) != 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_anything_has_begun_is_answered() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "waiting").await?;
    laptop.relay().stall();
    let interrupted = "error: interrupted [DP-INTERRUPTED]\n";
    let left = "error: left before the restore was done [DP-INTERRUPTED]\n\
                hint: a session that lives goes on with it; `devproxy restore` again finishes any other\n";
    for (words, told) in [
        ("swap cart -- true", interrupted),
        ("swap cart --dry-run", interrupted),
        ("shell -- true", interrupted),
        ("exec cart -- true", interrupted),
        ("status", interrupted),
        ("restore cart", left),
    ] {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut run = laptop.devproxy(words.split(' '))?.spawn()?;
            shop.until("that it listens", SWAP, async || listens_to_signals(run.pid())).await?;
            run.signal_group(signal)?;
            let exit = run.wait(Duration::from_secs(5)).await?;
            assert_eq!((exit.stderr.as_str(), exit.code()), (told, 130), "{words}: {exit:?}");
        }
    }
    laptop.relay().resume();

    // While a login plugin asks, which itself does not listen.
    let script = "trap '' INT TERM; echo who are you >&2; exec sleep 3600";
    let plugin = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
        "interactiveMode": "IfAvailable",
    }});
    laptop.write_kubeconfig(&laptop.kubeconfig(shop.name(), &plugin))?;
    let swap = laptop.devproxy(["swap", "cart", "--", "true"])?.env("NO_COLOR", "1");
    let mut swap = swap.terminal().spawn()?;
    swap.wait_for("who are you", SWAP).await?;
    swap.write("\x03")?;
    let exit = swap.wait(Duration::from_secs(5)).await?;
    assert!(exit.stdout.contains(interrupted.trim_end()) && exit.code() == 130, "{exit:?}");
    for process in laptop.processes() {
        process.signal(Signal::SIGKILL);
    }
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
async fn a_restore_that_fails_is_told_beside_what_ended_the_session() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "powerless").await?;
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    shop.kubectl(["delete", "rolebindings", "--all"]).await?;
    laptop.helper()?.signal(Signal::SIGKILL);
    // It tries twenty times, a minute.
    let exit = swap.wait(2 * RESTORE).await?;
    let told = exit.stderr.split_once("trying again up to 20 times").context("it does not try again")?.1;
    let hint = format!("hint: `devproxy restore {}/cart` repeats it from any machine\n", shop.name());
    let (failed, ended) = (told.find("[DP-FORBIDDEN]"), told.find("error: the shell's namespaces are gone"));
    assert!(failed.is_some() && failed < told.find(&hint) && told.find(&hint) < ended, "{exit:?}");
    assert_eq!(exit.code(), 125);

    laptop.login(&shop).await?;
    laptop.devproxy(["restore", "cart"])?.output(RESTORE).await?.success()?;
    assert!(laptop.processes().is_empty());
    // Made anew.
    let binding = "RoleBinding developer-edit";
    before.without(binding).require_same(&shop.objects().await?.without(binding))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_at_the_end_is_waited_for_by_whoever_restores() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "away").await?;
    for (by_terminal, code) in [(false, 7), (true, 125)] {
        let mut swap = swapped(&laptop, &["bash", "-c", STUBBORN]).await?;
        laptop.relay().refuse();
        laptop.relay().cut();
        if by_terminal {
            laptop.session_process()?.signal(Signal::SIGKILL);
        } else {
            swap.write("go\n")?;
        }
        swap.wait_for("trying again for an hour", RESTORE).await?;
        laptop.relay().resume();
        let exit = swap.wait(RESTORE).await?;
        assert!(exit.code() == code && exit.stderr.contains("all of ours is gone"), "{exit:?}");
        gone(&shop, &laptop, &before).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_terminal_is_noticed_where_nobody_passes_its_signal_on() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "closed").await?;
    laptop.install_product_as("devproxy")?;
    // As below `su`: the leader of the terminal's session hears of it, and waits for its child.
    let script = "trap : HUP; devproxy swap cart -- shopd; true";
    let mut shell = laptop.command("bash").args(["-c", script]).terminal().spawn()?;
    shell.wait_for("handover", SWAP).await?;
    shell.close_terminal();
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_may_be_closed_where_nohup_was_asked_for() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "nohup").await?;
    laptop.install_product_as("devproxy")?;
    let script = "exec nohup devproxy swap cart -- shopd < /dev/null > log 2>&1";
    let mut shell = laptop.command("bash").args(["-c", script]).terminal().spawn()?;
    shop.until("the handover", SWAP, async || {
        std::fs::read_to_string(laptop.home().join("log")).is_ok_and(|log| log.contains("handover"))
    })
    .await?;
    shell.signal(Signal::SIGHUP)?;
    shell.close_terminal();
    // The program that ends by the first signal that reaches it ends by this one.
    shell.signal(Signal::SIGTERM)?;
    assert_eq!(shell.wait(RESTORE).await?.code(), 0);
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_alone_is_enough_for_a_restore() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, _) = cart(&bed, "lease").await?;
    let swap = swapped(&laptop, &["shopd"]).await?;
    // Both at once: neither may see the other die.
    swap.signal(Signal::SIGSTOP)?;
    laptop.session_process()?.signal(Signal::SIGKILL);
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
    let again = other.devproxy(["restore", "cart"])?.output(RESTORE).await?.success()?;
    assert!(again.stderr.ends_with("/cart is not swapped: nothing to restore\n"), "{again:?}");
    Ok(())
}

/// `devproxy` with these words: exit code and all output, with what differs from run to run replaced.
async fn told(shop: &Namespace, laptop: &Laptop, words: &str) -> Result<String> {
    let exit = laptop.devproxy(words.split(' '))?.output(RESTORE).await?;
    let host = host()?;
    let text = format!("exit code {}\n{}{}", exit.code(), exit.stdout, exit.stderr);
    Ok(text.replace(shop.name(), "NAMESPACE").replace(&laptop.user(), "USER").replace(&host, "HOST"))
}

fn host() -> Result<String> {
    Ok(nix::unistd::gethostname()?.into_string().unwrap_or_default())
}

/// All processes of ours at once: none may see another die.
fn kill_all(laptop: &Laptop, swap: &Run) -> Result<()> {
    let (session, helper) = (laptop.session_process()?, laptop.helper()?);
    swap.signal(Signal::SIGSTOP)?;
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        session.signal(signal);
        helper.signal(signal);
    }
    swap.signal(Signal::SIGKILL)
}

/// Also the columns of `devproxy status`, which are as wide as names and ages.
fn filters() -> insta::internals::SettingsBindDropGuard {
    let mut settings = snapshots::filters();
    settings.add_filter(r"\b[a-z0-9]{10} +NAMESPACE", "ID NAMESPACE");
    settings.add_filter(r" +[0-9]+[sm] +", " AGE ");
    settings.add_filter(r" {2,}", "  ");
    settings.bind_to_scope()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_killed_on_this_laptop_is_over_at_once_for_it_alone() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, before) = cart(&bed, "over").await?;
    let _filters = filters();
    let told = async |words: &str| told(&shop, &laptop, words).await;

    // The terminal and the session process, neither of which may see the other die. The helper is left.
    let swap = swapped(&laptop, &["shopd"]).await?;
    insta::assert_snapshot!(told("swap cart -- shopd").await?, @"
    exit code 125
    error: NAMESPACE/cart is swapped by USER on HOST since THEN (session ID) [DP-HELD]
    hint: it is your own, on this laptop: `devproxy exec NAMESPACE/cart` joins it, `devproxy restore NAMESPACE/cart` ends it
    ");
    insta::assert_snapshot!(told("status -A").await?, @"
    exit code 0
    SESSION  DEPLOYMENT  HOLDER  SINCE  PHASE  AGENT
    ID NAMESPACE/cart  this laptop  -  swapped  cart-devproxy-XXXX
      ! user `system:serviceaccount:NAMESPACE:developer-edit` may not list leases in all namespaces [DP-FORBIDDEN]
    hint: ask for one namespace with -n NAMESPACE, or an administrator for the right on all
    ");
    swap.signal(Signal::SIGSTOP)?;
    laptop.session_process()?.signal(Signal::SIGKILL);
    insta::assert_snapshot!(told("status").await?, @"
    exit code 0
    SESSION  DEPLOYMENT  HOLDER  SINCE  PHASE  AGENT
    ID NAMESPACE/cart  USER@HOST AGE swapped  cart-devproxy-XXXX
    ");
    swap.signal(Signal::SIGKILL)?;
    // Its program is hung up by the helper.
    shop.until("the program's end", SWAP, async || laptop.processes().is_empty()).await?;
    insta::assert_snapshot!(told("status").await?, @"
    exit code 0
    SESSION  DEPLOYMENT  HOLDER  SINCE  PHASE  AGENT
    ID NAMESPACE/cart  USER@HOST AGE dead  cart-devproxy-XXXX
      … NAMESPACE/cart: its processes on this laptop are dead; `devproxy restore NAMESPACE/cart` puts it back
    ");
    insta::assert_snapshot!(told("exec cart -- true").await?, @"
    exit code 125
    error: no session `cart` runs on this laptop [DP-NO-SESSION]
    hint: NAMESPACE/cart: its processes on this laptop are dead; `devproxy restore NAMESPACE/cart` puts it back
    ");
    insta::assert_snapshot!(told("exec -- true").await?, @"
    exit code 125
    error: no session runs on this laptop [DP-NO-SESSION]
    hint: NAMESPACE/cart: its processes on this laptop are dead; `devproxy restore NAMESPACE/cart` puts it back
    ");
    insta::assert_snapshot!(told("swap cart -- shopd").await?, @"
    exit code 125
    error: NAMESPACE/cart is swapped by USER on HOST since THEN (session ID) [DP-STALE]
    hint: its processes on this laptop are dead: `devproxy restore NAMESPACE/cart` puts it back
    ");
    // Another laptop cannot know it.
    let other = bed.laptop().await?;
    other.login(&shop).await?;
    insta::assert_snapshot!(self::told(&shop, &other, "restore --stale").await?, @"
    exit code 0
      … nothing in namespace NAMESPACE is stale: `devproxy status` lists 1, and a laptop that dies counts as gone after two minutes
    ");
    insta::assert_snapshot!(told("restore").await?, @"
    exit code 0
      ✓ restore  NAMESPACE/cart 0 → 1 replicas, 1 ready; all of ours is gone  TIME
    ");
    gone(&shop, &laptop, &before).await?;
    insta::assert_snapshot!(told("restore cart").await?, @"
    exit code 0
      … NAMESPACE/cart is not swapped: nothing to restore
    ");
    insta::assert_snapshot!(told("restore").await?, @"
    exit code 0
      … no session of yours on this laptop or in namespace NAMESPACE: nothing to restore
    ");

    // All at once, and the program has nobody.
    let swap = swapped(&laptop, &["shopd"]).await?;
    kill_all(&laptop, &swap)?;
    shop.until("the end of all but the program", SWAP, async || laptop.processes().len() == 1).await?;
    insta::assert_snapshot!(told("restore --stale").await?, @"
    exit code 0
      … ending what it left running here: pid PID (shopd)
      ✓ restore  NAMESPACE/cart 0 → 1 replicas, 1 ready; all of ours is gone  TIME
    ");
    gone(&shop, &laptop, &before).await?;

    // The same, and somebody else puts it back, who cannot see the program.
    let swap = swapped(&laptop, &["shopd"]).await?;
    kill_all(&laptop, &swap)?;
    other.devproxy(["restore", "cart", "--force"])?.output(RESTORE).await?.success()?;
    insta::assert_snapshot!(told("restore cart").await?, @"
    exit code 0
      … ending what it left running here: pid PID (shopd)
      … NAMESPACE/cart is not swapped: nothing to restore
    ");
    gone(&shop, &laptop, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_ends_what_runs_here_and_is_refused_elsewhere_before_any_change() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop, _) = cart(&bed, "view").await?;
    let _filters = filters();
    // Between the two: it may write Leases, which a restore does first. Accounts are part of what must be the same.
    let half = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "devproxy"},
        "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        ],
    });
    laptop.login_with(&shop, &half.to_string()).await?;
    laptop.login_as(&shop, "view").await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;

    // Its own process ends it, with the rights that it was started with.
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    laptop.login_as(&shop, "view").await?;
    insta::assert_snapshot!(told(&shop, &laptop, "restore cart").await?, @"
    exit code 0
      ✓ restore  cart 0 → 1 replicas, 1 ready; all of ours is gone  TIME
    ");
    swap.wait(RESTORE).await?;
    gone(&shop, &laptop, &before).await?;

    laptop.login(&shop).await?;
    let mut swap = swapped(&laptop, &["shopd"]).await?;
    let other = bed.laptop().await?;
    other.login_as(&shop, "view").await?;
    for words in ["restore cart --force", "restore --stale", "restore"] {
        let text = told(&shop, &other, words).await?;
        insta::allow_duplicates! { insta::assert_snapshot!(text, @"
            exit code 125
            error: user `system:serviceaccount:NAMESPACE:developer-view` may not, in namespace `NAMESPACE`: get, list, patch, delete leases; patch, delete deployments; delete configmaps; delete secrets [DP-FORBIDDEN]
            hint: is the namespace right? if so, an administrator grants them with `kubectl create rolebinding devproxy-developer-view --clusterrole=edit --serviceaccount=NAMESPACE:developer-view -n NAMESPACE` or with the rbac.yaml that comes with devproxy
            ") }
    }
    other.login_with(&shop, &half.to_string()).await?;
    insta::assert_snapshot!(told(&shop, &other, "restore cart --force").await?, @"
    exit code 125
    error: user `system:serviceaccount:NAMESPACE:developer` may not, in namespace `NAMESPACE`: patch, delete deployments; delete configmaps; delete secrets [DP-FORBIDDEN]
    hint: an administrator grants them with `kubectl create rolebinding devproxy-developer --clusterrole=edit --serviceaccount=NAMESPACE:developer -n NAMESPACE` or with the rbac.yaml that comes with devproxy
    ");
    let record =
        shop.kubectl(["get", "lease", "devproxy-cart", "-o", "jsonpath={.metadata.annotations}"]).await?;
    assert!(record.contains("swapped") && !record.contains("restoring"), "{record}");
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?.success()?;
    gone(&shop, &laptop, &before).await
}
