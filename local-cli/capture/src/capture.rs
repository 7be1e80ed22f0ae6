//! The one handle of the session and the future that drives all parts.

use std::{
    collections::{BTreeSet, HashSet},
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use devproxy_namespaces::{Catchers, Namespaces, Side, Sockets};
use devproxy_tunnel::{Refusal, Request, Tunnel, control::PodPort};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    counters::Counters,
    dial::Dialler,
    inbound::{Inbound, REQUESTS},
    listeners::{Diag, Listeners},
    local::LocalRoutes,
    outbound::{Outbound, TcpCatchers},
    pool::Pool,
    ports::PortRules,
    publish::Publisher,
    raw::Raw,
    udp::{Catcher, Shared, Udp},
};

/// How often the shell's listeners are looked at; 0.04 ms each time.
const LOOK: Duration = Duration::from_millis(100);
/// Notices kept for a slow reader.
const NOTICES: usize = 64;

/// What capture must know of the pod and of the user's wishes.
#[derive(Debug)]
pub struct CaptureSettings {
    /// The shell's addresses, as in `devproxy_namespaces::Spec`.
    pub addresses: Vec<IpAddr>,
    /// The nameservers of the pod's resolv.conf.
    pub nameservers: Vec<IpAddr>,
    /// Declared, mapped and published ports.
    pub ports: PortRules,
    /// How long an inbound connection waits for a listener. 30 s unless the user says otherwise.
    pub hold: Duration,
    /// What goes out through the laptop.
    pub local: LocalRoutes,
}

/// Something the user may want to know. `Display` is the line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A port of the program is reachable on the laptop.
    Published {
        /// On 127.0.0.1, and in the shell.
        port: u16,
    },
    /// It is not, once per port.
    NotPublished {
        /// On 127.0.0.1.
        port: u16,
        /// The laptop's kernel's words.
        cause: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published { port } => write!(f, "127.0.0.1:{port} on this machine reaches the program"),
            Self::NotPublished { port, cause } => {
                write!(
                    f,
                    "127.0.0.1:{port} on this machine does not reach the program yet: {cause}; tried again until it does"
                )
            }
        }
    }
}

/// Traffic between a session's namespaces and its tunnel. Cheap to clone.
#[derive(Clone)]
pub struct Capture {
    tunnel: Arc<watch::Sender<Tunnel>>,
    handover: Arc<watch::Sender<bool>>,
    listeners: watch::Receiver<Arc<Listeners>>,
    pod_ports: watch::Receiver<BTreeSet<PodPort>>,
    requests: mpsc::Sender<Request>,
    notices: broadcast::Sender<Notice>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Capture {
    /// Takes the sockets over. The future drives all of it and ends only when a catcher fails; dropping it resets
    /// every connection. Call it within a tokio runtime.
    pub fn start(
        settings: CaptureSettings,
        tunnel: Tunnel,
        namespaces: Arc<Namespaces>,
        sockets: Sockets,
    ) -> io::Result<(Self, impl Future<Output = io::Result<()>> + Send + 'static)> {
        let (tunnel, tunnels) = watch::channel(tunnel);
        let (handover, handed_over) = watch::channel(false);
        let (listening, listeners) = watch::channel(Arc::new(Listeners::default()));
        let (pod_opened, pod_ports) = watch::channel(BTreeSet::new());
        let (laptop_opened, laptop_ports) = watch::channel(BTreeSet::new());
        let (requests, requested) = mpsc::channel(REQUESTS);
        let notices = broadcast::channel(NOTICES).0;

        let counters = Arc::new(Counters::default());
        let addresses: BTreeSet<IpAddr> = settings.addresses.iter().copied().collect();
        let rules = Arc::new(settings.ports);
        let dialler = Dialler::new(tunnels, Arc::new(settings.local));
        let pool = Arc::new(Pool::new(namespaces));

        let Sockets { gateway, shell, diag, .. } = sockets;
        let diag = Arc::new(Diag::new(diag, inodes(&shell)?));
        let parts = |catchers: Catchers, own_ports| -> io::Result<(Outbound, Udp)> {
            let raw = Arc::new(Raw::new(catchers.raw4, catchers.raw6));
            let tcp = TcpCatchers { tcp4: catchers.tcp4, tcp6: catchers.tcp6, queue: catchers.queue };
            let outbound =
                Outbound::new(tcp, Arc::clone(&raw), dialler.clone(), Arc::clone(&counters), own_ports)?;
            let shared = Shared {
                side: catchers.side,
                raw,
                pool: Arc::clone(&pool),
                dialler: dialler.clone(),
                counters: Arc::clone(&counters),
                nameservers: settings.nameservers.clone(),
            };
            let catcher = |socket: Option<OwnedFd>| socket.map(Catcher::new).transpose();
            Ok((outbound, Udp::new(shared, catcher(catchers.udp4)?, catcher(catchers.udp6)?)))
        };
        let (gateway_tcp, gateway_udp) = parts(gateway, None)?;
        let (shell_tcp, shell_udp) = parts(shell, Some(pod_ports.clone()))?;

        let inbound = Inbound {
            addresses: addresses.clone(),
            rules: Arc::clone(&rules),
            hold: settings.hold,
            diag: Arc::clone(&diag),
            listeners: listeners.clone(),
            pool: Arc::clone(&pool),
            counters: Arc::clone(&counters),
        };
        let publisher = Publisher {
            addresses,
            listeners: listeners.clone(),
            pool: Arc::clone(&pool),
            counters: Arc::clone(&counters),
            notices: notices.clone(),
        };
        let table = Table { rules, listeners: listeners.clone(), handover: handed_over };
        let capture = Self {
            tunnel: Arc::new(tunnel),
            handover: Arc::new(handover),
            listeners,
            pod_ports,
            requests,
            notices,
            counters,
        };
        let driver = async move {
            let refill = async {
                pool.run().await;
                Ok(())
            };
            let served = async {
                tokio::join!(
                    inbound.run(requested),
                    publisher.run(laptop_ports),
                    table.run(pod_opened, laptop_opened)
                );
                // All handles are gone; the program's own connections go on.
                std::future::pending::<io::Result<()>>().await
            };
            tokio::try_join!(
                gateway_tcp.run(),
                gateway_udp.run(),
                shell_tcp.run(),
                shell_udp.run(),
                look(diag, listening),
                refill,
                served,
            )
            .map(|_| ())
        };
        Ok((capture, driver))
    }

    /// From now on flows are opened in this tunnel; what waited for one goes on.
    pub fn set_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.send_replace(tunnel);
    }

