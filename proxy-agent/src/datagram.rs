//! UDP associations that the program in the shell opens: one connected socket each.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use devproxy_tunnel::{Refusal, Request};
use nix::errno::Errno;
use tokio::{io::Interest, net::UdpSocket, time::Instant};

use crate::{dial::refusal, listener::unmapped};

/// The largest UDP payload is 65,507 bytes.
pub(crate) const LARGEST: usize = 65_507;

/// Serves one association until `idle` has passed without a datagram either way, or the port says that it is closed.
pub(crate) async fn serve(request: Request, target: SocketAddr, idle: Duration) {
    let target = unmapped(target);
    let socket = match connect(target).await {
        Ok(socket) => socket,
        Err(e) => return request.refuse(refusal(&e, target)),
    };
    let flow = request.accept_datagrams();
    let mut deadline = Instant::now() + idle;
    let why = loop {
        tokio::select! {
            received = flow.recv() => {
                let Ok(datagram) = received else { return };
                match socket.send(&datagram).await {
                    // A larger datagram than the pod's interface takes is lost, as in the pod.
                    Err(e) if !lost(&e) => break refusal(&e, target),
                    _ => {}
                }
            }
            // An ICMP error makes the socket neither readable nor closed, only EPOLLERR.
            ready = socket.ready(Interest::READABLE | Interest::ERROR) => {
                let Ok(ready) = ready else { break Refusal::Closed };
                if ready.is_error()
                    && let Some(e) = pending_error(&socket)
                {
                    break refusal(&e, target);
                }
                match receive(&socket) {
                    Ok(datagram) => if flow.send(datagram).await.is_err() { return },
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(e) => break refusal(&e, target),
                }
            }
            () = tokio::time::sleep_until(deadline) => break Refusal::Closed,
        }
        deadline = Instant::now() + idle;
    };
    flow.close(why);
}

async fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

thread_local! {
    /// One for all associations: it is filled and copied out without a wait between.
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn receive(socket: &UdpSocket) -> io::Result<Bytes> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(LARGEST, 0);
        let length = socket.try_recv(scratch)?;
        Ok(Bytes::copy_from_slice(&scratch[..length]))
    })
}

/// Takes the error that ICMP left, and with it the readiness that told of it.
fn pending_error(socket: &UdpSocket) -> Option<io::Error> {
    let error = socket.take_error().ok().flatten();
    let _ = socket.try_io(Interest::ERROR, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
    error
}

fn lost(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMSGSIZE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN))
}
