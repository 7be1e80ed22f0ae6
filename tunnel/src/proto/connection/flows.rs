//! Reading and writing streams.

use std::task::{Poll, Waker};

use super::{Connection, Life};
use crate::proto::{
    flow::{Body, Fin, FlowError},
    frame::FlowId,
    lane::HOME,
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
    /// Reads up to `most` bytes into `sink`.
    pub fn poll_read(
        &mut self,
        id: FlowId,
        most: usize,
        sink: impl FnMut(&[u8]),
        waker: &Waker,
    ) -> Poll<Result<ReadOutcome, FlowError>> {
        let over = self.ended().is_some();
        let Some(flow) = self.flows.get_mut(&id) else { return Poll::Ready(Err(FlowError::TunnelEnded)) };
        if let Some(why) = flow.reset {
            return Poll::Ready(Err(FlowError::Reset(why)));
        }
        let Body::Stream(stream) = &mut flow.body else { return Poll::Ready(Err(FlowError::Finished)) };
        if stream.unread.is_empty() {
            if stream.fin_received {
                return Poll::Ready(Ok(ReadOutcome::End));
            }
            if over {
                return Poll::Ready(Err(FlowError::TunnelEnded));
            }
            flow.readers.register(waker);
            return Poll::Pending;
        }
        let taken = stream.unread.take(most, sink, &mut self.pool);
        // What is left of all windows is for new flows. Behind the last byte nothing grows.
        let most = if stream.fin_received { 0 } else { self.limits.total_window / 4 * 3 };
        let allowance = most.saturating_sub(self.promised);
        let taken_u32 = u32::try_from(taken).unwrap_or(u32::MAX);
        let change = stream.window.consume(taken_u32, &self.inflow, &self.limits, allowance);
        self.promised = self.promised.saturating_add_signed(change);
        if !stream.fin_received && !stream.credit_listed && stream.window.owes() {
            stream.credit_listed = true;
            self.lanes[HOME].credits.push_back(id);
            self.wake_driver();
        }
        Poll::Ready(Ok(ReadOutcome::Bytes(taken)))
    }

    /// Queues as much of `bytes` as there is room for, at least one byte unless `bytes` is empty.
    pub fn poll_write(&mut self, id: FlowId, bytes: &[u8], waker: &Waker) -> Poll<Result<usize, FlowError>> {
        let crowded = self.unsent >= self.limits.total_send_queue;
        let closing = self.life != Life::Open;
        let most = if crowded { self.limits.crowded_send_queue } else { self.limits.send_queue };
        let Some(flow) = self.flows.get_mut(&id) else { return Poll::Ready(Err(FlowError::TunnelEnded)) };
        if let Some(why) = flow.reset {
            return Poll::Ready(Err(FlowError::Reset(why)));
        }
        if closing {
            return Poll::Ready(Err(FlowError::TunnelEnded));
        }
        let Body::Stream(stream) = &mut flow.body else { return Poll::Ready(Err(FlowError::Finished)) };
        if stream.fin != Fin::None {
            return Poll::Ready(Err(FlowError::Finished));
        }
        if stream.stopped {
            return Poll::Ready(Err(FlowError::Reset(crate::Refusal::Closed)));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = most.saturating_sub(stream.unsent.len()).min(bytes.len());
        if room == 0 {
            flow.writers.register(waker);
            return Poll::Pending;
        }
        stream.unsent.push(&bytes[..room], &mut self.pool);
        self.unsent += room;
        self.schedule(id);
        Poll::Ready(Ok(room))
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
