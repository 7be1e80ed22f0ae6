//! Datagrams: an echo, and questions to the name server.

use std::io::{Error, Result};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::SMALL;
use super::result::{Requests, Times};

/// A datagram that is not answered within this is lost.
const LOST: Duration = Duration::from_secs(2);

/// Round trips of a few bytes for `time`.
pub async fn echo(server: SocketAddr, time: Duration) -> Result<Requests> {
    ask(server, time, |number, question| {
        question.resize(SMALL, b'q');
        question[..2].copy_from_slice(&number.to_be_bytes());
    })
    .await
}

/// Questions for the address of `name` to the first name server of resolv.conf for `time`; each with a label of its
/// own before the name if `unique`.
pub async fn dns(name: &str, unique: bool, time: Duration) -> Result<Requests> {
    let server = name_server(&std::fs::read_to_string("/etc/resolv.conf")?)?;
    let run = std::process::id();
    ask(SocketAddr::new(server, 53), time, |number, message| {
        let name = if unique { format!("n{number}-{run}.{name}") } else { name.to_owned() };
        question(number, &name, message);
    })
    .await
}

/// Sends what `write` makes of a number and waits for an answer that begins with it. The first is not counted.
async fn ask(
    server: SocketAddr,
    time: Duration,
    mut write: impl FnMut(u16, &mut Vec<u8>),
) -> Result<Requests> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let (mut times, mut requests) = (Vec::new(), Requests::default());
    let (mut message, mut answer) = (Vec::new(), [0; 2048]);
    let mut begin = Instant::now();
    for number in 0..u16::MAX {
        message.clear();
        write(number, &mut message);
        let start = Instant::now();
        socket.send(&message).await?;
        let answered = timeout(LOST, async {
            loop {
                let length = socket.recv(&mut answer).await?;
                if answer[..length].starts_with(&number.to_be_bytes()) {
                    return Ok::<_, Error>(());
                }
            }
        });
        match answered.await {
            Ok(Ok(())) if number > 0 => times.push(start.elapsed()),
            Ok(Ok(())) => begin = Instant::now(),
            Ok(Err(error)) => *requests.failures.entry(error.to_string()).or_insert(0) += 1,
            Err(_) => *requests.failures.entry("lost".into()).or_insert(0) += 1,
        }
        if begin.elapsed() > time {
            break;
        }
    }
    requests.times = Times::of(times);
    requests.measured_ms = begin.elapsed().as_secs_f64() * 1e3;
    Ok(requests)
}

/// The server's end of the echo.
pub async fn serve(socket: UdpSocket) -> Result<()> {
    let mut datagram = vec![0; 65536];
    loop {
        let (length, peer) = socket.recv_from(&mut datagram).await?;
        // A client that is gone is not this server's trouble.
        let _ = socket.send_to(&datagram[..length], peer).await;
    }
}

fn name_server(resolv_conf: &str) -> Result<IpAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .find_map(|address| address.trim().parse().ok())
        .ok_or_else(|| Error::other("resolv.conf names no server"))
}

/// A question for an A record (RFC 1035, 4.1).
fn question(id: u16, name: &str, message: &mut Vec<u8>) {
    message.extend(id.to_be_bytes());
    // Recursion desired; one question, nothing else.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(u8::try_from(label.len()).unwrap_or(0));
        message.extend(label);
    }
    // The root, type A, class IN.
    message.extend([0, 0, 1, 0, 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_its_labels_with_their_lengths() {
        let mut message = Vec::new();
        question(0x1234, "shop.local.", &mut message);
        assert_eq!(message, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04shop\x05local\0\0\x01\0\x01");
    }

    #[test]
    fn the_first_name_server_is_asked() {
        let text = "search shop.svc\nnameserver 10.96.0.10\nnameserver 10.96.0.11\n";
        assert_eq!(name_server(text).unwrap().to_string(), "10.96.0.10");
        assert!(name_server("search x\n").is_err());
    }
}
