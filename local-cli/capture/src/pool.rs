//! Sockets made inside the namespaces, kept ready so that a connection costs no round trip to the helper.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use devproxy_namespaces::{Family, Kind, Namespaces, Side};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::Notify,
};

/// Sockets asked for at once. One message carries at most 253 descriptors.
const BATCH: usize = 16;
/// Below this the shelf is filled up in the background.
const LOW: usize = 8;

pub(crate) struct Pool {
    namespaces: Arc<Namespaces>,
    shelves: Vec<Shelf>,
    low: Notify,
}

struct Shelf {
    side: Side,
    family: Family,
    kind: Kind,
    /// Set at first use: what is never used is not kept.
    used: AtomicBool,
    sockets: Mutex<VecDeque<OwnedFd>>,
    /// Held by who fetches more: as many as wait must not fetch for all others too.
    fetching: tokio::sync::Mutex<()>,
}

impl Shelf {
    fn sockets(&self) -> std::sync::MutexGuard<'_, VecDeque<OwnedFd>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Inbound TCP is expected from the start, all else is fetched when it is first used.
    pub(crate) fn new(namespaces: Arc<Namespaces>) -> Self {
        let mut shelves = Vec::new();
        for side in [Side::Gateway, Side::Shell] {
            for family in [Family::V4, Family::V6] {
                for kind in [Kind::Tcp, Kind::Udp] {
                    shelves.push(Shelf {
                        side,
                        family,
                        kind,
                        used: AtomicBool::new(side == Side::Gateway && kind == Kind::Tcp),
                        sockets: Mutex::default(),
                        fetching: tokio::sync::Mutex::default(),
                    });
                }
            }
        }
        let low = Notify::new();
        low.notify_one();
        Self { namespaces, shelves, low }
    }

    /// Keeps the shelves filled. Never ends.
    pub(crate) async fn run(&self) {
        loop {
            self.low.notified().await;
            for shelf in &self.shelves {
                if shelf.used.load(Ordering::Relaxed)
                    && let Err(error) = self.fetch(shelf, LOW).await
                {
                    tracing::debug!(%error, "no sockets from the namespaces");
                }
            }
        }
    }

    /// A TCP connection to `to` out of one of the namespaces, from `from` (any address, transparent) or, where the
    /// client's port is in use there, from another port of its address. Cancel-safe.
    pub(crate) async fn connect(
        &self,
        side: Side,
        from: Option<SocketAddr>,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        match self.connect_once(side, from, to).await {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
                    && from.is_some_and(|from| from.port() != 0) =>
            {
                let from = from.map(|from| SocketAddr::new(from.ip(), 0));
                self.connect_once(side, from, to).await
            }
            other => other,
        }
    }

    async fn connect_once(
        &self,
        side: Side,
        from: Option<SocketAddr>,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        let socket = self.take(side, to, Kind::Tcp).await?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        socket.set_nodelay(true)?;
        if let Some(from) = from {
            socket.bind(from)?;
        }
        socket.connect(to).await
    }

    /// A UDP socket in one of the namespaces that speaks as `from`, and to `to` only if that is given.
    pub(crate) async fn datagrams(
        &self,
        side: Side,
        from: SocketAddr,
        to: Option<SocketAddr>,
    ) -> io::Result<UdpSocket> {
        let socket = socket2::Socket::from(self.take(side, from, Kind::Udp).await?);
        socket.bind(&from.into())?;
        if let Some(to) = to {
            socket.connect(&to.into())?;
        }
        UdpSocket::from_std(socket.into())
    }

    async fn take(&self, side: Side, address: SocketAddr, kind: Kind) -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let Some(shelf) =
            self.shelves.iter().find(|shelf| (shelf.side, shelf.family, shelf.kind) == (side, family, kind))
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        shelf.used.store(true, Ordering::Relaxed);
        loop {
            let (socket, left) = {
                let mut sockets = shelf.sockets();
                (sockets.pop_front(), sockets.len())
            };
            if left < LOW {
                self.low.notify_one();
            }
            if let Some(socket) = socket {
                return Ok(socket);
            }
            self.fetch(shelf, 1).await.map_err(io::Error::other)?;
        }
    }

    /// Fetches a batch if there are fewer than so many, once nobody else does.
    async fn fetch(&self, shelf: &Shelf, few: usize) -> Result<(), devproxy_namespaces::NamespaceError> {
        let _turn = shelf.fetching.lock().await;
        if shelf.sockets().len() >= few {
            return Ok(());
        }
        let fresh = self.namespaces.sockets(shelf.side, shelf.family, shelf.kind, BATCH).await?;
        if fresh.is_empty() {
            return Err(devproxy_namespaces::NamespaceError::Gone);
        }
        shelf.sockets().extend(fresh);
        Ok(())
    }
}
