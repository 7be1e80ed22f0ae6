//! A small HTTP/1.1 client: one request at a time, errors that say in which step they came.

use std::io::{BufRead as _, BufReader, Error, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Of the `X-Version` header.
    pub(crate) version: String,
    /// The server closes the connection.
    pub(crate) close: bool,
    pub(crate) body: Vec<u8>,
}

/// Longest answer that is taken, in bytes.
const LONGEST_BODY: u64 = 1 << 30;

/// One request on a connection of its own.
pub(crate) fn get(host: &str, path: &str, patience: Duration) -> Result<Reply> {
    let addresses = host.to_socket_addrs().map_err(|error| step("resolve", &error))?;
    let mut last = Error::other(format!("{host} has no address"));
    for address in addresses {
        match connect(address, patience) {
            Ok(connection) => return ask(&connection, host, path, true).map_err(|failure| failure.error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Not a byte of the answer had come: on a reused connection a client may ask again.
    pub(crate) unanswered: bool,
}

pub(crate) fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let connection =
        TcpStream::connect_timeout(&address, patience).map_err(|error| step("connect", &error))?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(patience))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// One request on an open connection.
pub(crate) fn ask(
    mut connection: &TcpStream,
    host: &str,
    path: &str,
    close: bool,
) -> std::result::Result<Reply, Failure> {
    let closing = if close { "Connection: close\r\n" } else { "" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{closing}\r\n");
    let unanswered = |name: &str, error: &Error| Failure { error: step(name, error), unanswered: true };
    connection.write_all(request.as_bytes()).map_err(|error| unanswered("write", &error))?;

    let mut reader = BufReader::new(connection);
    let mut first = String::new();
    match reader.read_line(&mut first) {
        Ok(0) => return Err(unanswered("read", &Error::other("closed without an answer"))),
        Ok(_) => {}
        Err(error) => return Err(unanswered("read", &error)),
    }
    let cut = |error: Error| Failure { error: step("read", &error), unanswered: false };
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let mut reply = Reply {
        status: status.ok_or_else(|| cut(Error::other(format!("no status in {first:?}"))))?,
        version: String::new(),
        close,
        body: Vec::new(),
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(cut)? == 0 {
            return Err(cut(Error::other("closed within the headers")));
        }
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "connection" if value.trim().eq_ignore_ascii_case("close") => reply.close = true,
            "x-version" => value.trim().clone_into(&mut reply.version),
            _ => {}
        }
    }
    reader.take(length.min(LONGEST_BODY)).read_to_end(&mut reply.body).map_err(cut)?;
    if reply.body.len() as u64 != length {
        return Err(cut(Error::other(format!("{} of {length} bytes, then closed", reply.body.len()))));
    }
    Ok(reply)
}

fn step(name: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{name}: {error}"))
}
