//! The tunnel port: each connection that proves the session key becomes a carrier.

use std::sync::Arc;

use devproxy_tunnel::{Carrier, Role, SessionKey, TunnelId};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use crate::{listener, log};

/// Connections that have not proved the key yet. More wait in the kernel's queue; each is limited to 10 s.
const HANDSHAKES: usize = 16;

/// Accepts on all `listeners` for ever and sends each proved carrier to `proved`.
pub(crate) async fn accept(listeners: Vec<TcpListener>, key: SessionKey, proved: mpsc::Sender<Carrier>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut acceptors: JoinSet<()> = listeners
        .into_iter()
        .map(|listener| accept_on(listener, key.clone(), proved.clone(), places.clone()))
        .collect();
    while acceptors.join_next().await.is_some() {}
}

async fn accept_on(
    listener: TcpListener,
    key: SessionKey,
    proved: mpsc::Sender<Carrier>,
    places: Arc<Semaphore>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        // Closed only when the agent ends.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, _) = listener::accept(&listener).await;
        while handshakes.try_join_next().is_some() {}
        handshakes.spawn(handshake(stream, key.clone(), proved.clone(), place));
    }
}

async fn handshake(
    stream: TcpStream,
    key: SessionKey,
    proved: mpsc::Sender<Carrier>,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    // The laptop says which tunnel it belongs to.
    match Carrier::handshake(stream, Role::Agent, &key, TunnelId(0)).await {
        Ok(carrier) => {
            let _ = proved.send(carrier).await;
        }
        Err(e) => log::line(format_args!("a connection to the tunnel port did not prove the key: {e}")),
    }
}
