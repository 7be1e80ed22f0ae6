//! `shopd load URL [--rate N] [--keep-alive N] [--count N] [--seconds N] [--control PORT]`: asks again and again.
//!
//! `--rate` requests per second go each on a connection of its own; `--keep-alive` adds so many workers that reuse
//! theirs, ten requests per second each. It ends after `--count` requests or `--seconds`, or when somebody asks
//! `http://127.0.0.1:CONTROL/finish`, which answers with the report; `/report` answers without ending. Counting begins
//! after a first answer. Each failure is a line on standard output with its time and cause.

mod report;

use std::io::{Error, Read as _, Result, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ask::split;
use crate::client::{self, Reply};
use report::Report;

/// Workers that share the rate, so that a request may take `WORKERS / rate` seconds before the rate sinks.
const WORKERS: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests of a worker that keeps its connection.
const KEEP_ALIVE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Load {
    host: String,
    path: String,
    address: SocketAddr,
    rate: u32,
    count: u64,
    end: Instant,
    sent: AtomicU64,
    finished: AtomicBool,
    report: Mutex<Report>,
}

/// Runs to its end and prints the report.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (url, flags) =
        words.split_first().ok_or_else(|| Error::other("usage: shopd load URL [--rate N] …"))?;
    let (host, path) = split(url)?;
    let flag = |name: &str, default: u64| -> Result<u64> {
        let Some(at) = flags.iter().position(|word| word == name) else { return Ok(default) };
        flags
            .get(at + 1)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| Error::other(format!("{name} needs a number")))
    };
    let keep_alive = flag("--keep-alive", 0)?;
    let control = TcpListener::bind((
        Ipv4Addr::LOCALHOST,
        u16::try_from(flag("--control", 7070)?).map_err(Error::other)?,
    ))?;
    let load = Arc::new(Load {
        address: resolve(&host)?,
        host,
        path,
        rate: u32::try_from(flag("--rate", 300)?).map_err(Error::other)?,
        count: flag("--count", 200_000)?,
        end: Instant::now() + Duration::from_secs(flag("--seconds", 600)?),
        sent: AtomicU64::new(0),
        finished: AtomicBool::new(false),
        report: Mutex::new(Report::new()),
    });

    load.wait_for_server()?;
    let mut workers = Vec::new();
    for index in 0..if load.rate == 0 { 0 } else { WORKERS } {
        let load = Arc::clone(&load);
        workers.push(std::thread::spawn(move || load.with_new_connections(index)));
    }
    for _ in 0..keep_alive {
        let load = Arc::clone(&load);
        workers.push(std::thread::spawn(move || load.with_one_connection()));
    }
    let controlled = Arc::clone(&load);
    let controller = std::thread::spawn(move || controlled.control(&control));
    for worker in workers {
        drop(worker.join());
    }
    let was_asked = load.finished.swap(true, Ordering::AcqRel);
    println!("{}", load.report());
    if !was_asked {
        // The report of a load that ended by itself can still be asked for.
        drop(controller.join());
    }
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

impl Load {
    /// Until the first answer: kube-proxy programs a new Service a second or two after it is made.
    fn wait_for_server(&self) -> Result<()> {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            match client::get(&self.host, &self.path, PATIENCE) {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Err(error) if Instant::now() > limit => return Err(error),
                _ if Instant::now() > limit => return Err(Error::other("the server gives no 200")),
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn with_new_connections(&self, index: u32) {
        let period = Duration::from_secs(1) * WORKERS / self.rate;
        let mut next = Instant::now() + period * index / WORKERS;
        while self.may_send_at(next) {
            let start = Instant::now();
            let connection = client::connect(self.address, PATIENCE);
            let result = connection.and_then(|connection| {
                client::ask(&connection, &self.host, &self.path, true).map_err(|failure| failure.error)
            });
            self.record(start, result);
            // A slow answer delays the next request but makes no burst of those missed.
            next = (next + period).max(Instant::now());
        }
    }

    fn with_one_connection(&self) {
        let mut connection: Option<TcpStream> = None;
        let mut next = Instant::now();
        while self.may_send_at(next) {
            let start = Instant::now();
            let result = self.ask_again(&mut connection);
            if result.as_ref().map_or(true, |reply| reply.close) {
                connection = None;
            }
            self.record(start, result);
            next = Instant::now() + KEEP_ALIVE_PAUSE;
        }
    }

    /// As HTTP clients do: a reused connection that the server closed before any answer is replaced, once.
    fn ask_again(&self, connection: &mut Option<TcpStream>) -> Result<Reply> {
        if let Some(reused) = connection.take() {
            match client::ask(&reused, &self.host, &self.path, false) {
                Ok(reply) => {
                    *connection = Some(reused);
                    return Ok(reply);
                }
                Err(failure)
                    if failure.unanswered && failure.error.kind() != std::io::ErrorKind::WouldBlock =>
                {
                    self.locked().reopened += 1;
                }
                Err(failure) => return Err(failure.error),
            }
        }
        let fresh = client::connect(self.address, PATIENCE)?;
        let reply = client::ask(&fresh, &self.host, &self.path, false).map_err(|failure| failure.error)?;
        *connection = Some(fresh);
        Ok(reply)
    }

    fn may_send_at(&self, next: Instant) -> bool {
        while Instant::now() < next {
            if self.finished.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep((next - Instant::now().min(next)).min(Duration::from_millis(50)));
        }
        !self.finished.load(Ordering::Acquire)
            && next < self.end
            && self.sent.fetch_add(1, Ordering::AcqRel) < self.count
    }

    fn record(&self, start: Instant, result: Result<Reply>) {
        let took = start.elapsed();
        match result {
            Ok(reply) if reply.status == 200 => self.locked().success(took, &reply.version),
            Ok(reply) => {
                self.locked().failure(took, &format!("status {} of {}", reply.status, reply.version));
            }
            Err(error) => self.locked().failure(took, &error.to_string()),
        }
    }

    /// Answers `/report` and `/finish`, the latter once all requests have come back.
    fn control(&self, listener: &TcpListener) {
        for mut connection in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let length = connection.read(&mut request).unwrap_or(0);
            let finish = request[..length].starts_with(b"GET /finish");
            if finish {
                self.finished.store(true, Ordering::Release);
                let limit = Instant::now() + PATIENCE * 2;
                while self.locked().answered() < self.sent.load(Ordering::Acquire).min(self.count)
                    && Instant::now() < limit
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let body = self.report();
            let _ = write!(
                connection,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            if finish {
                return;
            }
        }
    }

    fn report(&self) -> String {
        self.locked().json()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name may be younger than the DNS cache: some patience.
fn resolve(host: &str) -> Result<SocketAddr> {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        match host.to_socket_addrs().map(|mut addresses| addresses.next()) {
            Ok(Some(address)) => return Ok(address),
            _ if Instant::now() < limit => std::thread::sleep(Duration::from_millis(500)),
            Ok(None) => return Err(Error::other(format!("{host} has no address"))),
            Err(error) => return Err(error),
        }
    }
}
