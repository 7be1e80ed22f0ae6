//! What a developer of devproxy runs: `cargo xtask cluster|test|demo|ci`.

mod cluster;

use clap::{Parser, Subcommand};

/// Runs the project's own jobs
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// A real one-node Kubernetes cluster on this machine
    #[command(subcommand)]
    Cluster(cluster::Job),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().job {
        Job::Cluster(job) => cluster::run(&job),
    }
}
