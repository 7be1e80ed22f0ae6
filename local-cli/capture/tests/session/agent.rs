//! The other end of the tunnel: answers by port, as a pod's network might.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use devproxy_tunnel::{
    Carrier, Datagrams, Flow, Incoming, Open, Refusal, Request, Role, SessionKey, Tunnel, TunnelId,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

/// Greets and closes.
pub(crate) const OPEN: u16 = 80;
pub(crate) const REFUSED: u16 = 81;
pub(crate) const HOST_UNREACHABLE: u16 = 82;
pub(crate) const NETWORK_UNREACHABLE: u16 = 84;
pub(crate) const PROHIBITED: u16 = 85;
pub(crate) const SILENT: u16 = 87;
/// Greets after 1.5 s: the kernel has sent the SYN again by then.
pub(crate) const SLOW: u16 = 88;
/// Echoes until the other side ends, TCP and UDP.
pub(crate) const ECHO: u16 = 7;
/// Resets after the other side has ended.
pub(crate) const RESETTING: u16 = 9;
/// Answers after the other side has ended.
pub(crate) const AFTER_END: u16 = 10;
/// Greets with one byte and notes how the flow ends.
pub(crate) const ENDING: u16 = 11;

#[derive(Default)]
pub(crate) struct Seen {
    /// TCP opens.
    pub(crate) dials: AtomicUsize,
    pub(crate) dns: AtomicUsize,
    pub(crate) questions: AtomicUsize,
    /// How flows to [`ENDING`] ended.
    pub(crate) endings: Mutex<Vec<String>>,
}

/// Both ends of a tunnel, in this process.
pub(crate) struct Pair {
    pub(crate) laptop: Tunnel,
    pub(crate) agent: Tunnel,
    pub(crate) seen: Arc<Seen>,
    /// Drives both and serves the agent's side; dropping it cuts the tunnel.
    pub(crate) tasks: JoinSet<()>,
}

pub(crate) async fn pair() -> (Pair, Incoming) {
    let (near, far) = tokio::io::duplex(256 << 10);
    let key = SessionKey::from_bytes([7; SessionKey::LEN]);
    let (near, far) = tokio::join!(
        Carrier::handshake(near, Role::Laptop, &key, TunnelId(1)),
        Carrier::handshake(far, Role::Agent, &key, TunnelId(1)),
    );
    let (laptop, laptop_incoming, driver) = Tunnel::new(Role::Laptop, near.unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(driver.await) });
    let (agent, incoming, driver) = Tunnel::new(Role::Agent, far.unwrap());
    tasks.spawn(async move { drop(driver.await) });
    let seen = Arc::new(Seen::default());
    tasks.spawn(serve(incoming, Arc::clone(&seen)));
    (Pair { laptop, agent, seen, tasks }, laptop_incoming)
}

async fn serve(mut incoming: Incoming, seen: Arc<Seen>) {
    let mut flows = JoinSet::new();
    while let Some(request) = incoming.next().await {
        let seen = Arc::clone(&seen);
        flows.spawn(async move {
            match *request.open() {
                Open::Tcp { target } => {
                    seen.dials.fetch_add(1, Ordering::Relaxed);
                    tcp(request, target, &seen).await;
                }
                Open::Udp { target } if target.port() == ECHO => echo(request.accept_datagrams(), b"").await,
                Open::Dns { .. } => {
                    seen.dns.fetch_add(1, Ordering::Relaxed);
                    answer(request.accept_datagrams(), &seen).await;
                }
                _ => request.refuse(Refusal::Refused),
            }
        });
    }
}

async fn tcp(request: Request, target: SocketAddr, seen: &Seen) {
    match target.port() {
        OPEN => greet(request.accept(), target).await,
        SLOW => {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            greet(request.accept(), target).await;
        }
        HOST_UNREACHABLE => request.refuse(Refusal::HostUnreachable),
        NETWORK_UNREACHABLE => request.refuse(Refusal::NetworkUnreachable),
        PROHIBITED => request.refuse(Refusal::Prohibited),
        SILENT => request.refuse(Refusal::TimedOut),
        ECHO => {
            let (mut reading, mut writing) = tokio::io::split(request.accept());
            if tokio::io::copy(&mut reading, &mut writing).await.is_ok() {
                let _ = writing.shutdown().await;
            }
        }
        RESETTING => {
            let mut flow = request.accept();
            flow.write_all(b"x").await.unwrap();
            // The program is reading by then: a reset before its own end would fail that instead.
            let _ = flow.read_to_end(&mut Vec::new()).await;
            drop(flow);
        }
        AFTER_END => {
            let mut flow = request.accept();
            let mut question = String::new();
            flow.read_to_string(&mut question).await.unwrap();
            flow.write_all(format!("{question} answered").as_bytes()).await.unwrap();
            flow.shutdown().await.unwrap();
        }
        ENDING => {
            let mut flow = request.accept();
            flow.write_all(b"x").await.unwrap();
            let ending = match flow.read(&mut [0; 8]).await {
                Ok(count) => format!("{count} bytes"),
                Err(error) => format!("{:?}", error.kind()),
            };
            seen.endings.lock().unwrap().push(ending);
        }
        _ => request.refuse(Refusal::Refused),
    }
}

async fn greet(mut flow: Flow, target: SocketAddr) {
    flow.write_all(format!("tunnel {target}").as_bytes()).await.unwrap();
    flow.shutdown().await.unwrap();
    let _ = flow.read(&mut [0; 8]).await;
}

async fn echo(flow: Datagrams, before: &[u8]) {
    while let Ok(bytes) = flow.recv().await {
        let answer = [before, &bytes].concat();
        if flow.send(Bytes::from(answer)).await.is_err() {
            return;
        }
    }
}

/// Answers each DNS question with an address whose last byte is the question's number; echoes all else.
async fn answer(flow: Datagrams, seen: &Seen) {
    while let Ok(bytes) = flow.recv().await {
        let mut answer = bytes.to_vec();
        if bytes[2..].starts_with(b"\x01\0\0\x01\0\0") {
            let number = seen.questions.fetch_add(1, Ordering::Relaxed) + 1;
            answer[2..8].copy_from_slice(b"\x81\x80\0\x01\0\x01");
            // The name as a pointer to the question's, A, IN, 20 s, four bytes.
            answer.extend_from_slice(b"\xC0\x0C\0\x01\0\x01\0\0\0\x14\0\x04\x0A\0\0");
            answer.push(number.try_into().unwrap());
        }
        if flow.send(Bytes::from(answer)).await.is_err() {
            return;
        }
    }
}
