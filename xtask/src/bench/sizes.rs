//! How large the files are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::build::Programs;
use super::figures::Figures;

pub(crate) fn measure(programs: &Programs, figures: &mut Figures) -> Result<()> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let agent = programs.installed.join("agent").join(&target).join("agent");
    let files = [
        ("CLI", programs.devproxy.clone()),
        ("agent", agent.join("devproxy-agent")),
        ("packed agent", packed(&programs.installed.join(&target))?),
        ("loader", agent.join("devproxy-loader")),
    ];
    for (name, file) in files {
        let size = fs::metadata(&file).with_context(|| format!("no {}", file.display()))?.len();
        #[expect(clippy::cast_precision_loss, reason = "a file of some megabytes")]
        figures.put("size", "MB on disk", name, size as f64 / 1e6);
    }
    Ok(())
}

/// The newest of those that the release build has left.
fn packed(target: &Path) -> Result<PathBuf> {
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let builds = fs::read_dir(target.join("release/build"))?.flatten();
    builds
        .map(|build| build.path().join(format!("out/devproxy-agent-{architecture}.packed")))
        .filter_map(|file| Some((fs::metadata(&file).ok()?.modified().ok()?, file)))
        .max()
        .map(|(_, file)| file)
        .context("no packed agent in the release build")
}
