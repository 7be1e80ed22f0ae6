//! The workspace that is built: where it lies, its version, its time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use devproxy_tests::host::program::output;

#[derive(Debug)]
pub(super) struct Project {
    root: PathBuf,
    target: PathBuf,
    time: u64,
}

impl Project {
    /// The workspace's.
    pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

    pub(super) fn here() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no workspace")?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { root: root.to_owned(), target, time: time(root)? })
    }

    /// As of another time, without asking git.
    #[cfg(test)]
    pub(super) fn at_time(time: u64) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        Self { root: root.to_owned(), target: root.join("target"), time }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where artefacts go.
    pub(super) fn dist(&self) -> PathBuf {
        self.target.join("dist")
    }

    /// cargo's folder for them. Not the usual one: other flags would build everything anew on each change of the job.
    pub(super) fn build(&self) -> PathBuf {
        self.target.join("dist").join("build")
    }

    /// Of every file in the artefacts, in seconds since 1970: the commit's, so that it says something and does not
    /// change.
    pub(super) fn time(&self) -> u64 {
        self.time
    }
}

fn time(root: &Path) -> Result<u64> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given,
        Err(_) => output(Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]))
            .context("neither SOURCE_DATE_EPOCH nor a commit gives the time of the files")?,
    };
    seconds.trim().parse().context("SOURCE_DATE_EPOCH is no number of seconds")
}
