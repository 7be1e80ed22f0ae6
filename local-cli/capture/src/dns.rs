//! DNS over UDP: questions of any number of programs to one nameserver of the pod share one socket here and one flow in
//! the tunnel. Messages pass raw but for their id, so every record type and extension is the pod's; a question whose
//! answer is still true is answered from here. DNS over TCP is outbound TCP.

mod cache;
mod exchanges;
mod lines;
mod message;

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use devproxy_tunnel::{Open, Refusal};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use self::{
    cache::Cache,
    exchanges::Exchanges,
    lines::{Lines, Said},
};
use crate::{counters::Counters, dial::Dialler, local::names::LocalQuestion, pool::Pool, raw::Raw};

/// Messages that wait for their turn.
const WAITING: usize = 256;
const SWEEP: Duration = Duration::from_secs(2);
/// Questions for listed names that are being resolved on the laptop.
const LOCAL: usize = 128;

/// What a nameserver shares with the other parts of its side.
pub(crate) struct Side {
    pub(crate) namespace: devproxy_namespaces::Side,
    pub(crate) raw: Arc<Raw>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) dialler: Dialler,
    pub(crate) counters: Arc<Counters>,
}

/// One nameserver as one side sees it. Dropping it ends its flows.
pub(crate) struct NameServer {
    questions: mpsc::Sender<(SocketAddr, Bytes)>,
    _task: JoinSet<()>,
}

impl NameServer {
    pub(crate) fn new(address: SocketAddr, side: Side) -> Self {
        let (questions, waiting) = mpsc::channel(WAITING);
        let mut task = JoinSet::new();
        task.spawn(Server::new(address, side).run(waiting));
        Self { questions, _task: task }
    }

    /// Forwards one message of `program`. Dropped when too many wait; a resolver asks again.
    pub(crate) fn ask(&self, program: SocketAddr, message: Bytes) {
        let _ = self.questions.try_send((program, message));
    }
}

struct Server {
    address: SocketAddr,
    side: Side,
    /// For the answers to every program: bound to the nameserver's address, unconnected, so that the catcher goes on to get
    /// all questions.
    socket: Option<UdpSocket>,
    cache: Cache,
    exchanges: Exchanges,
    lines: Lines,
    local: JoinSet<(SocketAddr, Option<Vec<u8>>)>,
}

impl Server {
    fn new(address: SocketAddr, side: Side) -> Self {
        Self {
            address,
            side,
            socket: None,
            cache: Cache::default(),
            exchanges: Exchanges::new(),
            lines: Lines::default(),
            local: JoinSet::new(),
        }
    }

    async fn run(mut self, mut questions: mpsc::Receiver<(SocketAddr, Bytes)>) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                question = questions.recv() => match question {
                    Some((program, message)) => self.question(program, &message).await,
                    None => return,
                },
                said = poll_fn(|cx| self.lines.poll(cx)) => match said {
                    Said::Answer(message) => self.answer(&message).await,
                    Said::Ended(line, why) => {
                        tracing::debug!(nameserver = %self.address, %why, "DNS flow ended");
                        self.refuse(line, why);
                    }
                },
                Some(answer) = self.local.join_next(), if !self.local.is_empty() => {
                    if let Ok((program, Some(message))) = answer {
                        self.reply(program, &message).await;
                    }
                }
                () = self.side.dialler.next_tunnel() => self.forget(),
                _ = sweep.tick() => {
                    let now = Instant::now();
                    self.cache.expire(now);
                    self.exchanges.expire(now);
                    self.lines.expire(now);
                }
            }
        }
    }

    async fn question(&mut self, program: SocketAddr, message: &[u8]) {
        let counters = &self.side.counters;
        Counters::count(&counters.questions);
        Counters::add(&counters.bytes_out, message.len());
        if self.socket.is_none() {
            match self.side.pool.datagrams(self.side.namespace, self.address, None).await {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => {
                    tracing::warn!(nameserver = %self.address, %error, "no socket to answer DNS from");
                    return;
                }
            }
        }
        if let Some(question) = LocalQuestion::parse(message, &self.side.dialler.routes) {
            if self.local.len() < LOCAL {
                let routes = Arc::clone(&self.side.dialler.routes);
                self.local.spawn(async move { (program, question.answer(&routes).await) });
            }
            return;
        }
        let now = Instant::now();
        if let Some(answer) = self.cache.answer(message, now) {
            Counters::count(&self.side.counters.cached);
            return self.reply(program, &answer).await;
        }
        let (dialler, server) = (&self.side.dialler, self.address);
        let line = self.lines.line(now, || {
            let dialler = dialler.clone();
            async move { dialler.datagrams(Open::Dns { server }).await }
        });
        if let Some(message) = self.exchanges.ask(program, line, message, now) {
            self.lines.ask(message, now);
        }
    }

    async fn answer(&mut self, message: &[u8]) {
        let Some(answer) = self.exchanges.answer(message) else { return };
        self.reply(answer.program, &answer.message).await;
        if let Some(question) = answer.question {
            self.cache.insert(&question, &answer.message, answer.since);
        }
    }

    async fn reply(&mut self, program: SocketAddr, message: &[u8]) {
        let Some(socket) = &self.socket else { return };
        Counters::add(&self.side.counters.bytes_in, message.len());
        if let Err(error) = socket.send_to(message, program).await {
            tracing::trace!(%program, %error, "an answer could not be delivered");
        }
    }

    /// Those who wait on the line are told: a connected resolver socket goes on to the next nameserver at once.
    fn refuse(&mut self, line: u64, why: Refusal) {
        for program in self.exchanges.give_up(line) {
            self.side.raw.refuse_datagram(program, self.address, 0, why);
        }
    }

    /// Another tunnel may lead to another pod, on another node, with another view of the cluster.
    fn forget(&mut self) {
        self.cache.clear();
        for line in self.lines.clear() {
            self.refuse(line, Refusal::Closed);
        }
    }
}
