//! A tunnel between two memories: what frames, lanes, flows and their handles cost, without a kernel.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use devproxy_tunnel::{Carrier, Incoming, Open, Role, SessionKey, Tunnel, TunnelId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use crate::Result;

/// As much as the carrier holds.
const WIDTH: usize = 256 << 10;
const CHUNK: usize = 64 << 10;
const MESSAGE: usize = 64;

pub(crate) async fn run(work: &str, count: usize) -> Result<()> {
    let (near, far) = tokio::io::duplex(WIDTH);
    let key = SessionKey::from_bytes([7; SessionKey::LEN]);
    let (near, far) = tokio::try_join!(
        Carrier::handshake(near, Role::Laptop, &key, TunnelId(1)),
        Carrier::handshake(far, Role::Agent, &key, TunnelId(1)),
    )?;
    let (laptop, _laptop_incoming, laptop_driver) = Tunnel::new(Role::Laptop, near);
    let (_agent, incoming, agent_driver) = Tunnel::new(Role::Agent, far);
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    tasks.spawn(async move { Ok(laptop_driver.await?) });
    tasks.spawn(async move { Ok(agent_driver.await?) });
    tasks.spawn(serve(incoming));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let (tcp, udp) = (Open::Tcp { target: address }, Open::Udp { target: address });
    match work {
        "bulk" => {
            let mut flow = laptop.open(tcp).await?;
            let chunk = vec![7; CHUNK];
            for _ in 0..count * ((1 << 20) / CHUNK) {
                flow.write_all(&chunk).await?;
            }
            flow.shutdown().await?;
            // The server says so once it has read all.
            while flow.read(&mut [0; MESSAGE]).await? > 0 {}
        }
        "flows" => {
            for _ in 0..count {
                let mut flow = laptop.open(tcp.clone()).await?;
                flow.shutdown().await?;
                while flow.read(&mut [0; MESSAGE]).await? > 0 {}
            }
        }
        "messages" => {
            let mut flow = laptop.open(Open::Probe).await?;
            let mut message = [7; MESSAGE];
            for _ in 0..count {
                flow.write_all(&message).await?;
                flow.read_exact(&mut message).await?;
            }
        }
        "datagrams" => {
            let flow = laptop.open_datagrams(udp).await?;
            for _ in 0..count {
                flow.send(Bytes::from_static(&[7; MESSAGE])).await?;
                flow.recv().await?;
            }
        }
        _ => return Err(format!("no work `{work}`").into()),
    }
    Ok(())
}

/// Echoes probes and datagrams; reads all else to its end.
async fn serve(mut incoming: Incoming) -> Result<()> {
    let mut flows: JoinSet<Result<()>> = JoinSet::new();
    loop {
        tokio::select! {
            request = incoming.next() => {
                let Some(request) = request else { return Ok(()) };
                if matches!(request.open(), Open::Udp { .. }) {
                    let flow = request.accept_datagrams();
                    flows.spawn(async move {
                        loop {
                            flow.send(flow.recv().await?).await?;
                        }
                    });
                    continue;
                }
                let echoes = *request.open() == Open::Probe;
                let mut flow = request.accept();
                flows.spawn(async move {
                    let mut buffer = vec![0; if echoes { MESSAGE } else { CHUNK }];
                    loop {
                        match flow.read(&mut buffer).await? {
                            0 => break,
                            read if echoes => flow.write_all(&buffer[..read]).await?,
                            _ => {}
                        }
                    }
                    Ok(flow.shutdown().await?)
                });
            }
            Some(_) = flows.join_next() => {}
        }
    }
}
