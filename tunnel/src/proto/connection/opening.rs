//! Opening flows and answering opens.

use std::task::{Poll, Waker};

use super::{Connection, Life};
use crate::{
    Open, Refusal,
    proto::{
        flow::{Body, Fin, Flow, Phase},
        frame::{FlowId, MAX_META, ResetCode},
        lane::{Control, HOME},
    },
};

/// Opens that wait for the carrier; more means that it stands still.
const MOST_QUEUED: usize = 16_384;

impl Connection {
    /// Queues an OPEN. [`Self::poll_answer`] tells the answer; [`Self::release`] takes it back.
    pub fn open(&mut self, open: &Open) -> Result<FlowId, Refusal> {
        if self.life != Life::Open || self.lanes.iter().any(|lane| lane.goaway) {
            return Err(Refusal::Closed);
        }
        let Ok(meta) = postcard::to_stdvec(open) else { return Err(Refusal::Unsupported) };
        if meta.len() > MAX_META {
            return Err(Refusal::Unsupported);
        }
        let home = self.lanes.get(HOME).ok_or(Refusal::Closed)?;
        if self.mine >= self.limits.flows || home.control.len() >= MOST_QUEUED {
            return Err(Refusal::Overloaded);
        }
        let id = self.next;
        // Ids are never used twice; after two thousand million opens the tunnel has to be renewed.
        self.next = FlowId(id.0.checked_add(2).ok_or(Refusal::Overloaded)?);
        let datagrams = open.is_datagram();
        let window = if datagrams { 0 } else { self.promise_window() };
        let mut flow = Flow::new(true, Phase::Opening { sent: false }, datagrams, window);
        flow.meta = meta;
        self.insert(id, flow);
        self.control(Control::Open(id));
        Ok(id)
    }

    /// The answer to an open. After a refusal the flow is gone.
    pub fn poll_answer(&mut self, id: FlowId, waker: &Waker) -> Poll<Result<(), Refusal>> {
        let ended = self.ended().is_some();
        let Some(flow) = self.flows.get_mut(&id) else { return Poll::Ready(Err(Refusal::Closed)) };
        match flow.phase {
            Phase::Live => Poll::Ready(Ok(())),
            Phase::Refused(why) => {
                self.retire(id);
                Poll::Ready(Err(why))
            }
            _ if ended => {
                self.retire(id);
                Poll::Ready(Err(Refusal::Closed))
            }
            Phase::Opening { .. } | Phase::Requested => {
                flow.readers.register(waker);
                Poll::Pending
            }
        }
    }

    /// The next open of the other side, `None` when there will be no more.
    pub fn poll_request(&mut self, waker: &Waker) -> Poll<Option<(FlowId, Open)>> {
        if self.life != Life::Open {
            return Poll::Ready(None);
        }
        while let Some(id) = self.requests.pop_front() {
            let meta = self.flows.get_mut(&id).map(|flow| std::mem::take(&mut flow.meta)).unwrap_or_default();
            if let Ok(open) = postcard::from_bytes(&meta) {
                return Poll::Ready(Some((id, open)));
            }
        }
        self.request_waiters.register(waker);
        Poll::Pending
    }

    /// Nobody takes requests any more: those that wait and all later ones are refused.
    pub fn refuse_requests(&mut self) {
        self.deaf = true;
        while let Some(id) = self.requests.pop_front() {
            self.refuse(id, Refusal::Closed);
        }
    }

    /// Answers *connected*. A request that the other side took back becomes a flow that is reset.
    pub fn accept(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if flow.phase != Phase::Requested || flow.reset.is_some() {
            return;
        }
        flow.phase = Phase::Live;
        flow.unanswered = true;
        let window = match &flow.body {
            Body::Stream(stream) => stream.window.size(),
            Body::Datagrams(_) => 0,
        };
        self.control(Control::Answer(id, Ok(window)));
    }

    /// Answers with the reason; the flow is gone.
    pub fn refuse(&mut self, id: FlowId, why: Refusal) {
        let Some(flow) = self.flows.get(&id) else { return };
        let taken_back = flow.reset.is_some();
        self.retire(id);
        if !taken_back {
            self.control(Control::Answer(id, Err(why)));
        }
    }

    /// Resolves when the other side took its open back, or the tunnel ended.
    pub fn poll_cancelled(&mut self, id: FlowId, waker: &Waker) -> Poll<()> {
        if self.is_over(id) {
            return Poll::Ready(());
        }
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.readers.register(waker);
        }
        Poll::Pending
    }

    /// Whether nothing more can arrive for the flow: the other side reset it, or took its open back, or the tunnel ended.
    pub fn is_over(&self, id: FlowId) -> bool {
        self.ended().is_some() || self.flows.get(&id).is_none_or(|flow| flow.reset.is_some())
    }

    /// The flow's handle is gone. What was finished still leaves; what was not is reset behind what the other side has
    /// given credit for.
    pub fn release(&mut self, id: FlowId) {
        let over = self.ended().is_some();
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if over || flow.reset.is_some() {
            return self.retire(id);
        }
        if flow.orphan {
            return;
        }
        let reset = match (&mut flow.body, flow.phase) {
            (_, Phase::Opening { sent: false } | Phase::Refused(_)) => None,
            (_, Phase::Opening { sent: true }) => Some(ResetCode::Abort(Refusal::Closed)),
            (_, Phase::Requested) => return self.refuse(id, Refusal::Closed),
            (Body::Stream(stream), Phase::Live) => match stream.fin {
                Fin::None => return self.abort(id),
                Fin::Sent if stream.fin_received => None,
                Fin::Sent => Some(ResetCode::Stop),
                // Data and FIN still leave; the scheduler retires it then.
                Fin::Pending => {
                    flow.orphan = true;
                    stream.unread.clear();
                    if !stream.fin_received {
                        self.reset_frame(id, ResetCode::Stop);
                    }
                    return;
                }
            },
            (Body::Datagrams(_), Phase::Live) => {
                flow.orphan = true;
                flow.closing.get_or_insert(Refusal::Closed);
                return self.schedule(id);
            }
        };
        self.retire(id);
        if let Some(code) = reset {
            self.reset_frame(id, code);
        }
    }

    /// Ends a live stream: what the other side's window lets pass still arrives, and then the RESET.
    fn abort(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = flow.unsent();
        if let Body::Stream(stream) = &mut flow.body {
            stream.unread.clear();
            stream.unsent.truncate(usize::try_from(stream.credit).unwrap_or(usize::MAX));
        }
        flow.orphan = true;
        flow.closing.get_or_insert(Refusal::Closed);
        self.unsent -= before - flow.unsent();
        self.schedule(id);
    }
}
