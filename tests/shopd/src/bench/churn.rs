//! Connections opened, used for one small request, and closed by the server.
//!
//! A client that knows how long an answer is closes when it has it. `kubectl port-forward` tells it of the server's end
//! a second late (containerd waits for the other direction), so waiting for that end is a measurement of its own.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::result::{Requests, Times};
use super::{SMALL, patiently};

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Open at a time.
    pub at_once: usize,
    /// Whether a connection counts only once its end has come, in order.
    pub ended: bool,
    /// It ends with so many, …
    pub count: u64,
    /// … or after so long, whichever comes first.
    pub time: Duration,
}

/// Opens connections to `servers` in turn.
pub async fn measure(servers: Vec<SocketAddr>, amount: Amount) -> Result<Requests> {
    let (begin, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..amount.at_once {
        let (servers, next) = (servers.clone(), Arc::clone(&next));
        workers.spawn(async move {
            let (mut times, mut failures) = (Vec::new(), BTreeMap::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= amount.count || begin.elapsed() >= amount.time {
                    return (times, failures);
                }
                let server = servers[usize::try_from(number).unwrap_or(0) % servers.len()];
                let start = Instant::now();
                match patiently(once(server, amount.ended)).await {
                    Ok(()) => times.push(start.elapsed()),
                    Err(error) => *failures.entry(error.to_string()).or_insert(0) += 1,
                }
            }
        });
    }
    let mut requests = Requests::default();
    let mut times = Vec::new();
    for (own, failures) in workers.join_all().await {
        times.extend(own);
        for (cause, count) in failures {
            *requests.failures.entry(cause).or_insert(0) += count;
        }
    }
    requests.times = Times::of(times);
    requests.measured_ms = begin.elapsed().as_secs_f64() * 1e3;
    Ok(requests)
}

async fn once(server: SocketAddr, ended: bool) -> Result<()> {
    let step = |name: &'static str| move |error: Error| Error::other(format!("{name}: {error}"));
    let mut connection = TcpStream::connect(server).await.map_err(step("connect"))?;
    connection.set_nodelay(true)?;
    connection.write_all(&[b'q'; SMALL]).await.map_err(step("write"))?;
    // One byte more than an answer has, to see the end of the stream.
    let (mut answer, mut length) = ([0; SMALL + 1], 0);
    loop {
        match connection.read(&mut answer[length..]).await.map_err(step("read"))? {
            0 if length == SMALL => return Ok(()),
            0 => return Err(Error::other(format!("closed after {length} bytes"))),
            more => length += more,
        }
        if length == SMALL && !ended {
            return Ok(());
        }
    }
}

/// The server's end of one connection.
pub async fn serve(mut connection: TcpStream) -> Result<()> {
    let mut request = [0; SMALL];
    connection.read_exact(&mut request).await?;
    connection.write_all(&[b'a'; SMALL]).await
}
