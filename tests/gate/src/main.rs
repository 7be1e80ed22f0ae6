//! The data path without namespaces and cluster, on one thread, so that its instructions can be counted:
//!
//! - `devproxy-gate tunnel bulk|flows|messages|datagrams COUNT`: both ends of a tunnel in memory
//! - `devproxy-gate laptop KEYFILE TUNNEL-PORT TARGET-PORT`: the laptop's side of an agent on this machine. Each
//!   connection to the port that it prints goes through the tunnel to the target.

mod laptop;
mod tunnel;

use std::{error::Error, process::ExitCode};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("devproxy-gate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match *arguments {
        ["tunnel", work, count] => runtime.block_on(tunnel::run(work, count.parse()?)),
        ["laptop", key, tunnel_port, target] => {
            runtime.block_on(laptop::run(&std::fs::read(key)?, tunnel_port.parse()?, target.parse()?))
        }
        _ => Err("this program is only started by `cargo xtask gate`".into()),
    }
}
