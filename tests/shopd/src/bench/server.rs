//! `shopd bench-server`: every kind of load on a port of its own, each kind on a thread of its own, so that one does
//! not wait for another within this program.

use std::io::{Error, Result};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::signal::{SigSet, Signal};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::{
    BULK_PORT, CHURN_PORTS, ECHO_PORT, HTTP1_PORT, HTTP2_PORT, IDLE_PORT, UDP_PORT, bulk, churn, datagram,
    http1, http2, idle, latency,
};

const BACKLOG: u32 = 4096;

/// Serves until SIGTERM or SIGINT.
pub fn run() -> Result<()> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    // Before the threads, which inherit it. As process 1 of a pod there is no default action.
    ends.thread_block()?;
    idle::raise_descriptor_limit();
    on_own_thread(CHURN_PORTS, churn::serve)?;
    on_own_thread([BULK_PORT], bulk::serve)?;
    on_own_thread([ECHO_PORT], latency::serve)?;
    on_own_thread([HTTP1_PORT], http1::serve)?;
    on_own_thread([HTTP2_PORT], http2::serve)?;
    on_own_thread([IDLE_PORT], idle::serve)?;
    let runtime = event_loop()?;
    let socket = runtime.block_on(udp())?;
    std::thread::spawn(move || runtime.block_on(datagram::serve(socket)));
    println!("bench-server listens");
    ends.wait()?;
    Ok(())
}

/// One event loop on the thread that runs it.
pub(super) fn event_loop() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn on_own_thread<F>(ports: impl IntoIterator<Item = u16>, serve: fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = event_loop()?;
    // Here, so that a port in use ends the program.
    let listeners: Vec<_> =
        ports.into_iter().map(|port| runtime.block_on(listen(port))).collect::<Result<_>>()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut accepting = JoinSet::new();
            for listener in listeners {
                accepting.spawn(accept(listener, serve));
            }
            accepting.join_all().await
        })
    });
    Ok(())
}

/// Never ends. A connection that fails is its client's to count.
async fn accept<F>(listener: TcpListener, serve: fn(TcpStream) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((connection, _)) = accepted else { continue };
                let _ = connection.set_nodelay(true);
                open.spawn(serve(connection));
            }
            Some(_) = open.join_next() => {}
        }
    }
}

/// Both families where the machine has them.
#[expect(clippy::unused_async, reason = "listening needs the event loop that it runs in")]
async fn listen(port: u16) -> Result<TcpListener> {
    let (socket, any) = match TcpSocket::new_v6() {
        Ok(socket) => (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        Err(_) => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    };
    socket.set_reuseaddr(true)?;
    socket.bind(any).map_err(|error| Error::new(error.kind(), format!("port {port}: {error}")))?;
    socket.listen(BACKLOG)
}

async fn udp() -> Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, UDP_PORT)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, UDP_PORT)).await,
    }
}
