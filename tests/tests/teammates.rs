//! What teammates see who find a Deployment at 0.

use std::time::Duration;

use anyhow::{Result, ensure};
use devproxy_tests::{App, Bed, Laptop, Namespace, Run};
use nix::sys::signal::Signal;

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours: the original's pods start, the stand-in drains.
const RESTORE: Duration = Duration::from_mins(2);

/// All that a user needs, and nothing else.
const RIGHTS: &str = include_str!("../../deploy/rbac.yaml");

/// A namespace with `cart`, and a laptop with these rights.
async fn cart(bed: &Bed, purpose: &str, rights: &str) -> Result<(Namespace, Laptop)> {
    let shop = bed.namespace(purpose).await?;
    shop.deploy(App::shop("cart").drain(1)).await?;
    let laptop = bed.laptop().await?;
    laptop.login_with(&shop, rights).await?;
    Ok((shop, laptop))
}

async fn swapped(laptop: &Laptop) -> Result<Run> {
    let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.spawn()?;
    swap.wait_for("✓ handover", SWAP).await?;
    Ok(swap)
}

async fn end(mut swap: Run) -> Result<()> {
    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?;
    ensure!(exit.code() == 0, "{exit:?}");
    Ok(())
}

/// The columns of the line that `kubectl describe deployment cart` prints for a reason.
async fn described(shop: &Namespace, reason: &str) -> Result<Option<Vec<String>>> {
    let text = shop.kubectl(["describe", "deployment", "cart"]).await?;
    let line = text.lines().find(|line| line.contains(reason));
    let columns = |line: &str| {
        line.split("  ").map(str::trim).filter(|column| !column.is_empty()).map(str::to_owned).collect()
    };
    Ok(line.map(columns))
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_says_who_holds_it_and_how_to_get_it_back() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = cart(&bed, "teammates", RIGHTS).await?;
    shop.developer_token("view").await?;
    let before = shop.objects().await?;
    let swap = swapped(&laptop).await?;
    shop.until("the Event", SWAP, async || {
        described(&shop, "DevproxySwapped").await.is_ok_and(|columns| columns.is_some())
    })
    .await?;
    let columns = described(&shop, "DevproxySwapped").await?.unwrap_or_default();
    let [kind, reason, _age, from, message] = &columns[..] else { anyhow::bail!("{columns:?}") };
    assert_eq!([kind, reason], ["Normal", "DevproxySwapped"]);
    ensure!(from.starts_with("devproxy"), "{columns:?}");
    let back = format!(
        "; `devproxy restore {}/cart` puts it back, with --force also while they use it",
        shop.name()
    );
    ensure!(
        message.starts_with("swapped by ") && message.contains(" since 20") && message.ends_with(&back),
        "{message}"
    );
    // As `devproxy status` tells one who may only look.
    let viewer = format!("--as=system:serviceaccount:{}:developer-view", shop.name());
    let events =
        shop.kubectl(["get", "events", "--field-selector", "reason=DevproxySwapped", &viewer]).await?;
    ensure!(events.contains("deployment/cart") && events.contains(message), "{events}");
    assert_eq!(described(&shop, "DevproxyRestored").await?, None);

    end(swap).await?;
    let columns = described(&shop, "DevproxyRestored").await?.unwrap_or_default();
    ensure!(
        columns
            .last()
            .is_some_and(|message| message.starts_with("scaled back to 1 replicas by devproxy-laptop")),
        "{columns:?}"
    );
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_tell_them_the_session_goes_on() -> Result<()> {
    let bed = Bed::get().await?;
    let rights = RIGHTS.replace("verbs: [create, patch]", "verbs: [get]");
    ensure!(rights != RIGHTS, "deploy/rbac.yaml has no such line");
    let (shop, laptop) = cart(&bed, "silent", &rights).await?;
    let before = shop.objects().await?;
    end(swapped(&laptop).await?).await?;
    for reason in ["DevproxySwapped", "DevproxyRestored"] {
        assert_eq!(described(&shop, reason).await?, None);
    }
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)
}
