//! A TCP socket as one end of a copy.

use std::{
    io::{self, IoSlice, Read},
    net::Shutdown,
    os::fd::AsRawFd,
    task::{Context, Poll, ready},
};

use nix::libc;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::CopyEnd;

impl CopyEnd for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let mut read = None;
            let tried = self.try_io(Interest::READABLE, || {
                let count = (&*SockRef::from(self)).read(room)?;
                read = Some(count);
                // A read that could have been longer has emptied the kernel's queue: said so, the next one waits without a
                // system call that finds nothing (`epoll(7)`, question 9; tokio does the same where it owns the socket).
                if (1..room.len()).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, tried) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => {}
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            let written = match pieces {
                [only] => self.try_write(only),
                _ => self.try_write_vectored(pieces),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    async fn stopped(&self) -> io::Result<()> {
        // EPOLLERR is set by a RST (sk_err), never by data or FIN.
        self.ready(Interest::ERROR).await.map(drop)
    }

    fn unsent(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (tcp(7), the same number as TIOCOUTQ) writes one int.
        #[expect(unsafe_code, reason = "no library has it")]
        let asked = unsafe { libc::ioctl(self.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if asked == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
    }
}
