//! The static program of the application images, built by a nested cargo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::host::program::output;
use crate::node::cache_folder;

/// The built `shopd` for the pods' architecture, static. It runs on the laptop as well.
pub fn build() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = BUILT.get() {
        return Ok(program.clone());
    }
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    // A target folder of its own: the one of the workspace may be locked by the cargo that runs us. One for each
    // checkout: the program of another one would be found where ours was built.
    let checkout = format!("{:x}", Sha256::digest(env!("CARGO_MANIFEST_DIR")));
    let folder = cache_folder()?.join("shopd").join(&checkout[..8]);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    output(
        Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--release", "--package", "shopd", "--target", &target])
            .arg("--target-dir")
            .arg(&folder)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))),
    )
    .context("cannot build shopd")?;
    let program = folder.join(target).join("release").join("shopd");
    Ok(BUILT.get_or_init(|| program).clone())
}
