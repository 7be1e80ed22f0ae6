//! The current tunnel and what the laptop asks for in it.
//!
//! Listeners and connections that wait for an answer belong to the pod, not to a tunnel: they outlive it and wait for
//! the next one.

use std::{sync::Arc, time::Duration};

use devproxy_tunnel::{Carrier, Flow, Incoming, Open, Refusal, Request, Role, Tunnel, TunnelId};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};

use crate::{control, datagram, dial, files, log, memory, ports::Ports, readiness::Readiness, route::Routes};

/// Flows that the laptop may have open at a time.
const FLOWS: usize = 32_768;

/// A UDP association ends after this long without a datagram, as in most NATs.
const UDP_IDLE: Duration = Duration::from_mins(1);

/// What the flows of a session share.
pub(crate) struct Pod {
    /// Dials to it on the loopback are refused: a tunnel in the tunnel.
    pub(crate) tunnel_port: u16,
    pub(crate) routes: Arc<Routes>,
    pub(crate) ports: Mutex<Ports>,
    pub(crate) readiness: Mutex<Readiness>,
    /// Becomes true with SIGTERM.
    pub(crate) terminating: watch::Receiver<bool>,
}

struct Current {
    id: TunnelId,
    tunnel: Tunnel,
    incoming: Incoming,
}

/// Serves tunnels one after the other until `carriers` is closed.
pub(crate) async fn serve(pod: Arc<Pod>, mut carriers: mpsc::Receiver<Carrier>) {
    let mut current: Option<Current> = None;
    let mut ended: Option<TunnelId> = None;
    let mut drivers = JoinSet::new();
    let mut attaching = JoinSet::new();
    let mut flows = JoinSet::new();
    loop {
        tokio::select! {
            carrier = carriers.recv() => {
                let Some(carrier) = carrier else { return };
                let id = carrier.id();
                match &current {
                    Some(current) if current.id == id => {
                        let tunnel = current.tunnel.clone();
                        attaching.spawn(async move { tunnel.attach(carrier).await });
                    }
                    // What it would resume is gone; the laptop starts a new tunnel.
                    None if ended == Some(id) => log::line(format_args!("a carrier came for an ended tunnel")),
                    _ => {
                        // Dropping the old driver resets the old tunnel's flows.
                        drivers.shutdown().await;
                        let (tunnel, incoming, driver) = Tunnel::with_limits(Role::Agent, carrier, memory::limits());
                        drivers.spawn(driver);
                        pod.routes.send_modify(|route| route.tunnel = Some(tunnel.clone()));
                        current = Some(Current { id, tunnel, incoming });
                        log::line(format_args!("tunnel up"));
                    }
                }
            }
            request = next(&mut current) => match request {
                Some(request) if flows.len() >= FLOWS => request.refuse(Refusal::Overloaded),
                Some(request) => {
                    flows.spawn(answer(pod.clone(), request));
                }
                None => {
                    ended = current.take().map(|current| current.id);
                    pod.routes.send_modify(|route| route.tunnel = None);
                }
            },
            Some(_) = flows.join_next() => {}
            Some(attached) = attaching.join_next() => if let Ok(Err(e)) = attached {
                log::line(format_args!("a further carrier was not attached: {e}"));
            },
            Some(driver) = drivers.join_next() => match driver {
                Ok(Ok(())) => log::line(format_args!("tunnel closed")),
                Ok(Err(e)) => log::line(format_args!("tunnel lost: {e}")),
                Err(_) => {}
            },
        }
    }
}

async fn next(current: &mut Option<Current>) -> Option<Request> {
    match current {
        Some(current) => current.incoming.next().await,
        None => std::future::pending().await,
    }
}

async fn answer(pod: Arc<Pod>, request: Request) {
    match request.open().clone() {
        Open::Tcp { target } => dial::serve(request, target, pod.tunnel_port).await,
        Open::Udp { target } | Open::Dns { server: target } => {
            datagram::serve(request, target, UDP_IDLE).await;
        }
        Open::Control => control::serve(&pod, request.accept()).await,
        Open::Files { roots } => files::serve(request.accept(), roots).await,
        Open::Probe => echo(request.accept()).await,
        Open::Inbound { .. } | Open::InboundUdp { .. } => request.refuse(Refusal::Unsupported),
    }
}

async fn echo(flow: Flow) {
    let (mut from, mut to) = tokio::io::split(flow);
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}
