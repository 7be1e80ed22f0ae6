//! The HTTP/1.1 server: a thread per connection, keep-alive, small bodies.

use std::io::{BufRead as _, BufReader, Read as _, Result, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};

use crate::answers::{Answer, Request};
use crate::drain::{Drain, InWork};
use crate::settings::{Settings, host_name};
use crate::{answers, echo};

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_mins(5);
/// Longest request body that is echoed, in bytes.
const LONGEST_BODY: u64 = 64 << 20;

/// Serves until SIGTERM and the end of the drain.
pub(crate) fn run() -> Result<()> {
    let settings = Arc::new(Settings::from_environment());
    let (drain, signals) = Drain::new();
    std::thread::sleep(settings.start_delay);
    if let Some(port) = settings.tcp_echo {
        echo::tcp(listen(port)?, settings.greeting.clone());
    }
    if let Some(port) = settings.udp_echo {
        echo::udp(port)?;
    }
    let listener = listen(settings.port)?;
    eprintln!("{} {} listens on {}", settings.name, settings.version, settings.port);
    let (accepting, shared) = (drain.clone(), Arc::clone(&settings));
    let stopped = listener.try_clone()?;
    let acceptor = std::thread::spawn(move || {
        // A listener that was shut down gives EINVAL.
        while let Ok((connection, _)) = listener.accept() {
            let (drain, settings) = (accepting.clone(), Arc::clone(&shared));
            let first = drain.in_work();
            let serving = std::thread::Builder::new().stack_size(256 << 10);
            // A machine without room for one more thread closes this connection, as a full server would.
            drop(serving.spawn(move || serve(&connection, first, &settings, &drain)));
        }
    });
    drain.wait(&signals, settings.drain, || {
        let _ = shutdown(stopped.as_raw_fd(), Shutdown::Both);
        let _ = acceptor.join();
    });
    Ok(())
}

/// Both families where the machine has them.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// As the client is known: an IPv4 client of a dual-stack socket is an IPv4 client.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn serve(connection: &TcpStream, first: InWork, settings: &Settings, drain: &Drain) -> Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let mut first = Some(first);
    while let Some(request) = read_request(&mut reader, connection)? {
        let _in_work = first.take().unwrap_or_else(|| drain.in_work());
        let answer = answers::answer(&request, settings);
        let close = request.close || drain.is_leaving();
        write_answer(connection, &answer, close, settings)?;
        if close {
            return finish(connection);
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>, connection: &TcpStream) -> Result<Option<Request>> {
    let mut first = String::new();
    if reader.by_ref().take(16 << 10).read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or("/"));
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        peer: plain(connection.peer_addr()?),
        local: plain(connection.local_addr()?),
        headers: String::new(),
        body: Vec::new(),
        close: first.contains("HTTP/1.0"),
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.by_ref().take(16 << 10).read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0).min(LONGEST_BODY);
        }
        if lower.starts_with("connection:") && lower.contains("close") {
            request.close = true;
        }
        if request.headers.len() < 64 << 10 {
            request.headers.push_str(&line);
        }
    }
    reader.by_ref().take(length).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

fn write_answer(mut connection: &TcpStream, answer: &Answer, close: bool, settings: &Settings) -> Result<()> {
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\nX-Version: {}\r\nX-Host: {}\r\nX-Pid: {}\r\n{}\r\n",
        answer.status,
        if answer.status == 200 { "OK" } else { "No" },
        answer.body.len(),
        settings.version,
        host_name(),
        std::process::id(),
        if close { "Connection: close\r\n" } else { "" },
    )
    .into_bytes();
    if answer.body.len() < 64 << 10 {
        // One segment, one system call.
        bytes.extend_from_slice(&answer.body);
        connection.write_all(&bytes)
    } else {
        connection.write_all(&bytes)?;
        connection.write_all(&answer.body)
    }
}

/// Closes in order: a close with unread bytes in the socket would send a reset, which may overtake the answer.
fn finish(mut connection: &TcpStream) -> Result<()> {
    connection.shutdown(std::net::Shutdown::Write)?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut rest = [0; 1024];
    while connection.read(&mut rest)? > 0 {}
    Ok(())
}
