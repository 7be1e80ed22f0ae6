//! The third way to bring the agent: an image of its own, where nothing in the original's image may be executed.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use devproxy_tests::{App, Bed, Image};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_an_image_of_its_own_takes_a_deployments_place() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("image").await?;
    shop.deploy(App::shop("cart").drain(1)).await?;
    shop.client().await?;
    let cluster = Arc::clone(bed.cluster());
    tokio::task::spawn_blocking(move || cluster.provide(Image::Agent)).await??;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;

    let reference = Image::Agent.reference();
    let words = ["swap", "cart", "--agent-image", &reference, "--", "shopd"];
    let mut swap = laptop.devproxy(words)?.env("VERSION", "mine").spawn()?;
    swap.wait_for(&format!("(image {reference})"), LIMIT).await?;
    swap.wait_for("✓ handover", LIMIT).await?;
    let answer = shop.ask("http://cart:8080/").await?;
    assert!(answer.starts_with("cart mine cart-devproxy-"), "{answer}");
    let config_maps = shop.get(["configmaps", "--selector", "devproxy.dev/session"]).await?;
    assert_eq!(config_maps["items"], serde_json::json!([]), "no agent in a ConfigMap");
    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(LIMIT).await?;
    assert_eq!(exit.code(), 0, "{exit:?}");
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)
}
