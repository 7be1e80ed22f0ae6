//! What a developer of devproxy runs: `cargo xtask cluster|test|gate|demo|bench|dist|ci`.

mod bench;
mod ci;
mod cluster;
mod demo;
mod dist;
mod gate;
mod set_up;
mod steps;
mod test;

use std::process::ExitCode;

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
    Cluster(cluster::Arguments),
    /// Show the main job for real: a shop in a cluster, one of its services swapped by a local process, restored
    Demo(demo::Arguments),
    /// Measure speed and size on a real cluster, beside what others reach there
    Bench(bench::Arguments),
    /// Count what the data path costs and hold it against the recorded figures
    Gate(gate::Arguments),
    /// Pass all tests: format, lints, unit tests, tests on a real cluster
    Test(test::Arguments),
    /// Make what users install: static tarballs and Debian packages for amd64 and arm64, in target/dist
    Dist(dist::Arguments),
    /// What the continuous integration runs: all tests, on a cluster of their own
    Ci,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().job {
        Job::Cluster(arguments) => cluster::run(&arguments),
        Job::Demo(arguments) => demo::run(arguments),
        Job::Bench(arguments) => bench::run(&arguments),
        Job::Gate(arguments) => gate::run(&arguments),
        Job::Test(arguments) => test::run(&arguments),
        Job::Dist(arguments) => dist::run(&arguments),
        Job::Ci => ci::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
