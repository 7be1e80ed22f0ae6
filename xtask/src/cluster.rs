//! `cargo xtask cluster`: the node of the test bed, to look at and to work with.

use std::time::Instant;

use anyhow::Result;
use clap::Subcommand;
use devproxy_tests::images::Image;
use devproxy_tests::node::{KUBERNETES, Node, Place};

/// What to do with the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    job: Job,
    /// A second cluster beside the first, with the same ranges of pods and services
    #[arg(long, global = true)]
    second: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Job {
    /// Start it unless it runs, with all images
    Up,
    /// End it and remove every trace
    Down,
    /// Say what runs and how to reach it
    Status,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let place = if arguments.second { Place::Second } else { Place::First };
    match arguments.job {
        Job::Up => up(place),
        Job::Down => Node::down(place),
        Job::Status => status(place),
    }
}

fn up(place: Place) -> Result<()> {
    let start = Instant::now();
    let node = Node::up_at(place)?;
    println!("Kubernetes {KUBERNETES} is ready, CoreDNS answers ({:.1} s)", start.elapsed().as_secs_f64());
    for image in Image::ALL {
        node.import(image)?;
    }
    println!("images: {}", Image::ALL.map(Image::reference).join(" "));
    status(place)
}

fn status(place: Place) -> Result<()> {
    let Some(status) = Node::status(place)? else {
        println!("no cluster; `cargo xtask cluster up` starts one");
        return Ok(());
    };
    for (name, alive) in &status.components {
        println!("{:<24} {}", name, if *alive { "running" } else { "not running" });
    }
    println!("{:<24} {}", "cluster", if status.ready { "ready" } else { "not ready" });
    println!("export KUBECONFIG={}", status.kubeconfig.display());
    println!("export PATH={}:$PATH", status.programs.display());
    Ok(())
}
