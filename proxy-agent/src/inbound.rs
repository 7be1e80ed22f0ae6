//! One connection that the pod accepted: held until the laptop answers, then copied; or spliced to the restored
//! original. What the client says first goes to the laptop ahead of its answer, and is read only after it: so it is
//! still there for whoever answers at last.

use std::{net::SocketAddr, time::Duration};

use devproxy_tunnel::{Flow, Open, Refusal, Tunnel};
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
    let open = Open::Inbound { client, local };
    let mut patience = HOLD;
    loop {
        let Route { tunnel, splice } = route.borrow_and_update().clone();
        if let Some(targets) = splice {
            drop(held);
            return splice_to(&targets, connection, local.port()).await;
        }
        if let Some(tunnel) = tunnel {
            tokio::select! {
                answer = ask(&tunnel, &connection, &open) => match answer {
                    Ok((flow, sent)) => {
                        drop(held);
                        connection.skip(sent).await;
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

/// Asks the laptop, and sends ahead what the client has said. Returns with the flow how many bytes those were; they are
/// still to be read.
async fn ask(tunnel: &Tunnel, connection: &Connection, open: &Open) -> Result<(Flow, usize), Refusal> {
    let opening = tunnel.begin(open)?;
    let mut sent = 0;
    tokio::select! {
        // An answer that is there already makes the rest ordinary bytes.
        biased;
        answer = opening.answer() => answer?,
        ahead = connection.peek(|bytes| opening.send_early(bytes)) => {
            sent = ahead;
            opening.answer().await?;
        }
    }
    Ok((opening.into_flow(), sent))
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
