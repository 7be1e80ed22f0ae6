//! `cargo xtask demo`: the main job for real. A shop of several services with redis and running traffic; one service
//! is swapped by a local process, edited, restarted, and put back.

mod shop;
mod swap;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use devproxy_tests::{Bed, Cluster};

use crate::set_up;
use crate::steps::Steps;

/// Where to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A context of your kubeconfig; without it the cluster of KUBECONFIG, or one made on this machine
    #[arg(long)]
    context: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    set_up::all()?;
    build_product()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(show(arguments))
}

async fn show(arguments: Arguments) -> Result<()> {
    let mut steps = Steps::new();
    let bed = steps
        .step("cluster", async {
            let bed = match arguments.context {
                Some(context) => Bed::on(Cluster::named(kubeconfig()?, Some(context))?).await?,
                None => Bed::get().await?,
            };
            let version = bed.cluster().kubectl().run(&["get", "--raw", "/version"])?;
            let version: serde_json::Value = serde_json::from_str(&version)?;
            let said = format!("Kubernetes {}", version["gitVersion"].as_str().unwrap_or("of no version"));
            Ok((bed, said))
        })
        .await?;
    let shop = shop::open(&mut steps, &bed).await?;
    swap::show(&mut steps, &bed, &shop).await?;
    steps.finish()
}

/// As kubectl finds it.
fn kubeconfig() -> Result<PathBuf> {
    std::env::var_os("KUBECONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config")))
        .context("no kubeconfig")
}

/// In the folder in which the laptop looks for it, beside this program; unless one is named.
fn build_product() -> Result<()> {
    if std::env::var_os("DEVPROXY_BIN").is_some() {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--quiet", "--package", "devproxy"]).status()?;
    if !status.success() {
        bail!("cannot build devproxy");
    }
    Ok(())
}
