//! What is measured is a release build, made before the first measurement and never beside one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The built programs.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The product.
    pub(crate) devproxy: PathBuf,
    /// The bare pump of its carrier.
    pub(crate) pump: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
}

impl Programs {
    /// Where they are once built: in the target folder that this program comes from. `DEVPROXY_BIN` is another product.
    pub(crate) fn locate() -> Result<Self> {
        let own = std::env::current_exe()?;
        // target/debug/xtask
        let target = own.ancestors().nth(2).context("this program is not in a target folder")?.to_owned();
        let release = target.join("release");
        let devproxy =
            std::env::var_os("DEVPROXY_BIN").map_or_else(|| release.join("devproxy"), PathBuf::from);
        Ok(Self { devproxy, pump: release.join("devproxy-pump"), target })
    }
}

/// Builds them.
pub(crate) fn release() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Both at once: alone, each would be built with other features of their common libraries.
    let packages = ["--package", "devproxy", "--package", "devproxy-pump"];
    let status = Command::new(cargo).args(["build", "--quiet", "--release"]).args(packages).status()?;
    if !status.success() {
        bail!("cannot build devproxy");
    }
    Ok(())
}
