//! `cargo xtask test`: everything that must pass, in the order in which it fails fastest.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use devproxy_tests::node::{Node, Place};

use crate::{gate, set_up};

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name holds this text; leaves out format, lints and the gate
    filter: Option<String>,
    /// Leave the cluster running at the end
    #[arg(long)]
    keep: bool,
}

impl Arguments {
    pub(crate) fn all() -> Self {
        Self { filter: None, keep: false }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    set_up::all()?;
    if arguments.filter.is_none() {
        cargo(&["fmt", "--all", "--check"])?;
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    }
    // The tests on the cluster run the `devproxy` that lies beside them.
    cargo(&["build", "--package", "devproxy"])?;
    if arguments.filter.is_none() {
        println!("$ cargo xtask gate");
        gate::run(&gate::Arguments::hold())?;
    }
    let was_running = Node::status(Place::First)?.is_some_and(|status| status.ready);
    let filter = arguments.filter.as_deref();
    let all = [&["test", "--workspace", "--no-fail-fast"][..], filter.as_slice()].concat();
    let result = cargo(&all);
    if !was_running && !arguments.keep {
        Node::down(Place::First)?;
    }
    result?;
    println!("all passed in {} s", start.elapsed().as_secs());
    Ok(())
}

/// How many tests of a program run at a time.
const THREADS: &str = "RUST_TEST_THREADS";

fn cargo(args: &[&str]) -> Result<()> {
    println!("$ cargo {}", args.join(" "));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    if std::env::var_os(THREADS).is_none() {
        // Tests on the cluster wait more than they work: twice as many at a time as there are processors.
        let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        command.env(THREADS, threads.to_string());
    }
    let status = command.args(args).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", args.join(" "));
    }
    Ok(())
}
