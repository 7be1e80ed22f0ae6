//! Two builds of the committed state, in two clones at two places and times, must be equal to the last byte.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use devproxy_tests::host::program::output;

use super::project::Project;

pub(super) fn run(project: &Project) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = sums(project, &folder.path().join("one"))?;
    let second = sums(project, &folder.path().join("another/and-deeper"))?;
    print!("{first}");
    if first != second {
        bail!("the second build differs:\n{second}");
    }
    println!("both builds are the same");
    Ok(())
}

fn sums(project: &Project, clone: &Path) -> Result<String> {
    output(Command::new("git").args(["clone", "--quiet"]).arg(project.root()).arg(clone))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(clone)
        .args(["xtask", "dist"])
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_MANIFEST_DIR")
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("cannot build in {}", clone.display());
    }
    Ok(std::fs::read_to_string(clone.join("target/dist/SHA256SUMS"))?)
}
