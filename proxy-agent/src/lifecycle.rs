//! Start, signals and end of the process; the place where the parts are put together.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use devproxy_tunnel::control::Scope;
use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    carrier, listener, log,
    ports::{self, Ports},
    readiness::Readiness,
    route::{Route, Routes, Targets},
    session::{self, Pod},
    settings::Settings,
};

/// After SIGTERM clients may still arrive: it takes this long until every node's proxy has dropped the pod.
const LINGER: Duration = Duration::from_secs(5);

/// After SIGTERM connections in flight get this long; the stand-in's grace period is at least 30 s.
const DRAIN: Duration = Duration::from_secs(25);

/// For the last bytes of the tunnel.
const GOODBYE: Duration = Duration::from_secs(2);

/// How often a drain looks whether connections have ended.
const LOOK: Duration = Duration::from_millis(50);

/// The agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No runtime or no signal handlers.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
    /// Another process of the pod has the tunnel port.
    #[error("cannot listen on the tunnel port {port}: {source}")]
    TunnelPort {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// Runs the agent until SIGTERM or SIGINT and the end of its drain.
pub fn run(settings: Settings) -> Result<(), StartError> {
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let result = runtime.block_on(serve(settings));
    // A thread that reads a hanging volume must not hold the end up.
    runtime.shutdown_background();
    result
}

async fn serve(settings: Settings) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let port = settings.tunnel_port;
    let tunnel_listeners =
        tunnel_listeners(port).await.map_err(|source| StartError::TunnelPort { port, source })?;
    let (terminate, terminating) = watch::channel(false);
    let parts = Parts::start(settings, tunnel_listeners, terminating);
    log::line(format_args!("waiting for the laptop"));

    signals.end().await;
    terminate.send_replace(true);
    log::line(format_args!("draining"));
    tokio::select! {
        () = drained(&parts) => {}
        // A second signal means now.
        () = signals.end() => {}
    }
    parts.say_goodbye().await;
    Ok(())
}

/// The running agent. Dropping it ends all tasks and resets their connections.
pub(crate) struct Parts {
    /// The number of connections accepted in the pod that have not ended.
    pub(crate) active: watch::Receiver<usize>,
    /// Whether the pod has ever been ready.
    known: watch::Receiver<bool>,
    routes: Arc<Routes>,
    _tasks: JoinSet<()>,
}

impl Parts {
    pub(crate) fn start(
        settings: Settings,
        tunnel_listeners: Vec<TcpListener>,
        terminating: watch::Receiver<bool>,
    ) -> Self {
        let routes = Arc::new(Routes::new(Route::default()));
        let (ports, accepted) = Ports::new(routes.clone());
        let (active, count) = watch::channel(0);
        let (opened, known) = watch::channel(false);
        let (proved, carriers) = mpsc::channel(4);
        let pod = Pod {
            tunnel_port: settings.tunnel_port,
            routes: routes.clone(),
            ports: Mutex::new(ports),
            readiness: Mutex::new(Readiness::new(settings.ready_port, opened)),
            terminating,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(carrier::accept(tunnel_listeners, settings.key, proved));
        tasks.spawn(session::serve(Arc::new(pod), carriers));
        tasks.spawn(ports::serve(accepted, routes.clone(), active));
        Self { active: count, known, routes, _tasks: tasks }
    }

    /// At the pod's end no other laptop will come: what is held for one is reset now rather than when its time is over.
    fn give_up_without_laptop(&self) {
        self.routes.send_if_modified(|route| {
            let nobody = route.tunnel.is_none() && route.splice.is_none();
            if nobody {
                route.splice = Some(Arc::new(Targets::new(Vec::new())));
            }
            nobody
        });
    }

    /// Ends the tunnel in words: the laptop need not find out whether it is the network or the agent that has gone.
    async fn say_goodbye(&self) {
        let tunnel = self.routes.borrow().tunnel.clone();
        if let Some(tunnel) = tunnel {
            tunnel.close();
            let _ = tokio::time::timeout(GOODBYE, tunnel.closed()).await;
        }
    }
}

/// Loopback only: other pods must not reach it. The kubelet's port-forward dials `localhost` inside the pod, IPv4
/// or IPv6 as the pod has it.
async fn tunnel_listeners(port: u16) -> io::Result<Vec<TcpListener>> {
    match listener::tcp(Scope::Loopback, port, |_| ()) {
        // ::1 may be somebody else's; 127.0.0.1 is what counts.
        Err(_) => Ok(vec![TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?]),
        listeners => listeners,
    }
}

async fn drained(parts: &Parts) {
    let start = Instant::now();
    // To a pod that was never ready no Service led.
    if *parts.known.borrow() {
        sleep_until(start + LINGER).await;
    }
    while *parts.active.borrow() > 0 && start.elapsed() < DRAIN {
        parts.give_up_without_laptop();
        tokio::time::sleep(LOOK).await;
    }
}

/// As PID 1 of the container no signal has a default action, and orphans become our children.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    child: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Resolves with the next SIGTERM or SIGINT; reaps children meanwhile.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.child.recv() => reap(),
            }
        }
    }
}

fn reap() {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Each flow needs a descriptor; the soft limit of 1,024 is for programs that use `select`.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        log::line(format_args!("cannot raise the limit of open files: {e}"));
    }
}
