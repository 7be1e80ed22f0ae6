//! The link to the agent: carrier, tunnel, control flow and file flow, made again after a loss.
//!
//! [`Connected::dial`] makes one; [`run`] keeps one alive for as long as the session lives. What the agent shall do
//! (ports, readiness, splice targets) is *state* here, said again to whatever agent answers next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use devproxy_capture::Capture;
use devproxy_cluster::{AgentPod, Connection, Placed, Purpose, find_agent, portforward, stand_in_is_gone};
use devproxy_namespaces::Namespaces;
use devproxy_tunnel::{
    Carrier, Flow, Incoming, Open, Role, SessionKey, Tunnel, TunnelId,
    control::{self, Facts, FromAgent, PodPort, RootState, SCHEMA, ToAgent},
};
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Failure,
    failure::chain,
    session::{protocol::Status, shared::Shared},
};

/// How long a fresh agent has until its first answer, from its container's start.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How long one attempt (port-forward, handshake, facts) may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// The same while the pod is not said to run: the answer to a question asked too early may never come.
const EARLY_ATTEMPT: Duration = Duration::from_secs(2);
/// So long a pod mostly takes to start: no pause grows before.
const EAGER: Duration = Duration::from_secs(3);
/// Longest pause between attempts while the pod is not said to run.
const EARLY_PAUSE: Duration = Duration::from_millis(500);
/// Pause between attempts, first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// How long the agent has to answer a command.
const COMMAND: Duration = Duration::from_secs(10);
/// How long a line about a lost agent waits for the answer whether it was lost with its stand-in.
const GLANCE: Duration = Duration::from_secs(1);
/// Attempts at the lane for bulk; a session works without.
const BULK_ATTEMPTS: u32 = 5;

/// Where the agent is and how to prove that we are its laptop.
#[derive(Clone)]
pub struct Address {
    /// API connection.
    pub connection: Connection,
    /// Namespace of the stand-in.
    pub namespace: String,
    /// Name of the stand-in, by which its newest pod is found.
    pub stand_in: String,
    /// Session id (label of the pod).
    pub session: String,
    /// The container that the agent replaces.
    pub container: String,
    /// The agent's tunnel port on the pod's loopback.
    pub tunnel_port: u16,
    /// Session key.
    pub key: SessionKey,
}

/// A tunnel whose agent has said its facts.
pub struct Connected {
    /// Name of the agent's pod.
    pub pod: String,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// What the agent knows.
    pub facts: Facts,
    /// The first state of the pod's files.
    pub volumes: Vec<RootState>,
    /// To the agent and back.
    pub round_trip: Duration,
    /// When the carrier was there.
    pub carried: Instant,
    incoming: Incoming,
    from_agent: ReadHalf<Flow>,
    to_agent: WriteHalf<Flow>,
    /// Brings changes of the files.
    files: Flow,
    /// Drives the tunnel; ends with it.
    driver: JoinSet<()>,
}

impl Connected {
    /// First connection: tried from the moment when the pod has a node, because the agent answers up to a second
    /// before the kubelet says that it runs; and until [`FIRST_ANSWER`] after that. Never resolves without a pod.
    pub async fn first(
        address: &Address,
        mut placed: watch::Receiver<Option<Placed>>,
    ) -> Result<(AgentPod, Self), Failure> {
        let mut pause = RETRY.0;
        let mut deadline = None;
        let mut eager = None;
        loop {
            let now = placed.wait_for(Option::is_some).await.ok().and_then(|placed| placed.clone());
            let Some(Placed { pod, running }) = now else { return std::future::pending().await };
            if running && deadline.is_none() {
                deadline = Some(Instant::now() + FIRST_ANSWER);
                pause = RETRY.0;
            }
            let (limit, longest) = if running { (ATTEMPT, RETRY.1) } else { (EARLY_ATTEMPT, EARLY_PAUSE) };
            match Self::dial(address, &pod.name, &pod.roots(), limit).await {
                Ok(connected) => return Ok((pod, connected)),
                Err(failure)
                    if is_final(&failure) || deadline.is_some_and(|end| Instant::now() + pause > end) =>
                {
                    return Err(failure);
                }
                Err(failure) => tracing::debug!(%failure, "the agent does not answer yet"),
            }
            // News of the pod are worth another question at once.
            if let Ok(Err(_)) = timeout(pause, placed.changed()).await {
                return std::future::pending().await;
            }
            if eager.get_or_insert_with(Instant::now).elapsed() > EAGER {
                pause = (pause * 3 / 2).min(longest);
            }
        }
    }

