//! Sending and receiving datagrams.

use std::task::{Poll, Waker};

use bytes::Bytes;

use super::{Connection, Life};
use crate::{
    Refusal,
    proto::{
        flow::Body,
        frame::{FlowId, MAX_PAYLOAD},
    },
};

impl Connection {
    /// Queues one datagram; one that is too long is refused as [`Refusal::Unsupported`].
    pub fn poll_send(&mut self, id: FlowId, datagram: &Bytes, waker: &Waker) -> Poll<Result<(), Refusal>> {
        if datagram.len() > MAX_PAYLOAD {
            return Poll::Ready(Err(Refusal::Unsupported));
        }
        let crowded = self.unsent >= self.limits.total_send_queue;
        let closing = self.life != Life::Open;
        let Some(flow) = self.flows.get_mut(&id) else { return Poll::Ready(Err(Refusal::Closed)) };
        if let Some(why) = flow.reset {
            return Poll::Ready(Err(why));
        }
        let Body::Datagrams(queues) = &mut flow.body else { return Poll::Ready(Err(Refusal::Unsupported)) };
        if closing {
            return Poll::Ready(Err(Refusal::Closed));
        }
        // Not even room for one each: like a full interface queue, it drops.
        if crowded {
            return Poll::Ready(Ok(()));
        }
        let full = queues.unsent.len() >= self.limits.datagrams
            || queues.unsent_bytes + datagram.len() > self.limits.datagram_bytes;
        if full {
            flow.writers.register(waker);
            return Poll::Pending;
        }
        queues.unsent_bytes += datagram.len();
        self.unsent += datagram.len();
        queues.unsent.push_back(datagram.clone());
        self.schedule(id);
        Poll::Ready(Ok(()))
    }

    /// The next datagram, after the last one why the flow ended.
    pub fn poll_recv(&mut self, id: FlowId, waker: &Waker) -> Poll<Result<Bytes, Refusal>> {
        let over = self.ended().is_some();
        let Some(flow) = self.flows.get_mut(&id) else { return Poll::Ready(Err(Refusal::Closed)) };
        let Body::Datagrams(queues) = &mut flow.body else { return Poll::Ready(Err(Refusal::Unsupported)) };
        if let Some(datagram) = queues.unread.pop_front() {
            queues.unread_bytes -= datagram.len();
            self.datagram_bytes -= datagram.len();
            return Poll::Ready(Ok(datagram));
        }
        if let Some(why) = flow.reset {
            return Poll::Ready(Err(why));
        }
        if over {
            return Poll::Ready(Err(Refusal::Closed));
        }
        flow.readers.register(waker);
        Poll::Pending
    }

    /// The flow ends with this cause once the queued datagrams have left; the handle's [`Self::release`] follows.
    pub fn close_datagrams(&mut self, id: FlowId, why: Refusal) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if let Body::Datagrams(_) = &flow.body {
            flow.closing = Some(why);
        }
    }
}