    /// Whether the stand-in has taken over: then the declared ports are open in the pod.
    pub fn set_handover(&self, handover: bool) {
        self.handover.send_replace(handover);
    }

    /// What listens in the shell, as of at most 100 ms ago.
    pub fn listeners(&self) -> watch::Receiver<Arc<Listeners>> {
        self.listeners.clone()
    }

    /// The ports that the agent shall listen on.
    pub fn pod_ports(&self) -> watch::Receiver<BTreeSet<PodPort>> {
        self.pod_ports.clone()
    }

    /// Serves an [`Open::Inbound`](devproxy_tunnel::Open::Inbound) or
    /// [`Open::InboundUdp`](devproxy_tunnel::Open::InboundUdp). Never waits; beyond 4,096 that wait it is refused.
    pub fn inbound(&self, request: Request) {
        match self.requests.try_send(request) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(request)) => request.refuse(Refusal::Overloaded),
            Err(mpsc::error::TrySendError::Closed(request)) => request.refuse(Refusal::Closed),
        }
    }

    /// Notices from now on; a slow reader loses the oldest.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// The traffic so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The inodes of our own listening sockets in the shell's namespace.
fn inodes(catchers: &Catchers) -> io::Result<HashSet<u32>> {
    debug_assert_eq!(catchers.side, Side::Shell, "only these are in the dumped namespace");
    [&catchers.tcp4, &catchers.tcp6, &catchers.udp4, &catchers.udp6]
        .into_iter()
        .flatten()
        .map(|socket| {
            let inode = nix::sys::stat::fstat(socket.as_fd())?.st_ino;
            // Socket inodes come from a 32-bit counter of the kernel.
            u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidData.into())
        })
        .collect()
}

/// Publishes what listens, at each change.
async fn look(diag: Arc<Diag>, listening: watch::Sender<Arc<Listeners>>) -> io::Result<()> {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match diag.listeners() {
            Ok(now) => {
                listening.send_if_modified(|last| {
                    let changed = **last != now;
                    if changed {
                        *last = Arc::new(now);
                    }
                    changed
                });
            }
            // EINTR and EBUSY pass; a namespace that has gone ends the session elsewhere.
            Err(error) => tracing::debug!(%error, "listeners could not be seen"),
        }
    }
}

/// Keeps the port table up to date.
struct Table {
    rules: Arc<PortRules>,
    listeners: watch::Receiver<Arc<Listeners>>,
    handover: watch::Receiver<bool>,
}

impl Table {
    async fn run(mut self, pod: watch::Sender<BTreeSet<PodPort>>, laptop: watch::Sender<BTreeSet<u16>>) {
        loop {
            let listeners = Arc::clone(&self.listeners.borrow_and_update());
            let handover = *self.handover.borrow_and_update();
            let open = self.rules.open(&listeners, handover);
            replace(&pod, open.pod);
            replace(&laptop, open.laptop);
            let changed = tokio::select! {
                changed = self.listeners.changed() => changed,
                changed = self.handover.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

fn replace<T: PartialEq>(to: &watch::Sender<T>, now: T) {
    to.send_if_modified(|last| {
        let changed = *last != now;
        if changed {
            *last = now;
        }
        changed
    });
}
