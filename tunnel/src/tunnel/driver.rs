//! The future that moves bytes between the carriers and the state machine.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::{
    Carrier,
    carrier::Stream,
    shared::{Shared, now},
};
use crate::proto::{Connection, EndCause, LaneId, record::MAX_RECORD};

/// Bytes of one read: several records, so that one wake-up serves them all.
const READ: usize = 4 * MAX_RECORD;

/// Reads and writes of each lane in one poll; then other tasks of the runtime get their turn.
const ROUNDS: usize = 16;

pub(super) struct Driver {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The carrier's own words for its loss.
    failure: Option<io::Error>,
    /// Whether the tasks that were ready have had their turn since this one was woken.
    gathered: bool,
}

/// What one turn of all lanes came to.
#[derive(PartialEq, Eq)]
enum Turn {
    Moved,
    /// A lane has a little to send, and waits.
    Gathering,
    Idle,
}

/// One carrier with the bytes between it and the state machine.
struct Lane {
    id: LaneId,
    io: Box<dyn Stream>,
    /// `inbox[start..end]` is received and not yet taken by the state machine.
    inbox: Box<[u8]>,
    start: usize,
    end: usize,
    /// One record, `outbox[sent..]` of it still to be written.
    outbox: Vec<u8>,
    sent: usize,
    unflushed: bool,
    shut: bool,
    read_ended: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, carrier: Carrier) -> Self {
        let mut driver = Self { shared, lanes: Vec::new(), timer: None, failure: None, gathered: false };
        driver.add(carrier);
        driver
    }

    fn add(&mut self, carrier: Carrier) {
        let id = self.shared.lock().add_lane(now());
        self.lanes.push(Lane {
            id,
            io: carrier.io,
            inbox: vec![0; READ].into_boxed_slice(),
            start: 0,
            end: 0,
            outbox: Vec::with_capacity(MAX_RECORD),
            sent: 0,
            unflushed: false,
            shut: false,
            read_ended: false,
        });
    }

    /// One read and one write on each lane.
    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let (mut progress, mut gathering) = (false, false);
        for lane in &mut self.lanes {
            let moved = lane.read(&self.shared, cx).and_then(|read| {
                if !self.gathered && lane.would_send_little(&self.shared) {
                    gathering = true;
                    return Ok(read);
                }
                Ok(lane.write(&self.shared, cx)? | read)
            });
            match moved {
                Ok(moved) => progress |= moved,
                Err(LaneError::Io(error)) => {
                    self.shared.lock().handle_lane_end(lane.id);
                    self.failure.get_or_insert(error);
                }
                Err(LaneError::End(cause)) => self.shared.lock().end(cause),
            }
        }
        let all_ended = self.lanes.iter().all(|lane| lane.read_ended && lane.shut);
        let mut connection = self.shared.lock();
        if connection.is_closing() && all_ended {
            connection.end(EndCause::Closed);
        }
        if gathering {
            Turn::Gathering
        } else if progress {
            Turn::Moved
        } else {
            Turn::Idle
        }
    }

    /// Ready when something may be due. The timer is moved only forwards in need: it may ring early, for a deadline
    /// that has passed away meanwhile.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.shared.lock().poll_timeout() else { return Poll::Pending };
        let deadline = tokio::time::Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.is_elapsed() || deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    fn outcome(&mut self, cause: EndCause) -> io::Result<()> {
        let kind = match cause {
            EndCause::Closed | EndCause::ClosedByPeer => return Ok(()),
            EndCause::CarrierLost => match self.failure.take() {
                Some(error) => return Err(error),
                None => io::ErrorKind::UnexpectedEof,
            },
            EndCause::Silent => io::ErrorKind::TimedOut,
            EndCause::Protocol(_) => io::ErrorKind::InvalidData,
            EndCause::Dropped => io::ErrorKind::ConnectionAborted,
        };
        Err(io::Error::new(kind, cause))
    }
}

impl Future for Driver {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        for _ in 0..ROUNDS {
            this.shared.lock().register_driver(cx.waker());
            for carrier in this.shared.take_joining() {
                this.add(carrier);
            }
            let turn = this.turn(cx);
            let ended = this.shared.lock().ended();
            if let Some(cause) = ended {
                return Poll::Ready(this.outcome(cause));
            }
            if turn == Turn::Gathering {
                this.gathered = true;
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            if this.poll_timer(cx).is_ready() {
                this.shared.lock().handle_timeout(now());
            } else if turn == Turn::Idle {
                this.gathered = false;
                return Poll::Pending;
            }
        }
        this.gathered = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.lock().end(EndCause::Dropped);
    }
}

enum LaneError {
    Io(io::Error),
    End(EndCause),
}

impl From<io::Error> for LaneError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Lane {
    fn read(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Result<bool, LaneError> {
        if self.read_ended {
            return Ok(false);
        }
        // A congested lane is not read: its peer does not take our answers. Writing makes room and comes back here.
        let mut progress = self.take(&mut shared.lock())?;
        if shared.lock().is_congested(self.id) {
            return Ok(progress);
        }
        if self.inbox.len() - self.end < MAX_RECORD {
            self.inbox.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut buf = ReadBuf::new(&mut self.inbox[self.end..]);
        if Pin::new(&mut self.io).poll_read(cx, &mut buf)?.is_ready() {
            let read = buf.filled().len();
            if read == 0 {
                self.read_ended = true;
                let mut connection = shared.lock();
                // While closing, the other side's end only means that it has nothing more to say.
                if !connection.is_closing() {
                    connection.handle_lane_end(self.id);
                }
                return Ok(true);
            }
            self.end += read;
            progress = true;
            self.take(&mut shared.lock())?;
        }
        Ok(progress)
    }

    /// Hands whole records to the state machine.
    fn take(&mut self, connection: &mut Connection) -> Result<bool, LaneError> {
        if self.start == self.end {
            return Ok(false);
        }
        let used = connection
            .handle_bytes(self.id, &self.inbox[self.start..self.end], now())
            .map_err(|error| LaneError::End(error.into()))?;
        self.start += used;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Ok(used > 0)
    }

    /// Whether the next record would be a small one. What many flows have to say at one moment leaves in one record,
    /// which is one message for all processes on its way: so whoever is ready has a turn before, and if nobody of them
    /// speaks, whoever's socket is.
    fn would_send_little(&self, shared: &Shared) -> bool {
        self.outbox.is_empty() && shared.lock().has_little_to_send(self.id, now())
    }

    fn write(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Result<bool, LaneError> {
        if self.shut {
            return Ok(false);
        }
        let mut progress = false;
        if self.outbox.is_empty() && shared.lock().poll_transmit(self.id, &mut self.outbox, now()) {
            self.unflushed = true;
            progress = true;
        }
        while self.sent < self.outbox.len() {
            match Pin::new(&mut self.io).poll_write(cx, &self.outbox[self.sent..])? {
                Poll::Ready(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(written) => self.sent += written,
                Poll::Pending => return Ok(progress),
            }
            progress = true;
        }
        self.outbox.clear();
        self.sent = 0;
        if progress {
            return Ok(true);
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx)? {
                Poll::Ready(()) => self.unflushed = false,
                Poll::Pending => return Ok(false),
            }
        }
        if shared.lock().is_drained() {
            self.shut = Pin::new(&mut self.io).poll_shutdown(cx)?.is_ready();
            return Ok(self.shut);
        }
        Ok(false)
    }
}
