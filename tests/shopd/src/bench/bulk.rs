//! Bulk in one direction for a given time, counted by whoever receives it.
//!
//! A client says `d` (down) or `u` (up) and for how long. The first half second is not counted: windows grow in it.
//! There is no half-close in it, since port-forward has none: the receiver of an upload says when it is over by
//! sending its count back.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::patiently;
use super::result::Stream;

/// Not counted at the beginning.
pub const WARM_UP: Duration = Duration::from_millis(500);

const BUFFER: usize = 256 << 10;
const TENTH: Duration = Duration::from_millis(100);
/// How much longer a sender goes on than is counted.
const LONGER: Duration = Duration::from_millis(200);
/// How long what is on its way may take to arrive after the end.
const LEFTOVER: Duration = Duration::from_secs(5);

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the server.
    Down,
    /// To the server.
    Up,
}

/// Measures for `time` on all `connections` at once.
pub async fn measure<S>(connections: Vec<S>, direction: Direction, time: Duration) -> Result<Vec<Stream>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut all = JoinSet::new();
    for connection in connections {
        all.spawn(async move {
            match direction {
                Direction::Down => down(connection, time).await,
                Direction::Up => up(connection, time).await,
            }
        });
    }
    all.join_all().await.into_iter().collect()
}

async fn down(mut connection: impl AsyncRead + AsyncWrite + Unpin, time: Duration) -> Result<Stream> {
    ask(&mut connection, b'd', time).await?;
    let counted = count(&mut connection, time).await?;
    drain(&mut connection).await;
    Ok(counted)
}

async fn up(mut connection: impl AsyncRead + AsyncWrite + Unpin, time: Duration) -> Result<Stream> {
    ask(&mut connection, b'u', time).await?;
    let (reader, mut writer) = tokio::io::split(connection);
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    let bytes = vec![b'x'; BUFFER];
    let sending = async {
        loop {
            writer.write_all(&bytes).await?;
        }
    };
    let counted = timeout(time + WARM_UP + 2 * LEFTOVER, reader.read_line(&mut line));
    tokio::select! {
        sent = sending => {
            let sent: Result<()> = sent;
            return Err(sent.err().unwrap_or_else(|| ErrorKind::BrokenPipe.into()));
        }
        counted = counted => { counted.map_err(|_| Error::other("the server sent no count"))??; }
    }
    serde_json::from_str(&line).map_err(Error::other)
}

async fn ask(connection: &mut (impl AsyncWrite + Unpin), what: u8, time: Duration) -> Result<()> {
    let mut request = vec![what];
    request.extend(u32::try_from(time.as_millis()).map_err(Error::other)?.to_le_bytes());
    connection.write_all(&request).await?;
    connection.flush().await
}

/// The server's end of one connection.
pub async fn serve(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let what = connection.read_u8().await?;
    let time = Duration::from_millis(connection.read_u32_le().await?.into());
    if what == b'd' {
        let bytes = vec![b'x'; BUFFER];
        let end = Instant::now() + WARM_UP + time + LONGER;
        while Instant::now() < end {
            patiently(connection.write_all(&bytes)).await?;
        }
        connection.shutdown().await?;
    } else {
        let counted = count(&mut connection, time).await?;
        let mut line = serde_json::to_string(&counted).map_err(Error::other)?;
        line.push('\n');
        connection.write_all(line.as_bytes()).await?;
        connection.flush().await?;
    }
    drain(&mut connection).await;
    Ok(())
}

async fn count(connection: &mut (impl AsyncRead + Unpin), time: Duration) -> Result<Stream> {
    let mut buffer = vec![0; BUFFER];
    if patiently(connection.read(&mut buffer)).await? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut meter = Meter::new(Instant::now() + WARM_UP, time);
    // An elapsed timer is the end of the measured time, whether bytes came or not.
    while let Ok(read) = timeout_at(meter.end(), connection.read(&mut buffer)).await {
        let length = read?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        meter.count(Instant::now(), length as u64);
    }
    Ok(meter.finish())
}

/// Reads what is still on its way, so that the end is a FIN and not a reset.
async fn drain(connection: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; BUFFER];
    let end = Instant::now() + LEFTOVER;
    while timeout_at(end, connection.read(&mut buffer)).await.is_ok_and(|read| read.is_ok_and(|n| n > 0)) {}
}

/// Counts bytes within a span of time.
struct Meter {
    begin: Instant,
    time: Duration,
    last: Instant,
    stream: Stream,
    longest: Duration,
}

impl Meter {
    fn new(begin: Instant, time: Duration) -> Self {
        Self { begin, time, last: begin, stream: Stream::default(), longest: Duration::ZERO }
    }

    fn end(&self) -> Instant {
        self.begin + self.time
    }

    fn count(&mut self, now: Instant, bytes: u64) {
        if now < self.begin || now >= self.end() {
            return;
        }
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        self.stream.bytes += bytes;
        let tenth = usize::try_from((now - self.begin).as_millis() / TENTH.as_millis()).unwrap_or(usize::MAX);
        if self.stream.tenths.len() <= tenth {
            self.stream.tenths.resize(tenth + 1, 0);
        }
        self.stream.tenths[tenth] += bytes;
    }

    fn finish(mut self) -> Stream {
        self.longest = self.longest.max(self.end() - self.last);
        self.stream.measured_ms = self.time.as_secs_f64() * 1e3;
        self.stream.longest_gap_ms = self.longest.as_secs_f64() * 1e3;
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_outside_of_the_measured_time_do_not_count_and_gaps_reach_its_ends() {
        let begin = Instant::now() + Duration::from_secs(1);
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut meter = Meter::new(begin, Duration::from_secs(1));
        meter.count(begin.checked_sub(Duration::from_millis(1)).unwrap(), 7);
        meter.count(at(50), 1);
        meter.count(at(120), 2);
        meter.count(at(199), 3);
        meter.count(at(1000), 7);
        let stream = meter.finish();
        assert_eq!((stream.bytes, stream.tenths.as_slice()), (6, &[1, 5][..]));
        assert!((stream.longest_gap_ms - 801.0).abs() < 1e-6, "the silence until the end counts");
    }

    #[tokio::test]
    async fn both_directions_are_counted_by_their_receiver() {
        for direction in [Direction::Down, Direction::Up] {
            let (client, server) = tokio::io::duplex(1 << 20);
            let time = Duration::from_millis(100);
            let (streams, served) = tokio::join!(measure(vec![client], direction, time), serve(server));
            served.unwrap();
            let stream = &streams.unwrap()[0];
            assert!(stream.bytes > 0 && (stream.measured_ms - 100.0).abs() < 1e-6, "{stream:?}");
        }
    }
}
