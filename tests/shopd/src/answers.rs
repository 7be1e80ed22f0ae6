//! What the paths answer. Words of a path may be percent-encoded.
//!
//! `/` name, version, host · `/version` · `/healthz` · `/env` `/env/NAME` · `/args` · `/whoami` ·
//! `/file/PATH` · `/files/PATH` · `/peer` `/local` `/host` `/headers` · `/resolve/NAME` · `/connect/HOST:PORT` ·
//! `/udp/HOST:PORT/TEXT` · `/get/HOST:PORT/PATH` · `/redis/COMMAND/ARG/…` · `/bytes/N` · `/slow/MS` · `/status/CODE` ·
//! POST `/echo`

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::settings::{Settings, host_name};
use crate::{client, redis};

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
    /// The client wants no further request on this connection.
    pub(crate) close: bool,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Never fails: what goes wrong is the answer, with status 502 or 404.
pub(crate) fn answer(request: &Request, settings: &Settings) -> Answer {
    let words: Vec<String> = request.target.trim_start_matches('/').split('/').map(decoded).collect();
    let rest = || words.get(1..).unwrap_or_default().join("/");
    let first = || words.get(1).cloned().unwrap_or_default();
    let number = || first().parse::<u64>().unwrap_or(0);
    match words.first().map_or("", String::as_str) {
        "" => text(format!("{} {} {}\n", settings.name, settings.version, host_name())),
        "version" => text(format!("{}\n", settings.version)),
        "healthz" => text("ok\n".into()),
        "env" if words.len() > 1 => match std::env::var(first()) {
            Ok(value) => text(value),
            Err(_) => Answer { status: 404, body: b"not set\n".to_vec() },
        },
        "env" => {
            let mut all: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
            all.sort();
            text(all.concat())
        }
        "args" => text(std::env::args().map(|word| word + "\n").collect()),
        "whoami" => text(whoami()),
        "file" => of(std::fs::read(Path::new("/").join(rest())), 404),
        "files" => of(listing(&Path::new("/").join(rest())).map(String::into_bytes), 404),
        "peer" => text(format!("{}\n", request.peer)),
        "local" => text(format!("{}\n", request.local)),
        "host" => text(format!("{}\n", host_name())),
        "headers" => text(request.headers.clone()),
        "resolve" => of(resolve(&first()).map(String::into_bytes), 502),
        "connect" => text(connect(&first())),
        "udp" => of(udp(&first(), &words.get(2..).unwrap_or_default().join("/")), 502),
        "get" => {
            let path = words.get(2..).unwrap_or_default().join("/");
            of(client::get(&first(), &format!("/{path}"), PATIENCE).map(|reply| reply.body), 502)
        }
        "redis" => of(redis::command(&settings.redis, words.get(1..).unwrap_or_default()), 502),
        "bytes" => {
            Answer { status: 200, body: vec![b'x'; usize::try_from(number()).unwrap_or(0).min(1 << 30)] }
        }
        "slow" => {
            std::thread::sleep(Duration::from_millis(number()));
            text("done\n".into())
        }
        "status" => Answer { status: u16::try_from(number()).unwrap_or(500), body: b"as asked\n".to_vec() },
        "echo" if request.method == "POST" => Answer { status: 200, body: request.body.clone() },
        _ => Answer { status: 404, body: b"no such path\n".to_vec() },
    }
}

fn text(body: String) -> Answer {
    Answer { status: 200, body: body.into_bytes() }
}

fn of(result: io::Result<Vec<u8>>, otherwise: u16) -> Answer {
    match result {
        Ok(body) => Answer { status: 200, body },
        Err(error) => Answer { status: otherwise, body: format!("{error}\n").into_bytes() },
    }
}

fn whoami() -> String {
    use nix::unistd::{getegid, geteuid};
    format!("uid={} gid={}\n", geteuid(), getegid())
}

fn listing(folder: &Path) -> io::Result<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.path().symlink_metadata()?;
        let link =
            std::fs::read_link(entry.path()).map_or(String::new(), |to| format!(" -> {}", to.display()));
        let name = entry.file_name().to_string_lossy().into_owned();
        lines.push(format!("{:o} {} {name}{link}\n", meta.permissions().mode(), meta.len()));
    }
    lines.sort();
    Ok(lines.concat())
}

fn resolve(name: &str) -> io::Result<String> {
    let mut addresses: Vec<_> =
        (name, 0).to_socket_addrs()?.map(|address| format!("{}\n", address.ip())).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses.concat())
}

/// `connected PEER from LOCAL`, or the error number and its name.
fn connect(target: &str) -> String {
    let addresses = match target.to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return format!("unresolved: {error}\n"),
    };
    let mut said = String::new();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                let local =
                    stream.local_addr().map_or_else(|error| error.to_string(), |local| local.to_string());
                return format!("connected {address} from {local}\n");
            }
            Err(error) => {
                let number = error
                    .raw_os_error()
                    .map_or("time".into(), |number| format!("{:?}", nix::errno::Errno::from_raw(number)));
                let _ = writeln!(said, "{address} {number} {error}");
            }
        }
    }
    said
}

fn udp(target: &str, message: &str) -> io::Result<Vec<u8>> {
    let address = target.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(address)?;
    socket.send(message.as_bytes())?;
    let mut reply = vec![0; 65536];
    let length = socket.recv(&mut reply)?;
    reply.truncate(length);
    Ok(reply)
}

fn decoded(word: &str) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let [byte, tail @ ..] = rest {
        let hex = (*byte == b'%').then(|| tail.get(..2)).flatten();
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        if let Some(value) = value {
            bytes.push(value);
            rest = &tail[2..];
        } else {
            bytes.push(*byte);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn percent_encoding_is_decoded_and_broken_encoding_is_left() {
        assert_eq!(decoded("a%2Fb%20c%"), "a/b c%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }
}
