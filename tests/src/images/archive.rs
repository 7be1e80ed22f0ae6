//! The format that `docker save` writes and `ctr images import` reads: manifest.json, a configuration and one layer.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write};

use anyhow::Result;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::ingredients::Tree;

/// How the image starts.
#[derive(Debug)]
pub(super) struct Config {
    entrypoint: Vec<String>,
    /// `PATH` inside.
    pub(super) path: &'static str,
    /// Numeric, so that `runAsNonRoot` can be checked; empty for root.
    pub(super) user: String,
}

impl Config {
    pub(super) fn entrypoint(words: &[&str]) -> Self {
        Self {
            entrypoint: words.iter().map(|&word| word.to_owned()).collect(),
            path: "/usr/bin:/bin",
            user: String::new(),
        }
    }

    pub(super) fn json(&self, layer: &str) -> serde_json::Value {
        json!({
            "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                // IMAGE_ENV lets a test tell the image's environment from the pod's.
                "Env": [format!("PATH={}", self.path), "IMAGE_ENV=from-image"],
                "WorkingDir": "/",
                "User": self.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        })
    }
}

/// Writes the archive of `tree` under the name `reference`.
pub(super) fn write(file: &File, reference: &str, tree: &Tree, config: &Config) -> Result<()> {
    let mut layer = tempfile::tempfile()?;
    tree.write(&mut layer)?;
    layer.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let size = std::io::copy(&mut layer, &mut hash)?;
    let layer_digest = format!("{:x}", hash.finalize());
    layer.seek(SeekFrom::Start(0))?;

    let config = serde_json::to_vec(&config.json(&layer_digest))?;
    let config_name = format!("{:x}.json", Sha256::digest(&config));
    let layer_name = format!("{layer_digest}/layer.tar");
    let manifest = serde_json::to_vec(&json!([
        {"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}
    ]))?;

    let mut archive = tar::Builder::new(file);
    append(&mut archive, &config_name, config.len() as u64, config.as_slice())?;
    append(&mut archive, &layer_name, size, layer)?;
    append(&mut archive, "manifest.json", manifest.len() as u64, manifest.as_slice())?;
    archive.finish()?;
    Ok(())
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content)?;
    Ok(())
}
