//! The copy between a flow and a socket, or between two sockets.

use std::{
    array,
    future::poll_fn,
    io::{self, IoSlice},
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Flow;
use crate::{proto::chunks::SHOWN, scratch};

/// Moves in one poll; then the other tasks of the thread get their turn.
const TURNS: usize = 4;

/// Moves of what is left when the other direction has failed: more than any socket and any window hold.
const LAST_TURNS: usize = 1024;

/// How long a socket may take nothing of the last bytes for it, when their sender is gone.
const LINGER: Duration = Duration::from_secs(30);

/// How often it is looked at meanwhile: the kernel does not tell when its peer has taken the last byte. Thousands may linger
/// at a time, when a tunnel is lost.
const LOOK: Duration = Duration::from_millis(100);

/// One end of a copy, a [`Flow`] or a [`TcpStream`](tokio::net::TcpStream). What is written to it leaves without a flush.
///
/// A socket is read straight into a flow's queue, and written straight out of it, while the flow's tunnel is locked: its
/// `poll_read` and `poll_write` must not touch a flow of that tunnel.
pub trait CopyEnd {
    /// The flow that it is.
    fn as_flow(&self) -> Option<&Flow> {
        None
    }

    /// Pending while a read would be: asked before a flow's queue is looked at for room.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads into `room`, which is not empty; 0 at the end of file.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes of `pieces`. `BrokenPipe`: the peer has said all that it had to say, and reads no more.
    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Passes on the end of file; reading goes on.
    fn end(&self) -> io::Result<()>;

    /// Resolves when the peer, which has said all, reads no more either; with an error when nobody can say whether it does.
    /// Cancel safe.
    fn stopped(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Bytes of what was written, the end of file among them, that wait in the kernel for the peer to take them.
    fn unsent(&self) -> usize;
}

/// Copies both ways until both directions have ended; `moved_forth` is told of bytes as they pass from `a` to `b`,
/// `moved_back` of the others. With an error what had arrived for the other end has been delivered as far as it takes it
/// at once, and both are to be reset.
///
/// An end that has said all and reads no more has its last words delivered, and its end of file. What the other end
/// still says meanwhile is thrown away, as a server that lingers does, since a reset would overtake those words: the reset
/// (`ConnectionReset`) follows when its kernel has all of them, or after 30 s without progress. As long has a socket to take
/// what a tunnel has brought that ended since.
///
/// Cancelling it loses what is on its way between two sockets.
pub async fn copy<A: CopyEnd, B: CopyEnd>(
    a: &A,
    b: &B,
    mut moved_forth: impl FnMut(usize),
    mut moved_back: impl FnMut(usize),
) -> io::Result<()> {
    let (mut forth, mut back) = (Direction::default(), Direction::default());
    let (mut a_stopped, mut b_stopped) = (pin!(a.stopped()), pin!(b.stopped()));
    let mut linger = None;
    poll_fn(|cx| {
        let mut moved = false;
        loop {
            if let Poll::Ready(Err(error)) = forth.poll(cx, a, b, |count| {
                moved = true;
                moved_forth(count);
            }) {
                back.move_the_rest(cx, b, a, &mut moved_back);
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(Err(error)) = back.poll(cx, b, a, |count| {
                moved = true;
                moved_back(count);
            }) {
                forth.move_the_rest(cx, a, b, &mut moved_forth);
                return Poll::Ready(Err(error));
            }
            if forth.has_ended() && back.has_ended() {
                return Poll::Ready(Ok(()));
            }
            // Of an end whose end of file was read no read tells that it is gone.
            if forth.has_ended()
                && back.goes_on()
                && let Poll::Ready(stopped) = a_stopped.as_mut().poll(cx)
            {
                stopped?;
                back.give_up(b);
            } else if back.has_ended()
                && forth.goes_on()
                && let Poll::Ready(stopped) = b_stopped.as_mut().poll(cx)
            {
                stopped?;
                forth.give_up(a);
            } else {
                break;
            }
        }
        if !forth.lingers(a) && !back.lingers(b) {
            linger = None;
            return Poll::Pending;
        }
        let unsent = [a.unsent(), b.unsent()];
        let heard_all = forth.is_draining() && back.has_ended() && unsent[0] == 0
            || back.is_draining() && forth.has_ended() && unsent[1] == 0;
        let linger = linger.get_or_insert_with(|| Box::new(Linger::new(unsent)));
        if heard_all || linger.is_late(cx, unsent, moved) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Pending
    })
    .await
}

/// Waits for a peer's kernel.
struct Linger {
    look: Interval,
    unsent: [usize; 2],
    since: Instant,
}

impl Linger {
    fn new(unsent: [usize; 2]) -> Self {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { look, unsent, since: Instant::now() }
    }

    /// Whether there was no progress for [`LINGER`].
    fn is_late(&mut self, cx: &mut Context<'_>, unsent: [usize; 2], moved: bool) -> bool {
        if moved || unsent != self.unsent {
            self.unsent = unsent;
            self.since = Instant::now();
        }
        while self.look.poll_tick(cx).is_ready() {}
        self.since.elapsed() >= LINGER
    }
}

/// Copies until the end of file, and passes that on. An idle one holds no buffer.
#[derive(Debug, Default)]
struct Direction {
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
    /// Nobody reads: what is still said is thrown away.
    Draining,
    Ended,
}

impl Direction {
    /// Whether its writer may still take something.
    fn goes_on(&self) -> bool {
        matches!(self.stage, Stage::Copying | Stage::Ending)
    }

    /// Whether nothing more passes; the end of file was passed on, if there was anybody to hear it.
    fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    fn is_draining(&self) -> bool {
        self.stage == Stage::Draining
    }

    /// Whether somebody's last words wait for a socket to take them: those that came the other way, or its own.
    fn lingers<R: CopyEnd>(&self, from: &R) -> bool {
        self.is_draining() || self.blocked && from.as_flow().is_some_and(Flow::is_over)
    }

    /// Nobody reads what it writes. A flow is told when it is dropped; what a socket says is read, or its end would be a
    /// reset.
    fn give_up<R: CopyEnd>(&mut self, from: &R) {
        self.stage = if from.as_flow().is_some() { Stage::Ended } else { Stage::Draining };
        self.rest = Vec::new();
        self.blocked = false;
    }

    /// Ready once it has ended. An error of either end is returned as it is; then the copy is over.
    fn poll<R: CopyEnd, W: CopyEnd>(
        &mut self,
        cx: &mut Context<'_>,
        from: &R,
        to: &W,
        mut moved: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            match self.stage {
                Stage::Copying => match ready!(self.poll_move(cx, from, to)) {
                    Ok(0) => self.stage = Stage::Ending,
                    Ok(count) => moved(count),
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.give_up(from),
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Stage::Ending => {
                    match to.end() {
                        // Gone; why, its reader is told.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        ended => ended?,
                    }
                    self.stage = Stage::Ended;
                }
                Stage::Draining => {
                    if ready!(scratch::with(|room| from.poll_read(cx, room)))? == 0 {
                        self.stage = Stage::Ended;
                    }
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
        from: &R,
        to: &W,
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
        from: &R,
        to: &W,
    ) -> Poll<io::Result<usize>> {
        match (from.as_flow(), to.as_flow()) {
            (Some(flow), None) => {
                let mut wrote = None;
                let taken = flow.poll_take(cx.waker(), |pieces| {
                    // A message is one piece.
                    let written = if let [only] = pieces {
                        to.poll_write(cx, &[IoSlice::new(only)])
                    } else {
                        let slices: [_; SHOWN] =
                            array::from_fn(|at| IoSlice::new(pieces.get(at).unwrap_or(&&[][..])));
                        to.poll_write(cx, &slices[..pieces.len().min(SHOWN)])
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
                    read = from.poll_read(cx, room);
                    if let Poll::Ready(Ok(count)) = read { count } else { 0 }
                }))?;
                read.map_ok(|_| count)
            }
            _ => self.poll_through_buffer(cx, from, to),
        }
    }

    fn poll_through_buffer<R: CopyEnd, W: CopyEnd>(
        &mut self,
        cx: &mut Context<'_>,
        from: &R,
        to: &W,
    ) -> Poll<io::Result<usize>> {
        if self.rest.is_empty() {
            return scratch::with(|room| {
                let read = ready!(from.poll_read(cx, room))?;
                let mut written = 0;
                while written < read {
                    match not_zero(to.poll_write(cx, &[IoSlice::new(&room[written..read])])) {
                        Poll::Ready(count) => written += count?,
                        Poll::Pending => {
                            self.rest.extend_from_slice(&room[written..read]);
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
        let written = not_zero(to.poll_write(cx, &[IoSlice::new(&self.rest[self.written..])]));
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
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::yield_now,
    };

    use super::*;

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_between_sockets_pass_a_narrow_one_and_an_idle_direction_holds_no_buffer() {
        let ((mut client, near), (far, mut server)) = (sockets().await, sockets().await);
        socket2::SockRef::from(&far).set_send_buffer_size(100).unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (mut direction, mut got, mut moved) = (Direction::default(), vec![0; sent.len()], 0);
        let pass = poll_fn(|cx| direction.poll(cx, &near, &far, |bytes| moved += bytes));
        let talk = async {
            client.write_all(&sent).await.unwrap();
            server.read_exact(&mut got).await.unwrap();
            yield_now().await;
        };
        tokio::select! {
            passed = pass => panic!("the end was not written: {passed:?}"),
            () = talk => {}
        }
        assert!(got == sent && moved == sent.len());
        assert!(!direction.blocked && direction.goes_on());
        assert_eq!(direction.rest.capacity(), 0);

        client.shutdown().await.unwrap();
        poll_fn(|cx| direction.poll(cx, &near, &far, |_| ())).await.unwrap();
        assert!(direction.has_ended());
        assert_eq!(server.read(&mut got).await.unwrap(), 0);
    }
}
