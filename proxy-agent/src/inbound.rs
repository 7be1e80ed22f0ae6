//! One connection that the pod accepted: held unread until the laptop answers, then copied; or spliced to the
//! restored original.

use std::{net::SocketAddr, time::Duration};

use devproxy_tunnel::{Open, Refusal};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, timeout},
};

use crate::{
    dial,
    listener::unmapped,
    relay::{self, Connection},
    route::{Route, Targets},
};

/// How long a connection may wait, in sum, while no laptop can answer it.
const HOLD: Duration = Duration::from_secs(30);

/// For one restored pod; then the next one is tried.
const SPLICE_CONNECT: Duration = Duration::from_secs(5);

/// Serves the connection to its end. `held` is its place among the connections without an answer, given back with
/// the answer.
pub(crate) async fn serve(
    connection: Connection,
    client: SocketAddr,
    mut route: watch::Receiver<Route>,
    held: OwnedSemaphorePermit,
) {
    let Ok(local) = connection.local_addr() else { return };
    let (client, local) = (unmapped(client), unmapped(local));
    let mut patience = HOLD;
    loop {
        let Route { tunnel, splice } = route.borrow_and_update().clone();
        if let Some(targets) = splice {
            drop(held);
            return splice_to(&targets, connection, local.port()).await;
        }
        if let Some(tunnel) = tunnel {
            tokio::select! {
                answer = tunnel.open(Open::Inbound { client, local }) => match answer {
                    Ok(flow) => {
                        drop(held);
                        return relay::relay(connection, flow).await;
                    }
                    // Nobody there to say no: the next tunnel, or the splice, will answer.
                    Err(Refusal::Closed) => {}
                    Err(_) => return,
                },
                changed = spliced(&mut route) => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = connection.reset() => return,
            }
        }
        let since = Instant::now();
        tokio::select! {
            changed = route.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(patience) => return,
            () = connection.reset() => return,
        }
        patience = patience.saturating_sub(since.elapsed());
    }
}

async fn spliced(route: &mut watch::Receiver<Route>) -> Result<(), watch::error::RecvError> {
    route.wait_for(|route| route.splice.is_some()).await.map(drop)
}

async fn splice_to(targets: &Targets, connection: Connection, port: u16) {
    for address in targets.turn() {
        tokio::select! {
            connected = timeout(SPLICE_CONNECT, dial::connect(SocketAddr::new(address, port))) => {
                if let Ok(Ok(stream)) = connected {
                    return relay::relay_connections(connection, Connection::new(stream)).await;
                }
            }
            () = connection.reset() => return,
        }
    }
}
