//! The wire between laptop and API server, and all that can go wrong on it: delay, silence, reset, refusal.
//!
//! A relay of our own in place of netem, which some kernels lack. It runs on a thread of its own with its own
//! runtime, so that a test that blocks does not disturb it, and ends when it is dropped.

mod pipe;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::host::namespace::NetworkNamespace;

/// A TCP relay whose wire can be spoilt while it carries.
#[derive(Debug)]
pub struct Relay {
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

/// What the wire does at this moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// Added to each byte, one way.
    pub(crate) delay: Duration,
    /// No byte and no end of stream passes.
    stalled: bool,
    /// New connections are refused.
    refusing: bool,
    /// Counts the cuts: connections of an earlier count are reset.
    cuts: u64,
    /// The relay ends.
    over: bool,
}

/// What passed.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    open: AtomicUsize,
    accepted: AtomicUsize,
    pub(crate) to_server: AtomicU64,
    pub(crate) to_client: AtomicU64,
}

impl Relay {
    /// Listens on `listen` inside `namespace` and connects to `target` from the machine's own network.
    pub fn start(namespace: &NetworkNamespace, listen: SocketAddr, target: &str) -> Result<Self> {
        let (weather, seen) = watch::channel(Weather::default());
        let counts = Arc::new(Counts::default());
        let place = Place { namespace: namespace.clone(), listen, target: target.to_owned() };
        // Bound here, so that an address in use is this function's error.
        let listener = place.bind()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread_counts = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
            if let Err(error) = runtime.block_on(place.relay(listener, seen, thread_counts)) {
                eprintln!("relay: {error:#}");
            }
        })?;
        Ok(Self { weather, counts, thread: Some(thread) })
    }

    /// Adds `each_way` to every byte in both directions, from now on.
    pub fn delay(&self, each_way: Duration) {
        self.change(|weather| weather.delay = each_way);
    }

    /// A black hole: connections stay, nothing passes, until [`Relay::resume`].
    pub fn stall(&self) {
        self.change(|weather| weather.stalled = true);
    }

    /// Resets all connections; new ones are taken.
    pub fn cut(&self) {
        self.change(|weather| weather.cuts += 1);
    }

    /// Refuses new connections until [`Relay::resume`]; open ones stay.
    pub fn refuse(&self) {
        self.change(|weather| weather.refusing = true);
    }

    /// Good weather: what was held passes, new connections are taken, no delay.
    pub fn resume(&self) {
        self.change(|weather| {
            *weather = Weather { cuts: weather.cuts, ..Weather::default() };
        });
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Connections since the start.
    pub fn connections(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Bytes that passed: to the server, to the client.
    pub fn bytes(&self) -> (u64, u64) {
        (self.counts.to_server.load(Ordering::Relaxed), self.counts.to_client.load(Ordering::Relaxed))
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.change(|weather| weather.over = true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[derive(Debug)]
struct Place {
    namespace: NetworkNamespace,
    listen: SocketAddr,
    target: String,
}

impl Place {
    fn bind(&self) -> Result<TcpListener> {
        let listen = self.listen;
        let listener = self
            .namespace
            .enter(|| TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}")))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    async fn relay(
        self,
        listener: TcpListener,
        mut weather: watch::Receiver<Weather>,
        counts: Arc<Counts>,
    ) -> Result<()> {
        let mut listener = Some(AsyncListener::from_std(listener)?);
        let mut connections = JoinSet::new();
        loop {
            let now = weather.borrow_and_update().clone();
            if now.over {
                return Ok(());
            }
            match (&listener, now.refusing) {
                // Only a closed port answers a SYN with a reset.
                (Some(_), true) => listener = None,
                (None, false) => listener = Some(AsyncListener::from_std(self.bind()?)?),
                _ => {}
            }
            tokio::select! {
                changed = weather.changed() => if changed.is_err() { return Ok(()) },
                accepted = accept(listener.as_ref()) => {
                    let Ok((client, _)) = accepted else { continue };
                    let (target, weather, counts) = (self.target.clone(), weather.clone(), Arc::clone(&counts));
                    connections.spawn(connection(client, target, weather, counts));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn accept(listener: Option<&AsyncListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn connection(
    mut client: TcpStream,
    target: String,
    weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
) {
    counts.accepted.fetch_add(1, Ordering::Relaxed);
    counts.open.fetch_add(1, Ordering::Relaxed);
    let cuts = weather.borrow().cuts;
    let mut watched = weather.clone();
    let cut = watched.wait_for(|weather| weather.over || weather.cuts != cuts);
    let ended_well = tokio::select! {
        _ = cut => false,
        result = pipe::join(&mut client, &target, &weather, &counts) => result.is_ok(),
    };
    if !ended_well {
        // A socket closed with zero linger sends a reset instead of an end of stream. The server's side was dropped
        // with the pipe: what it hears does not matter to a test.
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }
    counts.open.fetch_sub(1, Ordering::Relaxed);
}

impl Weather {
    pub(crate) fn lets_pass(&self) -> bool {
        !self.stalled
    }
}
