//! The flows of the tunnel that questions to one nameserver take: one as long as it answers.
//!
//! A flow is a socket in the pod, and kube-proxy pins a socket to one pod of the cluster's DNS. So a line that has left
//! a question unanswered takes no more of them: a resolver that asks again reaches another pod, as it would with its
//! own socket.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use devproxy_tunnel::{Datagrams, Refusal};

/// A question unanswered for so long makes its line the last choice. The first resolver that asks again (musl's) waits
/// for 2.5 s.
const SILENCE: Duration = Duration::from_secs(1);
/// A line without questions for so long takes no more of them: the agent ends it at 60 s, and what crosses that end
/// would be lost.
const IDLE: Duration = Duration::from_secs(45);
/// Answers are taken so long after the last question.
const LATE: Duration = Duration::from_secs(15);
/// Questions that wait for a line to be opened.
const WAITING: usize = 256;

type Opening = Pin<Box<dyn Future<Output = Result<Datagrams, Refusal>> + Send>>;

/// All lines to one nameserver. The last one takes questions.
#[derive(Default)]
pub(super) struct Lines {
    lines: VecDeque<Line>,
    opened: u64,
}

struct Line {
    number: u64,
    state: State,
    /// When it was asked last.
    asked: Instant,
    /// When the first question was asked that has had no answer after it.
    unanswered: Option<Instant>,
}

enum State {
    Opening(Opening, VecDeque<Bytes>),
    Open(Datagrams),
}

/// What a line says.
pub(super) enum Said {
    Answer(Bytes),
    /// It has ended: its number, and why.
    Ended(u64, Refusal),
}

impl Lines {
    /// The number of the line that takes the next question; it is made by `open` where there is none.
    pub(super) fn line<O>(&mut self, now: Instant, open: impl FnOnce() -> O) -> u64
    where
        O: Future<Output = Result<Datagrams, Refusal>> + Send + 'static,
    {
        match self.lines.back() {
            Some(line) if line.takes(now) => line.number,
            _ => {
                self.opened += 1;
                let state = State::Opening(Box::pin(open()), VecDeque::new());
                self.lines.push_back(Line { number: self.opened, state, asked: now, unanswered: None });
                self.opened
            }
        }
    }

    /// Sends a question on the line that is ready. Dropped when too many wait; a resolver asks again.
    pub(super) fn ask(&mut self, question: Bytes, now: Instant) {
        let Some(line) = self.lines.back_mut() else { return };
        line.asked = now;
        line.unanswered.get_or_insert(now);
        match &mut line.state {
            State::Opening(_, waiting) if waiting.len() < WAITING => waiting.push_back(question),
            State::Opening(..) => {}
            State::Open(flow) => offer(flow, question),
        }
    }

    /// What any of them says. Pending while there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Said> {
        for index in 0..self.lines.len() {
            let line = &mut self.lines[index];
            match line.poll(cx) {
                Poll::Ready(Ok(answer)) => return Poll::Ready(Said::Answer(answer)),
                Poll::Ready(Err(why)) => {
                    let number = line.number;
                    self.lines.remove(index);
                    return Poll::Ready(Said::Ended(number, why));
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Ends the lines whose last answers must be in by now. The one that takes questions stays until it is idle.
    pub(super) fn expire(&mut self, now: Instant) {
        let last = self.opened;
        self.lines.retain(|line| {
            let patience = if line.number == last { IDLE + LATE } else { LATE };
            now < line.asked + patience
        });
    }

    /// Ends all; returns their numbers.
    pub(super) fn clear(&mut self) -> Vec<u64> {
        self.lines.drain(..).map(|line| line.number).collect()
    }
}

impl Line {
    fn takes(&self, now: Instant) -> bool {
        self.unanswered.is_none_or(|since| now < since + SILENCE) && now < self.asked + IDLE
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Refusal>> {
        if let State::Opening(opening, waiting) = &mut self.state {
            let flow = ready!(opening.as_mut().poll(cx))?;
            for question in waiting.drain(..) {
                offer(&flow, question);
            }
            self.state = State::Open(flow);
        }
        let State::Open(flow) = &self.state else { return Poll::Pending };
        let answer = ready!(pin!(flow.recv()).poll(cx));
        self.unanswered = None;
        Poll::Ready(answer)
    }
}

/// Sends it, or drops it where the flow's queue is full. That the flow has ended is heard by the next `recv`.
fn offer(flow: &Datagrams, question: Bytes) {
    let _ = pin!(flow.send(question)).poll(&mut Context::from_waker(Waker::noop()));
}

#[cfg(test)]
mod tests;