    /// One attempt. Cancel-safe: what was made is dropped.
    async fn dial(address: &Address, pod: &str, roots: &[String], limit: Duration) -> Result<Self, Failure> {
        timeout(limit, Self::attempt(address, pod, roots)).await.unwrap_or_else(|_| {
            Err(tunnel_failure(format!("no answer from the agent within {} s", limit.as_secs())))
        })
    }

    async fn attempt(address: &Address, pod: &str, roots: &[String]) -> Result<Self, Failure> {
        let stream = portforward(&address.connection, pod, address.tunnel_port, Purpose::Interactive).await?;
        let carried = Instant::now();
        let id = TunnelId(random());
        let carrier = Carrier::handshake(stream, Role::Laptop, &address.key, id)
            .await
            .map_err(|e| tunnel_failure(chain(&e)))?;
        let (tunnel, incoming, driving) = Tunnel::new(Role::Laptop, carrier);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = driving.await {
                tracing::info!(error = chain(&error), "tunnel ended");
            }
        });
        // Side by side: each answer is a round trip.
        let asked = Instant::now();
        let files = Open::Files { roots: roots.to_vec() };
        let (control, mut files) =
            tokio::try_join!(tunnel.open(Open::Control), tunnel.open(files)).map_err(tunnel_failure)?;
        let round_trip = asked.elapsed();
        let (mut from_agent, to_agent) = tokio::io::split(control);
        let facts = match control::read(&mut from_agent).await.map_err(|e| tunnel_failure(chain(&e)))? {
            FromAgent::Facts(facts) => *facts,
            other => return Err(tunnel_failure(format!("the agent began with {other:?}"))),
        };
        if facts.schema != SCHEMA {
            return Err(tunnel_failure(format!("the agent speaks version {}, not {SCHEMA}", facts.schema))
                .hint("build the agent image from the same version as this devproxy"));
        }
        let mut states: BTreeMap<&str, Option<RootState>> =
            roots.iter().map(|root| (root.as_str(), None)).collect();
        while states.values().any(Option::is_none) {
            let state: RootState = control::read(&mut files).await.map_err(|e| tunnel_failure(chain(&e)))?;
            if let Some(known) = states.get_mut(state.root()) {
                *known = Some(state);
            }
        }
        let volumes = states.into_values().flatten().collect();
        driver.spawn(bulk_lane(address.clone(), pod.to_owned(), id, tunnel.clone()));
        let pod = pod.to_owned();
        Ok(Self {
            pod,
            tunnel,
            facts,
            volumes,
            round_trip,
            carried,
            incoming,
            from_agent,
            to_agent,
            files,
            driver,
        })
    }

    /// What `devproxy status` says of it.
    pub fn tell(&self, status: &mut Status) {
        status.pod = Some(self.pod.clone());
        status.round_trip = Some(self.round_trip.as_secs_f64() * 1000.0);
    }
}

