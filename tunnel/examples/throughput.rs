//! Bulk throughput of a tunnel over loopback TCP, and the latency of a small ping-pong beside it.
//!
//! `cargo run --release -p devproxy-tunnel --example throughput [MiB] [bulk flows]`

use std::{
    error::Error,
    net::SocketAddr,
    time::{Duration, Instant},
};

use devproxy_tunnel::{Carrier, Flow, Open, Role, SessionKey, Tunnel, TunnelId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mebibytes: usize = arguments.next().map_or(Ok(2048), |text| text.parse())?;
    let flows: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;

    let key = SessionKey::from_bytes([1; SessionKey::LEN]);
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let (near, (far, _)) = tokio::try_join!(TcpStream::connect(listener.local_addr()?), listener.accept())?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near, far) = tokio::try_join!(
        Carrier::handshake(near, Role::Laptop, &key, TunnelId(1)),
        Carrier::handshake(far, Role::Agent, &key, TunnelId(1)),
    )?;
    let (laptop, _laptop_incoming, laptop_drive) = Tunnel::new(Role::Laptop, near);
    let (_agent, mut incoming, agent_drive) = Tunnel::new(Role::Agent, far);
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    tasks.spawn(async move { Ok(laptop_drive.await?) });
    tasks.spawn(async move { Ok(agent_drive.await?) });
    tasks.spawn(async move {
        let mut servers = JoinSet::new();
        while let Some(request) = incoming.next().await {
            let probe = *request.open() == Open::Probe;
            let flow = request.accept();
            servers.spawn(async move { if probe { echo(flow).await } else { source(flow).await } });
        }
        Ok(())
    });

    let (busy, mut running) = watch::channel(true);
    let mut probe = laptop.open(Open::Probe).await?;
    let idle = ping_pong(&mut probe, |count| count < 2000).await?;
    let mut beside = JoinSet::new();
    beside.spawn(async move { ping_pong(&mut probe, |_| *running.borrow_and_update()).await });

    let mut downloads = JoinSet::new();
    let each = (mebibytes << 20) / flows;
    let start = Instant::now();
    for _ in 0..flows {
        let mut flow = laptop.open(Open::Control).await?;
        downloads.spawn(async move {
            flow.write_u64_le(each as u64).await?;
            let mut buffer = vec![0; 64 << 10];
            let mut got = 0;
            while got < each {
                match flow.read(&mut buffer).await? {
                    0 => break,
                    read => got += read,
                }
            }
            Result::Ok(got)
        });
    }
    let mut total = 0;
    while let Some(got) = downloads.join_next().await {
        total += got??;
    }
    let seconds = start.elapsed().as_secs_f64();
    busy.send(false)?;
    let mebibytes = f64::from(u32::try_from(total >> 20)?);
    println!("bulk, {flows} flow(s): {:.0} MiB/s", mebibytes / seconds);
    report("ping-pong, idle", idle);
    if let Some(times) = beside.join_next().await {
        report("ping-pong beside bulk", times??);
    }
    println!("tunnel's own round trip: {:?}", laptop.round_trip());
    Ok(())
}

async fn echo(flow: Flow) -> Result<()> {
    let (mut read, mut write) = tokio::io::split(flow);
    tokio::io::copy(&mut read, &mut write).await?;
    Ok(())
}

async fn source(mut flow: Flow) -> Result<()> {
    let mut left = usize::try_from(flow.read_u64_le().await?)?;
    let buffer = vec![7; 64 << 10];
    while left > 0 {
        let piece = left.min(buffer.len());
        flow.write_all(&buffer[..piece]).await?;
        left -= piece;
    }
    flow.shutdown().await?;
    Ok(())
}

/// Times of 64-byte round trips until `more` says no.
async fn ping_pong(flow: &mut Flow, mut more: impl FnMut(usize) -> bool) -> Result<Vec<Duration>> {
    let mut message = [0; 64];
    let mut times = Vec::new();
    while more(times.len()) {
        let start = Instant::now();
        flow.write_all(&message).await?;
        flow.read_exact(&mut message).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    if let (Some(middle), Some(late)) = (times.get(times.len() / 2), times.get(times.len() * 99 / 100)) {
        println!("{what}: p50 {middle:?}, p99 {late:?} ({} round trips)", times.len());
    }
}
