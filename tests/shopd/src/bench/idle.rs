//! Connections on which nothing happens once the server has greeted.

use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::patiently;
use super::result::Idle;

/// Opened at a time.
const AT_ONCE: usize = 64;

/// Opens `count` connections, all of which stay open until the second value is dropped.
pub async fn open(server: SocketAddr, count: usize) -> (Idle, Vec<TcpStream>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let slots = Arc::clone(&slots);
        opening.spawn(async move {
            let _slot = slots.acquire().await;
            patiently(greeted(server)).await
        });
    }
    let connections: Vec<_> = opening.join_all().await.into_iter().filter_map(Result::ok).collect();
    (Idle { open: connections.len(), failed: count - connections.len() }, connections)
}

async fn greeted(server: SocketAddr) -> Result<TcpStream> {
    let mut connection = TcpStream::connect(server).await?;
    match connection.read_u8().await? {
        b'h' => Ok(connection),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// The server's end of one connection.
pub async fn serve(mut connection: TcpStream) -> Result<()> {
    connection.write_all(b"h").await?;
    let mut rest = [0; 64];
    while connection.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The usual soft limit is 1,024.
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
