//! What the program itself tells packagers: completions and man pages. They are the same for all architectures.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use devproxy_tests::host::program::output;

#[derive(Debug)]
pub(super) struct Texts {
    pub(super) bash: String,
    pub(super) zsh: String,
    pub(super) fish: String,
    /// File name and content.
    pub(super) pages: Vec<(String, Vec<u8>)>,
}

/// As of `time`, which the pages name.
pub(super) fn of(program: &Path, time: u64) -> Result<Texts> {
    let completions = |shell: &str| output(Command::new(program).args(["completions", shell]));
    let folder = tempfile::tempdir()?;
    let time = time.to_string();
    output(Command::new(program).arg("man").arg(folder.path()).env("SOURCE_DATE_EPOCH", time))?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        pages.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    ensure!(pages.iter().any(|(name, _)| name == "devproxy.1"), "`devproxy man` wrote no devproxy.1");
    Ok(Texts { bash: completions("bash")?, zsh: completions("zsh")?, fish: completions("fish")?, pages })
}
