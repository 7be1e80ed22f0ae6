//! `devproxy-pump POD KIND [--connections N] [--millis N]`: the load of the bench through nothing but our carrier, one
//! port-forward WebSocket a connection, straight to `shopd bench-server` in the pod. No tunnel, no namespaces, no
//! sockets on the laptop's side: bytes are made in memory and thrown away. What the product's path can reach at most.
//!
//! Kinds are `bulk-down`, `bulk-up` and `latency`; the kubeconfig is the user's.

use std::error::Error;
use std::time::Duration;

use devproxy_cluster::{ApiSettings, Connection, Purpose, portforward};
use shopd::bench::bulk::{self, Direction};
use shopd::bench::result::Beside;
use shopd::bench::{BULK_PORT, ECHO_PORT, latency};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [pod, kind, flags @ ..] = words.as_slice() else {
        return Err("usage: devproxy-pump POD KIND [--connections N] [--millis N]".into());
    };
    let flag = |name: &str, default: u64| {
        let at = flags.iter().position(|word| word == name);
        at.map_or(Ok(default), |at| {
            flags.get(at + 1).ok_or("a flag without its number")?.parse().map_err(|_| "no number")
        })
    };
    let (connections, time) = (flag("--connections", 1)?, Duration::from_millis(flag("--millis", 1000)?));
    // As many threads as the session process has.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(pod, kind, connections, time))
}

async fn measure(pod: &str, kind: &str, connections: u64, time: Duration) -> Result<(), Box<dyn Error>> {
    let cluster = Connection::open(&ApiSettings::default()).await?;
    let json = if kind == "latency" {
        let carrier = portforward(&cluster, pod, ECHO_PORT, Purpose::Interactive).await?;
        serde_json::to_string(&Beside { requests: latency::measure(carrier, time).await?, bulk: None })?
    } else {
        let direction = match kind {
            "bulk-down" => Direction::Down,
            "bulk-up" => Direction::Up,
            other => return Err(format!("no kind `{other}`").into()),
        };
        let mut carriers = Vec::new();
        for _ in 0..connections {
            carriers.push(portforward(&cluster, pod, BULK_PORT, Purpose::Bulk).await?);
        }
        serde_json::to_string(&bulk::measure(carriers, direction, time).await?)?
    };
    println!("{json}");
    Ok(())
}
