//! TCP and UDP echo: what comes is sent back; half-close is answered by half-close.

use std::io::{Result, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, UdpSocket};

use crate::serve::plain;

/// Echoes on every connection; says `greeting` first if there is one.
pub(crate) fn tcp(listener: TcpListener, greeting: Option<String>) {
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let greeting = greeting.clone();
            std::thread::spawn(move || {
                if let Some(greeting) = greeting {
                    connection.write_all(greeting.as_bytes())?;
                }
                let mut reading = connection.try_clone()?;
                std::io::copy(&mut reading, &mut connection)?;
                connection.shutdown(Shutdown::Write)
            });
        }
    });
}

/// Answers each datagram with the sender's address, a space and the datagram.
pub(crate) fn udp(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    std::thread::spawn(move || {
        let mut datagram = vec![0; 65536];
        while let Ok((length, peer)) = socket.recv_from(&mut datagram) {
            let mut answer = format!("{} ", plain(peer)).into_bytes();
            answer.extend_from_slice(&datagram[..length]);
            // A client that is gone is not this server's trouble.
            let _ = socket.send_to(&answer, peer);
        }
    });
    Ok(())
}
