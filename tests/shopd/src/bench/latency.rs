//! Round trips of a few bytes on one connection, one after the other.

use std::io::Result;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::result::{Requests, Times};
use super::{SMALL, patiently};

/// Not counted at the beginning.
const WARM_UP: usize = 20;

/// As many as go in `time`, at least one.
pub async fn measure(
    mut connection: impl AsyncRead + AsyncWrite + Unpin,
    time: Duration,
) -> Result<Requests> {
    let (request, mut answer) = ([b'q'; SMALL], [0; SMALL]);
    for _ in 0..WARM_UP {
        round_trip(&mut connection, &request, &mut answer).await?;
    }
    let (begin, mut times) = (Instant::now(), Vec::with_capacity(1 << 16));
    while begin.elapsed() < time || times.is_empty() {
        let start = Instant::now();
        round_trip(&mut connection, &request, &mut answer).await?;
        times.push(start.elapsed());
    }
    let measured_ms = begin.elapsed().as_secs_f64() * 1e3;
    Ok(Requests { times: Times::of_sequence(times), measured_ms, ..Requests::default() })
}

async fn round_trip(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    answer: &mut [u8],
) -> Result<()> {
    patiently(async {
        connection.write_all(request).await?;
        connection.flush().await?;
        connection.read_exact(answer).await.map(|_| ())
    })
    .await
}

/// The server's end of one connection: all that comes goes back.
pub async fn serve(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = connection.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..length]).await?;
    }
}