/// Adds the lane for bulk to a tunnel that works without. Tried a few times: a gateway may limit connections.
async fn bulk_lane(address: Address, pod: String, id: TunnelId, tunnel: Tunnel) {
    let mut pause = RETRY.0;
    for _ in 0..BULK_ATTEMPTS {
        let attempt = async {
            let stream = portforward(&address.connection, &pod, address.tunnel_port, Purpose::Bulk).await?;
            let carrier = Carrier::handshake_lane(stream, Role::Laptop, &address.key, id, 1)
                .await
                .map_err(|e| tunnel_failure(chain(&e)))?;
            tunnel.attach(carrier).await.map_err(tunnel_failure)
        };
        match timeout(ATTEMPT, attempt).await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => tracing::info!(%failure, "no lane for bulk"),
            Err(_) => tracing::info!("no lane for bulk within 10 s"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Whether the API server will not allow it the next time either.
fn is_final(failure: &Failure) -> bool {
    matches!(failure.code.as_str(), "DP-FORBIDDEN" | "DP-REFUSED" | "DP-LOGIN")
}

fn tunnel_failure(cause: impl std::fmt::Display) -> Failure {
    Failure::new("DP-TUNNEL", format!("tunnel to the agent: {cause}"))
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Only tells tunnels of one session apart; the key proves who we are.
    RandomState::new().hash_one(std::process::id())
}

/// What the agent shall do; sent whole to each new agent.
#[derive(Debug, Clone, Default)]
struct Desired {
    ports: Vec<PodPort>,
    ready: bool,
    splice: Option<Vec<IpAddr>>,
    /// The agent knows where to: from now on it needs us no more, and its pod leaves.
    spliced: bool,
}

/// A command and where its answer goes.
type Command = (ToAgent, oneshot::Sender<FromAgent>);

/// Commands to the agent, whichever it is.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    commands: mpsc::Sender<Command>,
}

impl AgentHandle {
    /// Opens the readiness port. It stays open: the end of its pod takes the agent out of its Services.
    pub async fn ready(&self) -> Result<(), Failure> {
        match self.command(ToAgent::Ready).await? {
            FromAgent::Ready { failed: None } => Ok(()),
            FromAgent::Ready { failed: Some(cause) } => {
                Err(Failure::new("DP-AGENT", format!("the agent {cause}")))
            }
            other => Err(tunnel_failure(format!("unexpected answer {other:?}"))),
        }
    }

    /// Sends held and new connections to these pods.
    pub async fn splice(&self, targets: Vec<IpAddr>) -> Result<(), Failure> {
        self.command(ToAgent::Splice(targets)).await.map(|_| ())
    }

    /// Makes the port table the agent's; the answer names ports that could not be opened.
    pub async fn listen(&self, ports: &BTreeSet<PodPort>) -> Result<Vec<(PodPort, String)>, Failure> {
        match self.command(ToAgent::Listen(ports.iter().copied().collect())).await? {
            FromAgent::Listening { failed } => Ok(failed),
            other => Err(tunnel_failure(format!("unexpected answer {other:?}"))),
        }
    }

    /// Whether the link has ended with the session.
    pub fn is_over(&self) -> bool {
        self.commands.is_closed()
    }

    async fn command(&self, command: ToAgent) -> Result<FromAgent, Failure> {
        let (answer, answered) = oneshot::channel();
        let wait = async {
            self.commands
                .send((command, answer))
                .await
                .map_err(|_| tunnel_failure("the session is ending"))?;
            answered.await.map_err(|_| tunnel_failure("lost while the agent was asked"))
        };
        timeout(COMMAND, wait)
            .await
            .unwrap_or_else(|_| Err(tunnel_failure("the agent did not answer within 10 s")))
    }
}

/// What [`run`] needs besides the connection.
pub struct Context {
    /// Where the agent is.
    pub address: Address,
    /// Takes inbound flows and the new tunnel.
    pub capture: Capture,
    /// Takes changed files.
    pub namespaces: Arc<Namespaces>,
    /// File roots in the pod.
    pub roots: Vec<String>,
    /// Status, and notices to the user.
    pub shared: Shared,
}

impl Context {
    /// Whether no other agent will come: the stand-in was deleted, and who watches it ends the session and says so.
    async fn is_over(&self) -> bool {
        let look = stand_in_is_gone(&self.address.connection, &self.address.stand_in);
        let over = timeout(GLANCE, look).await.unwrap_or(false);
        if over {
            self.shared.look.notify_one();
        }
        over
    }

    /// Brings a root of the shell to a new state; else its path, and why it stays as it was.
    async fn refresh(&self, state: RootState) -> Result<(), (String, String)> {
        match state {
            RootState::Tree(tree) => {
                self.namespaces.refresh(&tree).await.map_err(|error| (tree.root, chain(&error)))
            }
            RootState::Unreadable { root, cause } => Err((root, cause)),
        }
    }
}

/// A handle and the future that keeps the link alive until it is dropped, or lost after the splice.
pub fn keep(
    context: Context,
    connected: Connected,
) -> (AgentHandle, impl Future<Output = ()> + Send + 'static) {
    let (commands, queue) = mpsc::channel(16);
    (AgentHandle { commands }, run(context, connected, queue))
}

async fn run(context: Context, mut connected: Connected, mut commands: mpsc::Receiver<Command>) {
    let mut desired = Desired::default();
    loop {
        serve(&context, connected, &mut commands, &mut desired).await;
        if desired.spliced {
            return;
        }
        let ending = desired.is_ending() || context.is_over().await;
        if !ending {
            context.shared.outlet.notice("the connection to the cluster is lost; connecting again").await;
        }
        let lost = Instant::now();
        connected = again(&context, &desired).await;
        desired.spliced = desired.is_ending();
        context.shared.update(|status| {
            status.reconnects += 1;
            connected.tell(status);
        });
        context.capture.set_tunnel(connected.tunnel.clone());
        let seconds = lost.elapsed().as_secs_f64();
        if !ending {
            let text = format!("connected again after {seconds:.1} s; open connections were reset");
            context.shared.outlet.notice(&text).await;
        }
    }
}

/// Until the tunnel ends.
async fn serve(
    context: &Context,
    connected: Connected,
    commands: &mut mpsc::Receiver<Command>,
    desired: &mut Desired,
) {
    let Connected { tunnel, mut incoming, from_agent, mut to_agent, files, driver: _driver, .. } = connected;
    // Readers are not cancel-safe, so each has a task; they end with this function.
    let mut readers = JoinSet::new();
    let mut answers = forward(&mut readers, from_agent);
    let mut states = forward(&mut readers, files);
    let mut waiting: Option<oneshot::Sender<FromAgent>> = None;
    loop {
        tokio::select! {
            request = incoming.next() => match request {
                Some(request) => context.capture.inbound(request),
                None => return,
            },
            answer = answers.recv() => match answer {
                Some(FromAgent::Terminating) => if !desired.is_ending() && !context.is_over().await {
                    context.shared.outlet.notice("the agent's pod is being deleted; waiting for its successor").await;
                }
                Some(answer) => if let Some(waiting) = waiting.take() {
                    desired.spliced = desired.is_ending();
                    let _ = waiting.send(answer);
                },
                None => return,
            },
            // The file flow may end before the tunnel does.
            Some(state) = states.recv() => if let Err((root, cause)) = context.refresh(state).await {
                context.shared.outlet.notice(&format!("`{root}` changed in the pod but not here: {cause}")).await;
            },
            // One command at a time: its answer is the next message.
            command = commands.recv(), if waiting.is_none() => match command {
                Some((command, answer)) => {
                    desired.remember(&command);
                    if control::write(&mut to_agent, &command).await.is_err() {
                        return;
                    }
                    waiting = Some(answer);
                }
                None => return,
            },
            () = tunnel.closed() => return,
        }
    }
}

impl Desired {
    fn remember(&mut self, command: &ToAgent) {
        match command {
            ToAgent::Listen(ports) => self.ports.clone_from(ports),
            ToAgent::Ready => self.ready = true,
            ToAgent::Splice(targets) => self.splice = Some(targets.clone()),
        }
    }

    /// What is held goes to the original again: the pod leaves by our own will.
    fn is_ending(&self) -> bool {
        self.splice.is_some()
    }

    fn commands(&self) -> Vec<ToAgent> {
        let mut commands = vec![ToAgent::Listen(self.ports.clone())];
        commands.extend(self.ready.then_some(ToAgent::Ready));
        commands.extend(self.splice.clone().map(ToAgent::Splice));
        commands
    }
}

/// Messages of a flow as a queue; it ends with the flow.
fn forward<T, R>(tasks: &mut JoinSet<()>, mut from: R) -> mpsc::Receiver<T>
where
    T: serde::de::DeserializeOwned + Send + 'static,
    R: tokio::io::AsyncRead + Unpin + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(4);
    tasks.spawn(async move {
        while let Ok(message) = control::read(&mut from).await {
            if sender.send(message).await.is_err() {
                break;
            }
        }
    });
    receiver
}

/// Connects again, for as long as it takes; the session's end drops this.
async fn again(context: &Context, desired: &Desired) -> Connected {
    let mut pause = RETRY.0;
    loop {
        match attempt(context, desired).await {
            Ok(connected) => return connected,
            Err(failure) => tracing::info!(%failure, "connecting again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn attempt(context: &Context, desired: &Desired) -> Result<Connected, Failure> {
    let address = &context.address;
    let pod: AgentPod = timeout(
        ATTEMPT,
        find_agent(&address.connection, &address.namespace, &address.session, &address.container),
    )
    .await
    .map_err(|_| tunnel_failure("the API server does not answer"))??
    .ok_or_else(|| tunnel_failure(format!("no pod of `{}` runs", address.stand_in)))?;
    let mut connected = Connected::dial(address, &pod.name, &context.roots, ATTEMPT).await?;
    for state in std::mem::take(&mut connected.volumes) {
        // A new pod has a new token; the old one died with the old pod.
        if let Err((root, cause)) = context.refresh(state).await {
            tracing::warn!(root, cause, "file not refreshed");
        }
    }
    // An agent that does not take this over is left for the next attempt: its late answers would be taken for those
    // to other commands.
    repeat(&mut connected, desired).await?;
    Ok(connected)
}

async fn repeat(connected: &mut Connected, desired: &Desired) -> Result<(), Failure> {
    for command in desired.commands() {
        control::write(&mut connected.to_agent, &command).await.map_err(|e| tunnel_failure(chain(&e)))?;
        let answer = async {
            while let FromAgent::Terminating = control::read(&mut connected.from_agent).await? {}
            Ok(())
        };
        timeout(COMMAND, answer)
            .await
            .map_err(|_| tunnel_failure("the agent did not answer within 10 s"))?
            .map_err(|e: control::MessageError| tunnel_failure(chain(&e)))?;
    }
    Ok(())
}
