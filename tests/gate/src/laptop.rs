//! What the session process does with a connection once its packets are caught: a flow, and a splice.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use devproxy_capture::{Counters, gate::carry};
use devproxy_tunnel::{Carrier, Open, Role, SessionKey, Tunnel, TunnelId};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::Result;

pub(crate) async fn run(key: &[u8], tunnel_port: u16, target: u16) -> Result<()> {
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(local(tunnel_port)).await?;
    stream.set_nodelay(true)?;
    let key = SessionKey::from_slice(key).ok_or("no session key")?;
    let carrier = Carrier::handshake(stream, Role::Laptop, &key, TunnelId(1)).await?;
    let (tunnel, _incoming, driver) = Tunnel::new(Role::Laptop, carrier);
    let mut connections = JoinSet::new();
    connections.spawn(async move { Ok(driver.await?) });

    let listener = TcpListener::bind(local(0)).await?;
    println!("listening {}", listener.local_addr()?.port());
    let counters = Arc::new(Counters::default());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let (tunnel, counters) = (tunnel.clone(), Arc::clone(&counters));
                connections.spawn(async move {
                    let flow = tunnel.open(Open::Tcp { target: local(target) }).await?;
                    Ok(carry(stream, flow, &counters).await?)
                });
            }
            Some(ended) = connections.join_next() => {
                let ended: Result<()> = ended?;
                ended?;
            }
        }
    }
}
