//! HTTP/1.1 requests on connections that are kept, one at a time on each.

use std::io::{Error, Result};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::patiently;
use super::result::{Requests, Times};

const REQUEST: &[u8] = b"GET /item/17 HTTP/1.1\r\nHost: shop\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\r\n\
{\"item\":17,\"name\":\"the one thing of a shop\",\"stock\":4711,\"on\":1}";

/// As many requests as go in `time` on all `connections`.
pub async fn measure(connections: Vec<TcpStream>, time: Duration) -> Result<Requests> {
    let begin = Instant::now();
    let mut all = JoinSet::new();
    for mut connection in connections {
        all.spawn(async move {
            let (mut times, mut answer) = (Vec::new(), [0; ANSWER.len()]);
            while begin.elapsed() < time {
                let start = Instant::now();
                connection.write_all(REQUEST).await?;
                patiently(async { connection.read_exact(&mut answer).await.map(|_| ()) }).await?;
                if answer != ANSWER {
                    return Err(Error::other("another answer"));
                }
                times.push(start.elapsed());
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    for own in all.join_all().await {
        times.extend(own?);
    }
    let measured_ms = begin.elapsed().as_secs_f64() * 1e3;
    Ok(Requests { times: Times::of(times), measured_ms, ..Requests::default() })
}

/// The server's end of one connection.
pub async fn serve(mut connection: TcpStream) -> Result<()> {
    let (mut buffer, mut length) = ([0; 4096], 0);
    loop {
        let read = connection.read(&mut buffer[length..]).await?;
        if read == 0 {
            return Ok(());
        }
        length += read;
        if buffer[..length].ends_with(b"\r\n\r\n") {
            connection.write_all(ANSWER).await?;
            length = 0;
        } else if length == buffer.len() {
            return Err(Error::other("a request too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ANSWER;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 64);
    }
}
