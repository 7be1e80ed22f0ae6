//! One direction of a copy between a flow and a socket, or between two sockets.

use std::{
    array,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Flow;
use crate::{proto::chunks::SHOWN, scratch};

/// Moves in one poll; then the other tasks of the thread get their turn.
const TURNS: usize = 4;

/// Moves of what is left when the other direction has failed: more than any socket and any window hold.
const LAST_TURNS: usize = 1024;

/// One end of a copy. What is written to it leaves without a flush.
///
/// A socket is read straight into a flow's queue, and written straight out of it, while the flow's tunnel is locked: its
/// `poll_read` and `poll_write` must not touch a flow of that tunnel.
pub trait CopyEnd: AsyncRead + AsyncWrite + Unpin {
    /// The flow that it is.
    fn as_flow(&self) -> Option<&Flow> {
        None
    }

    /// Pending while a read would be: asked before a flow's queue is looked at for room.
    fn poll_readable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl CopyEnd for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

impl CopyEnd for Flow {
    fn as_flow(&self) -> Option<&Flow> {
        Some(self)
    }
}

/// Both directions of a copy.
#[derive(Debug, Default)]
pub struct Duplex {
    /// From the first end to the second.
    pub forth: Direction,
    /// From the second end to the first.
    pub back: Direction,
}

impl Duplex {
    /// Ready once both directions have ended, or with the error of the first that failed; then what had arrived for the
    /// other one has been delivered as far as its end takes it at once, and both ends are to be reset.
    pub fn poll<A: CopyEnd, B: CopyEnd>(
        &mut self,
        cx: &mut Context<'_>,
        a: &mut A,
        b: &mut B,
        mut moved_forth: impl FnMut(usize),
        mut moved_back: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        let forth = self.forth.poll(cx, a, b, &mut moved_forth);
        if let Poll::Ready(Err(error)) = forth {
            self.back.move_the_rest(cx, b, a, moved_back);
            return Poll::Ready(Err(error));
        }
        let back = self.back.poll(cx, b, a, &mut moved_back);
        if let Poll::Ready(Err(error)) = back {
            self.forth.move_the_rest(cx, a, b, moved_forth);
            return Poll::Ready(Err(error));
        }
        if forth.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// Copies until the end of file, and passes that on as a shutdown. An idle one holds no buffer.
#[derive(Debug, Default)]
pub struct Direction {
    stage: Stage,
    /// Read between two sockets and not taken by the writer at once; written as far as `written`.
    rest: Vec<u8>,
    written: usize,
    blocked: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Copying,
    Ending,
    Ended,
}

impl Direction {
    /// Whether the end of file was read.
    pub fn has_read_all(&self) -> bool {
        self.stage != Stage::Copying
    }

    /// Whether bytes wait for a writer that takes none.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Ready once the end was passed on. `moved` is told of bytes as they pass. An error of either end is returned as it is;
    /// then the copy is over.
    pub fn poll<R: CopyEnd, W: CopyEnd>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        mut moved: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            match self.stage {
                Stage::Copying => match ready!(self.poll_move(cx, from, to))? {
                    0 => self.stage = Stage::Ending,
                    count => moved(count),
                },
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what can be moved at once, and never passes on an end: the other direction has failed, and once the kernel has
    /// told one call of a reset, it tells the next one of an end of file.
    fn move_the_rest<R: CopyEnd, W: CopyEnd>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        mut moved: impl FnMut(usize),
    ) {
        if self.stage != Stage::Copying {
            return;
        }
        for _ in 0..LAST_TURNS {
            let Poll::Ready(Ok(count @ 1..)) = self.poll_move(cx, from, to) else { return };
            moved(count);
        }
    }

    /// Moves some bytes; 0 at the end of file.
    fn poll_move<R: CopyEnd, W: CopyEnd>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<io::Result<usize>> {
        match (from.as_flow(), to.as_flow()) {
            (Some(flow), None) => {
                let mut wrote = None;
                let taken = flow.poll_take(cx.waker(), |pieces| {
                    // A message is one piece.
                    let written = if let [only] = pieces {
                        Pin::new(to).poll_write(cx, only)
                    } else {
                        let slices: [_; SHOWN] =
                            array::from_fn(|at| IoSlice::new(pieces.get(at).unwrap_or(&&[][..])));
                        Pin::new(to).poll_write_vectored(cx, &slices[..pieces.len().min(SHOWN)])
                    };
                    let count = if let Poll::Ready(Ok(count)) = written { count } else { 0 };
                    wrote = Some(written);
                    count
                });
                self.blocked = matches!(wrote, Some(Poll::Pending));
                match wrote {
                    // Of a flow that was reset nothing is left to wait for.
                    None | Some(Poll::Pending) => taken,
                    Some(written) => not_zero(written),
                }
            }
            (None, Some(flow)) => {
                ready!(from.poll_readable(cx))?;
                let mut read = Poll::Pending;
                let count = ready!(flow.poll_fill(cx.waker(), |room| {
                    let mut buffer = ReadBuf::new(room);
                    read = Pin::new(from).poll_read(cx, &mut buffer);
                    buffer.filled().len()
                }))?;
                read.map_ok(|()| count)
            }
            _ => self.poll_through_buffer(cx, from, to),
        }
    }

    fn poll_through_buffer<R: CopyEnd, W: CopyEnd>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<io::Result<usize>> {
        if self.rest.is_empty() {
            return scratch::with(|room| {
                let mut buffer = ReadBuf::new(room);
                ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
                let mut written = 0;
                while written < buffer.filled().len() {
                    match not_zero(Pin::new(&mut *to).poll_write(cx, &buffer.filled()[written..])) {
                        Poll::Ready(count) => written += count?,
                        Poll::Pending => {
                            self.rest.extend_from_slice(&buffer.filled()[written..]);
                            self.written = 0;
                            self.blocked = true;
                            break;
                        }
                    }
                }
                // With nothing written it is not the end.
                if written == 0 && self.blocked { Poll::Pending } else { Poll::Ready(Ok(written)) }
            });
        }
        let written = not_zero(Pin::new(to).poll_write(cx, &self.rest[self.written..]));
        self.blocked = written.is_pending();
        let count = ready!(written)?;
        self.written += count;
        if self.written == self.rest.len() {
            self.rest = Vec::new();
        }
        Poll::Ready(Ok(count))
    }
}

/// A writer that takes nothing for ever is broken.
fn not_zero(written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::yield_now,
    };

    use super::*;

    impl CopyEnd for DuplexStream {}

    #[tokio::test]
    async fn bytes_between_sockets_pass_a_narrow_one_and_an_idle_direction_holds_no_buffer() {
        let ((mut client, mut near), (mut far, mut server)) = (duplex(1 << 20), duplex(100));
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        client.write_all(&sent).await.unwrap();
        let (mut direction, mut got, mut moved) = (Direction::default(), vec![0; sent.len()], 0);
        let pass = poll_fn(|cx| direction.poll(cx, &mut near, &mut far, |bytes| moved += bytes));
        let read = async {
            server.read_exact(&mut got).await.unwrap();
            yield_now().await;
        };
        tokio::select! {
            passed = pass => panic!("the end was not written: {passed:?}"),
            () = read => {}
        }
        assert!(got == sent && moved == sent.len());
        assert!(!direction.is_blocked() && !direction.has_read_all());
        assert_eq!(direction.rest.capacity(), 0);

        client.shutdown().await.unwrap();
        poll_fn(|cx| direction.poll(cx, &mut near, &mut far, |_| ())).await.unwrap();
        assert!(direction.has_read_all());
        assert_eq!(server.read(&mut got).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_writer_that_takes_nothing_blocks_the_direction() {
        let ((mut client, mut near), (mut far, _server)) = (duplex(1 << 20), duplex(1));
        client.write_all(b"two").await.unwrap();
        let mut direction = Direction::default();
        poll_fn(|cx| {
            assert!(direction.poll(cx, &mut near, &mut far, |_| ()).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(direction.is_blocked());
    }
}
