//! What a fresh machine lacks: targets of the pinned toolchain, Debian packages.

use std::process::Command;

use anyhow::{Result, bail};
use devproxy_tests::host::packages;
use devproxy_tests::host::program::is_installed;

/// All of it; does nothing where it is there.
pub(crate) fn all() -> Result<()> {
    devproxy_tests::host::require_root()?;
    toolchain()?;
    packages::require_node()?;
    packages::require_applications()?;
    packages::require_laptop()
}

/// Version, components and targets of Rust.
pub(crate) fn toolchain() -> Result<()> {
    if is_installed("rustup") {
        // Reads rust-toolchain.toml: version, components and the agent's targets. Does nothing when they are there.
        // The cargo that runs us names its toolchain in the environment, which would win over the file.
        let installed =
            Command::new("rustup").args(["toolchain", "install"]).env_remove("RUSTUP_TOOLCHAIN").output()?;
        if !installed.status.success() {
            bail!("`rustup toolchain install` failed: {}", String::from_utf8_lossy(&installed.stderr).trim());
        }
    }
    Ok(())
}
