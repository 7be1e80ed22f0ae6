//! DNS over UDP: questions of any number of programs to one nameserver of the pod share one socket here and a few
//! flows in the tunnel. Messages pass raw but for their id, so every record type and extension is the pod's.
//!
//! A cache would stand in [`Server::question`], before the exchange is noted. DNS over TCP is outbound TCP.

mod exchanges;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use devproxy_tunnel::{Open, Refusal};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::exchanges::Exchanges;
use crate::{
    counters::Counters,
    dial::{Dialler, receive_from},
    local::names::LocalQuestion,
    pool::Pool,
    raw::Raw,
};

/// Messages that wait for their turn.
const WAITING: usize = 256;
/// A flow takes no further questions after this long. kube-proxy pins a socket to one DNS pod; a resolver that asks
/// again after its 5 s shall reach another one, as with a socket per question.
const LINE: Duration = Duration::from_secs(4);
/// Answers are taken this much longer.
const LATE: Duration = Duration::from_secs(10);
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

/// From a line: its number and an answer, or why it ended.
type Returned = (u64, Result<Bytes, Refusal>);

struct Server {
    address: SocketAddr,
    side: Side,
    /// Bound to the nameserver's address, unconnected: the kernel hands it all further questions, of every program.
    socket: Option<Arc<UdpSocket>>,
    exchanges: Exchanges,
    line: Option<Line>,
    lines: JoinSet<()>,
    opened: u64,
    local: JoinSet<(SocketAddr, Option<Vec<u8>>)>,
    returned: mpsc::Sender<Returned>,
}

/// A flow of the tunnel that takes questions.
struct Line {
    number: u64,
    questions: mpsc::Sender<Bytes>,
    until: Instant,
}

impl Server {
    fn new(address: SocketAddr, side: Side) -> Self {
        Self {
            address,
            side,
            socket: None,
            exchanges: Exchanges::new(),
            line: None,
            lines: JoinSet::new(),
            opened: 0,
            local: JoinSet::new(),
            // Replaced in `run`, which owns the receiver.
            returned: mpsc::channel(1).0,
        }
    }

    async fn run(mut self, mut questions: mpsc::Receiver<(SocketAddr, Bytes)>) {
        let (returned, mut answers) = mpsc::channel(WAITING);
        self.returned = returned;
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let socket = self.socket.clone();
            tokio::select! {
                question = questions.recv() => match question {
                    Some((program, message)) => self.question(program, message).await,
                    None => return,
                },
                received = receive(socket.as_deref()) => match received {
                    Ok((message, program)) => self.question(program, message).await,
                    // An ICMP error: the asker has gone. It says nothing about the others.
                    Err(error) => tracing::trace!(%error, "an answer found nobody"),
                },
                Some((line, answer)) = answers.recv() => match answer {
                    Ok(message) => {
                        if let Some((program, message)) = self.exchanges.answer(&message) {
                            self.reply(program, &message).await;
                        }
                    }
                    Err(why) => self.failed(line, why),
                },
                Some(answer) = self.local.join_next(), if !self.local.is_empty() => {
                    if let Ok((program, Some(message))) = answer {
                        self.reply(program, &message).await;
                    }
                }
                Some(_) = self.lines.join_next(), if !self.lines.is_empty() => {}
                _ = sweep.tick() => {
                    let now = Instant::now();
                    self.exchanges.expire(now);
                    if self.line.as_ref().is_some_and(|line| line.until <= now) {
                        self.line = None;
                    }
                }
            }
        }
    }

    async fn question(&mut self, program: SocketAddr, message: Bytes) {
        let counters = &self.side.counters;
        Counters::count(&counters.questions);
        Counters::add(&counters.bytes_out, message.len());
        if self.socket.is_none() {
            match self.side.pool.datagrams(self.side.namespace, self.address, None).await {
                Ok(socket) => self.socket = Some(Arc::new(socket)),
                Err(error) => {
                    tracing::warn!(nameserver = %self.address, %error, "no socket to answer DNS from");
                    return;
                }
            }
        }
        if let Some(question) = LocalQuestion::parse(&message, &self.side.dialler.routes) {
            if self.local.len() < LOCAL {
                let routes = Arc::clone(&self.side.dialler.routes);
                self.local.spawn(async move { (program, question.answer(&routes).await) });
            }
            return;
        }
        let now = Instant::now();
        if self.line.as_ref().is_none_or(|line| line.until <= now || line.questions.is_closed()) {
            self.line = Some(self.open(now));
        }
        let Some(line) = &self.line else { return };
        if let Some(message) = self.exchanges.ask(program, line.number, &message, now) {
            let _ = line.questions.try_send(message);
        }
    }

    fn open(&mut self, now: Instant) -> Line {
        self.opened += 1;
        let number = self.opened;
        let (questions, waiting) = mpsc::channel(WAITING);
        let (dialler, server) = (self.side.dialler.clone(), self.address);
        let returned = self.returned.clone();
        self.lines.spawn(async move {
            let why = carry(&dialler, server, number, waiting, &returned).await;
            if let Err(why) = why {
                // The server itself has gone otherwise.
                let _ = returned.send((number, Err(why))).await;
            }
        });
        Line { number, questions, until: now + LINE }
    }

    async fn reply(&self, program: SocketAddr, message: &[u8]) {
        let Some(socket) = &self.socket else { return };
        Counters::add(&self.side.counters.bytes_in, message.len());
        if let Err(error) = socket.send_to(message, program).await {
            tracing::trace!(%program, %error, "an answer could not be delivered");
        }
    }

    /// Those who wait on the line are told: a connected resolver socket goes on to the next nameserver at once.
    fn failed(&mut self, line: u64, why: Refusal) {
        tracing::debug!(nameserver = %self.address, %why, "DNS flow ended");
        if self.line.as_ref().is_some_and(|current| current.number == line) {
            self.line = None;
        }
        for program in self.exchanges.give_up(line) {
            self.side.raw.refuse_datagram(program, self.address, 0, why);
        }
    }
}

async fn receive(socket: Option<&UdpSocket>) -> std::io::Result<(Bytes, SocketAddr)> {
    match socket {
        Some(socket) => receive_from(socket).await,
        None => std::future::pending().await,
    }
}

/// One flow of the tunnel, until its questions have ended and late answers are in.
async fn carry(
    dialler: &Dialler,
    server: SocketAddr,
    number: u64,
    mut questions: mpsc::Receiver<Bytes>,
    returned: &mpsc::Sender<Returned>,
) -> Result<(), Refusal> {
    let flow = dialler.datagrams(Open::Dns { server }).await?;
    let mut end = None;
    loop {
        tokio::select! {
            question = questions.recv(), if end.is_none() => match question {
                Some(message) => flow.send(message).await?,
                None => end = Some(Instant::now() + LATE),
            },
            answer = flow.recv() => {
                if returned.send((number, Ok(answer?))).await.is_err() {
                    return Ok(());
                }
            }
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => return Ok(()),
        }
    }
}
