//! Reading and writing streams.

use std::task::{Poll, Waker};

use super::{Connection, Life};
use crate::proto::{
    chunks::Chunks,
    flow::{Body, Fin, Flow, FlowError, Stream},
    frame::FlowId,
    lane::HOME,
    waiters::Waiters,
};

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes went to the sink.
    Bytes(usize),
    /// The other side shut down its direction.
    End,
}

impl Connection {
    /// Shows what has arrived to `sink`, which says how many of the bytes it took. When it took none, its flow is waited
    /// for as if nothing had arrived; of a flow that was reset, that is the end.
    pub fn poll_read(
        &mut self,
        id: FlowId,
        sink: impl FnOnce(&[&[u8]]) -> usize,
        waker: &Waker,
    ) -> Poll<Result<ReadOutcome, FlowError>> {
        let over = self.ended().is_some();
        let Some(flow) = self.flows.get_mut(&id) else { return Poll::Ready(Err(FlowError::TunnelEnded)) };
        let Body::Stream(stream) = &mut flow.body else { return Poll::Ready(Err(FlowError::Finished)) };
        if stream.unread.is_empty() {
            if let Some(why) = flow.reset {
                return Poll::Ready(Err(FlowError::Reset(why)));
            }
            if stream.fin_received {
                return Poll::Ready(Ok(ReadOutcome::End));
            }
            if over {
                return Poll::Ready(Err(FlowError::TunnelEnded));
            }
            flow.readers.register(waker);
            return Poll::Pending;
        }
        let taken = stream.unread.drain(sink, &mut self.pool);
        if taken == 0 {
            // As beyond a full window of TCP: nobody would have received it.
            if let Some(why) = flow.reset {
                return Poll::Ready(Err(FlowError::Reset(why)));
            }
            flow.readers.register(waker);
            return Poll::Pending;
        }
        // What is left of all windows is for new flows. Behind the last byte nothing grows.
        let ended = stream.fin_received || flow.reset.is_some();
        let most = if ended { 0 } else { self.limits.total_window / 4 * 3 };
        let allowance = most.saturating_sub(self.promised);
        let taken_u32 = u32::try_from(taken).unwrap_or(u32::MAX);
        let change = stream.window.consume(taken_u32, &self.inflow, &self.limits, allowance);
        self.promised = self.promised.saturating_add_signed(change);
        if !ended && stream.window.rides() {
            let (home, owed) = (&mut self.lanes[HOME], stream.window.owes());
            if !std::mem::replace(&mut stream.credit_listed, true) {
                home.credits.push_back(id);
            }
            if owed && !std::mem::replace(&mut home.credit_due, true) {
                self.wake_driver();
            }
        }
        Poll::Ready(Ok(ReadOutcome::Bytes(taken)))
    }

    /// Queues as much of `bytes` as there is room for, at least one byte unless `bytes` is empty.
    pub fn poll_write(&mut self, id: FlowId, bytes: &[u8], waker: &Waker) -> Poll<Result<usize, FlowError>> {
        let (most, closing) = (self.send_queue(), self.life != Life::Open);
        let (stream, writers) = writable(self.flows.get_mut(&id), closing)?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = most.saturating_sub(stream.unsent.len()).min(bytes.len());
        if room == 0 {
            writers.register(waker);
            return Poll::Pending;
        }
        stream.unsent.push(&bytes[..room], &mut self.pool);
        self.unsent += room;
        self.schedule(id);
        Poll::Ready(Ok(room))
    }

    /// Lets `fill` put bytes into the queue, once half of it is free; it says how many there are. Nothing is queued when it
    /// has none. That nothing can be written any more is an error only when there is something to write.
    pub fn poll_fill(
        &mut self,
        id: FlowId,
        fill: impl FnOnce(&mut [u8]) -> usize,
        waker: &Waker,
    ) -> Poll<Result<usize, FlowError>> {
        let (most, closing) = (self.send_queue(), self.life != Life::Open);
        let (stream, writers) = match writable(self.flows.get_mut(&id), closing) {
            Ok(found) => found,
            Err(error) => {
                let lost = Chunks::default().fill(most, fill, &mut self.pool);
                return Poll::Ready(if lost > 0 { Err(error) } else { Ok(0) });
            }
        };
        let room = most.saturating_sub(stream.unsent.len());
        if room == 0 || room < most / 2 {
            writers.register(waker);
            return Poll::Pending;
        }
        let filled = stream.unsent.fill(room, fill, &mut self.pool);
        self.unsent += filled;
        if filled > 0 {
            self.schedule(id);
        }
        Poll::Ready(Ok(filled))
    }

    /// Bytes that a flow may queue now.
    fn send_queue(&self) -> usize {
        let crowded = self.unsent >= self.limits.total_send_queue;
        if crowded { self.limits.crowded_send_queue } else { self.limits.send_queue }
    }

    /// Ready when the other side reads the stream no more.
    pub fn poll_stopped(&mut self, id: FlowId, waker: &Waker) -> Poll<Result<(), FlowError>> {
        let over = self.ended().is_some();
        let Some(flow) = self.flows.get_mut(&id).filter(|_| !over) else {
            return Poll::Ready(Err(FlowError::TunnelEnded));
        };
        if let Some(why) = flow.reset {
            return Poll::Ready(Err(FlowError::Reset(why)));
        }
        match &flow.body {
            Body::Stream(stream) if !stream.stopped => {
                flow.writers.register(waker);
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Half-close: FIN follows the queued bytes. Idempotent.
    pub fn finish(&mut self, id: FlowId) -> Result<(), FlowError> {
        let over = self.ended().is_some();
        let Some(flow) = self.flows.get_mut(&id) else { return Err(FlowError::TunnelEnded) };
        if let Some(why) = flow.reset {
            return Err(FlowError::Reset(why));
        }
        let Body::Stream(stream) = &mut flow.body else { return Err(FlowError::Finished) };
        if stream.fin == Fin::None {
            if over {
                return Err(FlowError::TunnelEnded);
            }
            stream.fin = if stream.stopped { Fin::Sent } else { Fin::Pending };
            flow.writers.wake();
            self.schedule(id);
        }
        Ok(())
    }
}

/// The stream of a flow that may be written to, and who waits for room in it.
fn writable(flow: Option<&mut Flow>, closing: bool) -> Result<(&mut Stream, &mut Waiters), FlowError> {
    let flow = flow.ok_or(FlowError::TunnelEnded)?;
    if let Some(why) = flow.reset {
        return Err(FlowError::Reset(why));
    }
    match &mut flow.body {
        _ if closing => Err(FlowError::TunnelEnded),
        Body::Stream(stream) if stream.fin != Fin::None => Err(FlowError::Finished),
        Body::Stream(stream) if stream.stopped => Err(FlowError::Stopped),
        Body::Stream(stream) => Ok((stream, &mut flow.writers)),
        Body::Datagrams(_) => Err(FlowError::Finished),
    }
}
