//! What is measured is the program that users install (`cargo xtask dist`), built before the first measurement and never
//! beside one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::dist;

/// The built programs.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The product.
    pub(crate) devproxy: PathBuf,
    /// The bare pump of its carrier.
    pub(crate) pump: PathBuf,
    /// Cargo's target folder for what users install.
    pub(crate) installed: PathBuf,
}

impl Programs {
    /// Where they are once built: in the target folder that this program comes from. `DEVPROXY_BIN` is another product.
    pub(crate) fn locate() -> Result<Self> {
        let own = std::env::current_exe()?;
        // target/debug/xtask
        let target = own.ancestors().nth(2).context("this program is not in a target folder")?.to_owned();
        let release = target.join("release");
        let program = dist::program()?;
        // …/TARGET/release/devproxy
        let installed = program.ancestors().nth(3).context("a program without a folder")?.to_owned();
        let devproxy = std::env::var_os("DEVPROXY_BIN").map_or(program, PathBuf::from);
        Ok(Self { devproxy, pump: release.join("devproxy-pump"), installed })
    }
}

/// Builds them.
pub(crate) fn release() -> Result<()> {
    dist::build_program()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(cargo).args(["build", "--quiet", "--release", "--package", "devproxy-pump"]).status()?;
    if !status.success() {
        bail!("cannot build the pump");
    }
    Ok(())
}
