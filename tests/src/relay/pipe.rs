//! Both directions of one connection. Each byte is stamped when it comes and leaves when its time has come, so that a
//! delay costs latency and not throughput.

use std::io::Result;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Counts, Weather};

/// Chunks on the wire in one direction: 16 MiB, more than any delay times bandwidth that tests use.
const ON_THE_WIRE: usize = 256;
const CHUNK: usize = 64 << 10;

/// Carries until both directions have ended, or one has failed.
pub(super) async fn join(
    client: &mut TcpStream,
    target: &str,
    weather: &watch::Receiver<Weather>,
    counts: &Counts,
) -> Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        carry(from_client, to_server, weather.clone(), &counts.to_server),
        carry(from_server, to_client, weather.clone(), &counts.to_client),
    )?;
    Ok(())
}

async fn carry(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    weather: watch::Receiver<Weather>,
    count: &AtomicU64,
) -> Result<()> {
    let (wire, arriving) = mpsc::channel(ON_THE_WIRE);
    tokio::try_join!(enter(from, wire, weather.clone()), leave(arriving, to, weather, count))?;
    Ok(())
}

/// An empty chunk is the end of the stream.
async fn enter(
    mut from: ReadHalf<'_>,
    wire: mpsc::Sender<(Instant, Vec<u8>)>,
    weather: watch::Receiver<Weather>,
) -> Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let length = from.read_buf(&mut chunk).await?;
        let due = Instant::now() + weather.borrow().delay;
        if wire.send((due, chunk)).await.is_err() || length == 0 {
            return Ok(());
        }
    }
}

async fn leave(
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    count: &AtomicU64,
) -> Result<()> {
    while let Some((due, chunk)) = arriving.recv().await {
        tokio::time::sleep_until(due).await;
        // An error means that the relay is gone, and this task with it.
        let _ = weather.wait_for(Weather::lets_pass).await;
        if chunk.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&chunk).await?;
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
