//! `cargo xtask dist`: what users install. For each architecture a static program in a tarball and in a Debian package,
//! the same bytes whenever and wherever the same commit is built.

mod archive;
mod check;
mod compile;
mod contents;
mod licences;
mod package;
mod project;
mod texts;
mod tree;
mod trial;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use devproxy_tests::host::packages;
use sha2::{Digest as _, Sha256};

use self::project::Project;
use crate::set_up;

/// What to do beyond building.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this architecture
    #[arg(long, value_enum, value_name = "ARCHITECTURE")]
    only: Option<Architecture>,
    /// Build the committed state twice, in two clones, and compare every byte
    #[arg(long)]
    check: bool,
    /// Then install each in clean Debian roots, and swap a service there as an ordinary user
    #[arg(long = "try", conflicts_with_all = ["check", "only"])]
    trial: bool,
    /// Try what the last build left in target/dist
    #[arg(long, requires = "trial")]
    no_build: bool,
}

/// As Debian names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn rust_target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// That whose programs run here.
    fn own() -> Result<Self> {
        let runs = |each: &Self| each.rust_target().starts_with(std::env::consts::ARCH);
        Self::ALL
            .into_iter()
            .find(runs)
            .context("this machine's architecture is none of those that are built")
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let project = Project::here()?;
    if arguments.check {
        return check::run(&project);
    }
    if arguments.no_build {
        return trial::run(&project);
    }
    let start = Instant::now();
    set_up::toolchain()?;
    packages::require_dist()?;
    let wanted = arguments.only.map_or(Architecture::ALL.to_vec(), |only| vec![only]);
    let files = build(&project, &wanted)?;
    for file in &files {
        println!("{:>12} bytes  {}", fs::metadata(file)?.len(), file.display());
    }
    println!("built in {} s", start.elapsed().as_secs());
    if arguments.trial { trial::run(&project) } else { Ok(()) }
}

/// Where the program for this machine is once built.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(compile::Programs::built(&Project::here()?).of(Architecture::own()?))
}

/// Builds the program for this machine alone.
pub(crate) fn build_program() -> Result<()> {
    set_up::toolchain()?;
    packages::require_dist()?;
    compile::all(&Project::here()?, &[Architecture::own()?]).map(drop)
}

/// The artefacts and their checksums, in `target/dist`.
fn build(project: &Project, architectures: &[Architecture]) -> Result<Vec<PathBuf>> {
    // Also those of a machine that cannot run what it builds: pages and completions come from a program that runs.
    let mut compiled = architectures.to_vec();
    let own = Architecture::own()?;
    compiled.push(own);
    let programs = compile::all(project, &compiled)?;
    let texts = texts::of(&programs.of(own), project.time())?;
    let licences = licences::of_libraries(project)?;

    let mut sums = Vec::new();
    let mut written = Vec::new();
    fs::create_dir_all(project.dist())?;
    for &architecture in architectures {
        let program = fs::read(programs.of(architecture))?;
        let parts = contents::Parts { project, program: &program, texts: &texts, licences: &licences };
        let stem = format!("devproxy-{}-linux-{}", Project::VERSION, architecture.name());
        let tarball = archive::tar_gz(&contents::tarball(&parts)?, &format!("{stem}/"), project.time())?;
        let deb = package::deb(&contents::debian(&parts)?, architecture, project)?;
        for (name, content) in [(format!("{stem}.tar.gz"), tarball), (format!("{stem}.deb"), deb)] {
            writeln!(sums, "{:x}  {name}", Sha256::digest(&content))?;
            let file = project.dist().join(name);
            fs::write(&file, content)?;
            written.push(file);
        }
    }
    let file = project.dist().join("SHA256SUMS");
    fs::write(&file, sums)?;
    written.push(file);
    Ok(written)
}

/// A file of the project as bytes.
fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
