//! Reaches a target for the program: through the tunnel, or from the laptop where a local route says so.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use devproxy_tunnel::{Datagrams, Flow, Open, Refusal, Tunnel, scratch};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

use crate::local::LocalRoutes;

/// As long as a kernel retransmits a SYN; a dial that waits for a new tunnel longer than that has no caller any more.
const WITHOUT_TUNNEL: Duration = Duration::from_secs(130);
/// A refusal as closed and the end of the tunnel itself may arrive in either order.
const CLOSING: Duration = Duration::from_secs(1);
/// Limit of a dial from the laptop, a little under the kernel's own for the program (127 s).
const FROM_LAPTOP: Duration = Duration::from_mins(2);

/// Opens flows in whichever tunnel the session has now.
#[derive(Clone)]
pub(crate) struct Dialler {
    tunnel: watch::Receiver<Tunnel>,
    pub(crate) routes: Arc<LocalRoutes>,
}

impl Dialler {
    pub(crate) fn new(tunnel: watch::Receiver<Tunnel>, routes: Arc<LocalRoutes>) -> Self {
        Self { tunnel, routes }
    }

    /// Connects to `target`. While the session has no tunnel it waits for the next one: the program's SYN is held
    /// that long, and its kernel decides when to give up. Cancel-safe.
    pub(crate) async fn tcp(mut self, target: SocketAddr) -> Result<Outlet, Refusal> {
        if self.routes.has_address(target.ip()) {
            return match timeout(FROM_LAPTOP, TcpStream::connect(target)).await {
                Ok(Ok(stream)) => {
                    // Small writes of interactive protocols must not wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    Ok(Outlet::Laptop(stream))
                }
                Ok(Err(error)) => Err(refusal(&error)),
                Err(_) => Err(Refusal::TimedOut),
            };
        }
        loop {
            let tunnel = self.tunnel.borrow_and_update().clone();
            match tunnel.open(Open::Tcp { target }).await {
                Ok(flow) => return Ok(Outlet::Tunnel(flow)),
                Err(Refusal::Closed) if timeout(CLOSING, tunnel.closed()).await.is_ok() => {
                    match timeout(WITHOUT_TUNNEL, self.tunnel.changed()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) | Err(_) => return Err(Refusal::TimedOut),
                    }
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// A datagram flow to `target`. Cancel-safe.
    pub(crate) async fn udp(&self, target: SocketAddr) -> Result<DatagramOutlet, Refusal> {
        if self.routes.has_address(target.ip()) {
            let any: IpAddr = match target {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await.map_err(|error| refusal(&error))?;
            socket.connect(target).await.map_err(|error| refusal(&error))?;
            return Ok(DatagramOutlet::Laptop(socket));
        }
        self.datagrams(Open::Udp { target }).await.map(DatagramOutlet::Tunnel)
    }

    /// Resolves once when the session has another tunnel than before; never while it has none. Cancel-safe.
    pub(crate) async fn next_tunnel(&mut self) {
        if self.tunnel.changed().await.is_err() {
            // The session is over, and with it whoever waits for this.
            std::future::pending::<()>().await;
        }
    }

    /// A datagram flow of the tunnel.
    pub(crate) async fn datagrams(&self, open: Open) -> Result<Datagrams, Refusal> {
        let tunnel = self.tunnel.borrow().clone();
        tunnel.open_datagrams(open).await
    }
}

/// What an error of the laptop's own kernel would have been in the pod.
fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Refusal::Refused,
        io::ErrorKind::HostUnreachable => Refusal::HostUnreachable,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => Refusal::NetworkUnreachable,
        io::ErrorKind::PermissionDenied => Refusal::Prohibited,
        io::ErrorKind::TimedOut => Refusal::TimedOut,
        _ => Refusal::Overloaded,
    }
}

/// The far end of a program's connection.
pub(crate) enum Outlet {
    Tunnel(Flow),
    Laptop(TcpStream),
}

/// The far end of a program's datagrams.
pub(crate) enum DatagramOutlet {
    Tunnel(Datagrams),
    Laptop(UdpSocket),
}

impl DatagramOutlet {
    /// Cancel-safe.
    pub(crate) async fn send(&self, datagram: Bytes) -> Result<(), Refusal> {
        match self {
            Self::Tunnel(flow) => flow.send(datagram).await,
            Self::Laptop(socket) => match socket.send(&datagram).await {
                Ok(_) => Ok(()),
                Err(error) => Err(refusal(&error)),
            },
        }
    }

    /// Cancel-safe.
    pub(crate) async fn recv(&self) -> Result<Bytes, Refusal> {
        match self {
            Self::Tunnel(flow) => flow.recv().await,
            Self::Laptop(socket) => receive(socket).await.map_err(|error| refusal(&error)),
        }
    }
}

/// The next datagram of a connected socket, read through the thread's buffer. Cancel-safe.
pub(crate) async fn receive(socket: &UdpSocket) -> io::Result<Bytes> {
    loop {
        socket.readable().await?;
        match scratch::with(|buffer| {
            socket.try_recv(buffer).map(|length| Bytes::copy_from_slice(&buffer[..length]))
        }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

/// The next datagram of a socket and its sender, read through the thread's buffer. Cancel-safe.
pub(crate) async fn receive_from(socket: &UdpSocket) -> io::Result<(Bytes, SocketAddr)> {
    loop {
        socket.readable().await?;
        let received = scratch::with(|buffer| {
            socket
                .try_recv_from(buffer)
                .map(|(length, from)| (Bytes::copy_from_slice(&buffer[..length]), from))
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}
