//! The arm64 program under qemu: what needs no user namespace, which qemu's translation of system calls cannot make.

use std::process::Command;

use anyhow::{Result, ensure};
use devproxy_tests::host::program::output;

use super::Project;
use crate::dist::{Architecture, compile::Programs};

pub(super) fn arm64_program_speaks(project: &Project) -> Result<()> {
    let programs = Programs::built(project);
    let folder = tempfile::tempdir()?;
    let stem = format!("devproxy-{}-linux-arm64", Project::VERSION);
    let tarball = project.dist().join(format!("{stem}.tar.gz"));
    output(Command::new("tar").arg("-C").arg(folder.path()).arg("-xzf").arg(tarball))?;
    let program = folder.path().join(stem).join("bin/devproxy");
    let ask = |word: &str| output(Command::new("qemu-aarch64-static").arg(&program).arg(word));
    let version = ask("--version")?;
    ensure!(version.trim() == format!("devproxy {}", Project::VERSION), "it says `{version}`");
    // The other architecture's texts are packed with it: they must be its own, too.
    let own = programs.of(Architecture::own()?);
    let help = output(Command::new(own).arg("--help"))?;
    ensure!(ask("--help")? == help, "its help is another than the one of this machine's program");
    println!("arm64 under qemu: --version and --help");
    Ok(())
}
