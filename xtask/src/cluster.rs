//! `cargo xtask cluster`: the node of the test bed, to look at and to work with.

use std::time::Instant;

use anyhow::Result;
use clap::Subcommand;
use devproxy_tests::images::Image;
use devproxy_tests::node::{KUBERNETES, Node};

/// What to do with the cluster.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Job {
    /// Start it unless it runs, with all images
    Up,
    /// End it and remove every trace
    Down,
    /// Say what runs and how to reach it
    Status,
}

pub(crate) fn run(job: &Job) -> Result<()> {
    match job {
        Job::Up => up(),
        Job::Down => Node::down(),
        Job::Status => status(),
    }
}

fn up() -> Result<()> {
    let start = Instant::now();
    let node = Node::up()?;
    println!("Kubernetes {KUBERNETES} is ready, CoreDNS answers ({:.1} s)", start.elapsed().as_secs_f64());
    for image in Image::ALL {
        node.import(image)?;
    }
    println!("images: {}", Image::ALL.map(Image::reference).join(" "));
    status()
}

fn status() -> Result<()> {
    let Some(status) = Node::status()? else {
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
