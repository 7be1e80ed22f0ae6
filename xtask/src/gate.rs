//! `cargo xtask gate`: what the data path costs, in instructions and system calls rather than in time, held against the
//! figures in `tests/gate/figures.json`. Counts are the same on a busy machine, so noise cannot trip it.

mod counted;
mod figures;
mod loopback;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use devproxy_tests::host::packages;

use self::counted::Counts;
use self::figures::Figures;

/// The target that the agent is built for in any case. musl copies memory in one way on every processor; glibc chooses
/// by the processor's features, and the figures would hold on one machine only.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Work of the tunnel alone: name, unit, what it is done for, how often.
const TUNNEL: [(&str, &str, u32); 4] = [
    ("bulk", "MiB", 32),
    ("flows", "flow", 1000),
    ("messages", "round trip", 2000),
    ("datagrams", "round trip", 2000),
];

/// What to do with the counts.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keep what is counted now as the figures to hold later counts against
    #[arg(long)]
    record: bool,
}

impl Arguments {
    pub(crate) fn hold() -> Self {
        Self { record: false }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    devproxy_tests::host::require_root()?;
    packages::require_gate()?;
    let Built { gate, agent } = build()?;
    let mut figures = Figures::default();
    for (work, unit, count) in TUNNEL {
        let some = counted::run(&gate, &["tunnel", work, "1"])?;
        let more = counted::run(&gate, &["tunnel", work, &(1 + count).to_string()])?;
        // Without a kernel, there are system calls only for the clock.
        let Counts { instructions, .. } = more.less(some);
        figures.set(&format!("tunnel, {work}: instructions per {unit}"), instructions / f64::from(count));
    }
    loopback::count(&agent, &gate, &mut figures)?;

    let file = workspace().join("tests/gate/figures.json");
    if arguments.record {
        figures.write(&file)?;
        print!("{figures}");
        println!("recorded in {}; review the difference and commit it with its cause", file.display());
        return Ok(());
    }
    let recorded = Figures::read(&file)?;
    figures.hold_against(&recorded)
}

struct Built {
    gate: PathBuf,
    agent: PathBuf,
}

/// The same agent as the product's: same profile, same folder, so it is built once.
fn build() -> Result<Built> {
    let target = target_folder()?;
    let agents = target.join("agent");
    cargo(&["build", "--quiet", "--locked", "--release", "--package", "devproxy-gate", "--target", TARGET])?;
    let mut build =
        vec!["build", "--quiet", "--locked", "--profile", "agent", "--package", "devproxy-agent", "--bins"];
    let folder = agents.to_str().context("the target folder's name is no text")?;
    build.extend(["--target-dir", folder, "--target", TARGET]);
    cargo(&build)?;
    Ok(Built {
        gate: target.join(TARGET).join("release/devproxy-gate"),
        agent: agents.join(TARGET).join("agent/devproxy-agent"),
    })
}

/// Where this program lies: TARGET/debug/xtask.
fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors().nth(2).map(Path::to_owned).context("not below a target folder")
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn cargo(args: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(workspace()).args(args);
    // Whatever else a build is made with, the figures are without.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(name);
    }
    devproxy_tests::host::program::output(&mut command).map(drop)
}
