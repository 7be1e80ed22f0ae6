//! `shopd bench KIND HOST [--connections N] [--count N] [--millis N] [--name NAME]`: one measurement, its result as a
//! line of JSON on standard output.
//!
//! | kind | result |
//! |---|---|
//! | `bulk-down`, `bulk-up` | a [`Stream`](super::result::Stream) for each connection |
//! | `latency`, `latency-beside-down`, `latency-beside-up` | [`Beside`] |
//! | `connections`, `connections-ended`, `http1`, `http2`, `udp`, `dns-same`, `dns-new` | [`Requests`](super::result::Requests) |
//! | `idle` | [`Idle`](super::result::Idle) when all are open; they stay so until standard input ends |

use std::io::{Error, Read as _, Result, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::bulk::{self, Direction};
use super::churn::{self, Amount};
use super::result::Beside;
use super::server::event_loop;
use super::{
    BULK_PORT, CHURN_PORTS, ECHO_PORT, HTTP1_PORT, HTTP2_PORT, IDLE_PORT, UDP_PORT, datagram, http1, http2,
    idle, latency, patiently,
};

/// What the command line says.
#[derive(Debug)]
struct Wish {
    kind: String,
    host: String,
    connections: usize,
    count: u64,
    time: Duration,
    name: String,
}

/// Measures and prints.
pub fn run(words: &[String]) -> Result<()> {
    let wish = Wish::parse(words)?;
    idle::raise_descriptor_limit();
    let json = event_loop()?.block_on(wish.measure())?;
    writeln!(std::io::stdout(), "{json}")
}

impl Wish {
    fn parse(words: &[String]) -> Result<Self> {
        let [kind, host, flags @ ..] = words else {
            return Err(Error::other("usage: shopd bench KIND HOST [--connections N] [--millis N] …"));
        };
        let flag = |name: &str| flags.iter().position(|word| word == name).and_then(|at| flags.get(at + 1));
        let number = |name: &str, default: u64| match flag(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| Error::other(format!("{name} needs a number"))),
        };
        Ok(Self {
            kind: kind.clone(),
            host: host.clone(),
            connections: usize::try_from(number("--connections", 1)?).map_err(Error::other)?,
            count: number("--count", u64::MAX)?,
            time: Duration::from_millis(number("--millis", 1000)?),
            name: flag("--name").cloned().unwrap_or_default(),
        })
    }

    async fn measure(&self) -> Result<String> {
        match self.kind.as_str() {
            "bulk-down" => json(&self.bulk(Direction::Down).await?),
            "bulk-up" => json(&self.bulk(Direction::Up).await?),
            "latency" => json(&Beside { requests: self.latency().await?, bulk: None }),
            "latency-beside-down" => json(&self.beside(Direction::Down).await?),
            "latency-beside-up" => json(&self.beside(Direction::Up).await?),
            "connections" | "connections-ended" => {
                let server = self.address(0).await?;
                let servers = CHURN_PORTS.map(|port| SocketAddr::new(server.ip(), port)).collect();
                let ended = self.kind == "connections-ended";
                let amount = Amount { at_once: self.connections, ended, count: self.count, time: self.time };
                json(&churn::measure(servers, amount).await?)
            }
            "http1" => json(&http1::measure(self.connect(HTTP1_PORT).await?, self.time).await?),
            "http2" => json(&http2::measure(self.connect(HTTP2_PORT).await?, self.time).await?),
            "udp" => json(&datagram::echo(self.address(UDP_PORT).await?, self.time).await?),
            "dns-same" => json(&datagram::dns(&self.name, false, self.time).await?),
            "dns-new" => json(&datagram::dns(&self.name, true, self.time).await?),
            "idle" => {
                let (opened, connections) =
                    idle::open(self.address(IDLE_PORT).await?, self.connections).await;
                writeln!(std::io::stdout(), "{}", json(&opened)?)?;
                let mut input = Vec::new();
                // Blocks the event loop, which has nothing to do while they are idle.
                std::io::stdin().read_to_end(&mut input)?;
                drop(connections);
                Ok(String::new())
            }
            other => Err(Error::other(format!("no kind `{other}`"))),
        }
    }

    async fn bulk(&self, direction: Direction) -> Result<Vec<super::result::Stream>> {
        bulk::measure(self.connect(BULK_PORT).await?, direction, self.time).await
    }

    async fn latency(&self) -> Result<super::result::Requests> {
        let connection = self.connect(ECHO_PORT).await?.pop().ok_or_else(|| Error::other("no connection"))?;
        latency::measure(connection, self.time).await
    }

    /// The bulk runs on a thread of its own, begins first and ends last.
    async fn beside(&self, direction: Direction) -> Result<Beside> {
        let (bulk_server, time) = (self.address(BULK_PORT).await?, self.time + Duration::from_millis(500));
        let bulk = std::thread::spawn(move || {
            event_loop()?.block_on(async {
                let connection = connect(bulk_server).await?;
                bulk::measure(vec![connection], direction, time).await
            })
        });
        tokio::time::sleep(bulk::WARM_UP + Duration::from_millis(200)).await;
        let requests = self.latency().await?;
        let bulk = bulk.join().map_err(|_| Error::other("the bulk panicked"))??.pop();
        Ok(Beside { requests, bulk })
    }

    async fn address(&self, port: u16) -> Result<SocketAddr> {
        let mut addresses = patiently(lookup_host((self.host.as_str(), port))).await?;
        addresses.next().ok_or_else(|| Error::other(format!("{} has no address", self.host)))
    }

    async fn connect(&self, port: u16) -> Result<Vec<TcpStream>> {
        let server = self.address(port).await?;
        let mut connecting = JoinSet::new();
        for _ in 0..self.connections {
            connecting.spawn(connect(server));
        }
        connecting.join_all().await.into_iter().collect()
    }
}

async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let connection = patiently(TcpStream::connect(server)).await?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

fn json(result: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(result).map_err(Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> Result<Wish> {
        Wish::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_have_defaults_and_bad_numbers_are_refused() {
        let plain = wish("latency shop").unwrap();
        assert_eq!((plain.connections, plain.count, plain.time), (1, u64::MAX, Duration::from_secs(1)));
        let all = wish("connections shop --connections 8 --count 50000 --millis 250 --name x").unwrap();
        assert_eq!((all.connections, all.count, all.name.as_str()), (8, 50_000, "x"));
        assert!(wish("latency shop --millis soon").is_err());
        assert!(wish("latency").is_err());
    }
}
