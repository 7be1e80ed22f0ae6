//! The session itself: establish, serve, restore.
//!
//! - [`shell`]: namespaces, files, capture and link over a connected agent
//! - [`awaited`]: the ports on which somebody should listen
//! - [`ending`]: hang up what is left in the shell, restore

mod awaited;
mod ending;
mod shell;

pub(crate) use self::ending::{again, describe};

use std::time::{Duration, Instant};

use devproxy_capture::Capture;
use devproxy_cluster::{Connection, Handover, Original, Swap, original_rescaled, stand_in_lost, swap};
use devproxy_tunnel::{SessionKey, control};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};

use self::{awaited::Awaited, shell::Live};
use crate::{
    Failure, embedded,
    session::{
        ahead::Ahead,
        handover::program_ready,
        link::{Address, AgentHandle, Connected},
        outlet::Outlet,
        process::Start,
        protocol::{HANDING_OVER, OPEN, SWAPPED, ShellEntrance, WAITING},
        shared::Shared,
    },
};

/// Lines of the cluster's progress that may wait; more are lost, never time.
const PROGRESS: usize = 64;
/// How long the port table may take to follow the handover; it is computed within one turn of the runtime.
const TABLE_LIMIT: Duration = Duration::from_secs(1);

/// Runs a session to its end; what happens is told through `shared`.
pub async fn session(start: Start, mut ahead: Ahead, shared: &Shared) {
    let connection = match ahead.done(&start.api).await {
        Ok(connection) => connection.in_namespace(&start.plan.namespace),
        Err(failure) => return shared.fail(failure).await,
    };
    let (progress, lines) = mpsc::channel(PROGRESS);
    let mut telling = JoinSet::new();
    telling.spawn(tell(lines, shared.outlet.clone()));
    let mut swap = Swap::begin(&connection, start.plan.clone(), progress);
    let mut live = None;
    let result = tokio::select! {
        biased;
        ending = shared.asked_to_end() => ending.failure().map_or(Ok(()), Err),
        lost = swap.lease_lost() => Err(lost.into()),
        result = async {
            let live = live.insert(establish(&start, &connection, &mut swap, shared).await?);
            tokio::select! {
                lost = stand_in_lost(&connection, &start.plan.stand_in_name, &start.plan.lease, &shared.look) => Err(lost.into()),
                result = serve(&start, &connection, live, &mut swap, shared) => result,
            }
        } => result,
    };
    if let Err(failure) = result {
        shared.fail(failure).await;
    }
    ending::end(&start.plan, live, &mut swap, shared).await;
}

/// The cluster's progress as events.
async fn tell(mut lines: mpsc::Receiver<swap::Progress>, outlet: Outlet) {
    while let Some(line) = lines.recv().await {
        match line {
            swap::Progress::Started(step) => outlet.begun(step.to_string()).await,
            swap::Progress::Undoing(text) => outlet.begun(text).await,
            swap::Progress::Note(text) => outlet.notice(&text).await,
            swap::Progress::Done(..) => {}
        }
    }
}

/// From nothing to a shell that programs may enter.
async fn establish(
    start: &Start,
    connection: &Connection,
    swap: &mut Swap,
    shared: &Shared,
) -> Result<Live, Failure> {
    let plan = &start.plan;
    let key = random_key()?;

    let since = Instant::now();
    let address = Address {
        connection: connection.clone(),
        namespace: plan.namespace.clone(),
        stand_in: plan.stand_in_name.clone(),
        session: plan.session.clone(),
        container: plan.container.clone(),
        tunnel_port: plan.tunnel_port,
        key: key.clone(),
    };
    let first = Box::pin(Connected::first(&address, swap.placed()));
    let (pod, connected) = Box::pin(swap.prepare(&embedded::agents(), key.as_bytes(), first)).await??;
    let image = match (&plan.original, &plan.agent_image) {
        (_, Some(image)) => format!("image {image}"),
        (Some(original), None) => format!("image of {}, nothing pulled", original.name),
        (None, None) => "borrowed image, nothing pulled".to_owned(),
    };
    let text = format!("{} running on {} ({image})", pod.name, pod.node);
    shared.outlet.took("agent", text, connected.carried.into_std() - since).await;
    shared.update(|status| connected.tell(status));
    let text = format!("{:.0} ms to the agent and back", connected.round_trip.as_secs_f64() * 1000.0);
    shared.outlet.took("tunnel", text, connected.carried.elapsed()).await;

    let since = Instant::now();
    shared.outlet.begun("shell").await;
    let live = shell::open(start, address, connected, &pod, shared).await?;
    let facts = &live.facts;
    let place: Vec<_> = facts.addresses.iter().map(ToString::to_string).collect();
    let names: Vec<_> = shell::nameservers(&facts.resolv_conf).iter().map(ToString::to_string).collect();
    let text = format!(
        "env {}, files {}, DNS {}, address {}",
        facts.environment.len(),
        live.files,
        names.join(" "),
        place.join(" ")
    );
    shared.outlet.done("shell", text, since).await;
    Ok(live)
}

/// Serves until something is lost; who asks for the end drops this.
async fn serve(
    start: &Start,
    connection: &Connection,
    live: &mut Live,
    swap: &mut Swap,
    shared: &Shared,
) -> Result<(), Failure> {
    let Live { agent, capture, namespaces, facts, lost, .. } = live;
    let plan = &start.plan;
    let entrance = ShellEntrance {
        helper: namespaces.pid(),
        session: plan.title(),
        id: plan.session.clone(),
        environment: facts.environment.clone(),
    };
    let serving = async {
        let Some(original) = &plan.original else {
            shared.open(entrance, OPEN).await;
            return Ok(());
        };
        if plan.handover == Handover::OnListen {
            let awaited = Awaited::of(plan, &start.options);
            shared.outlet.notice(&awaited.line(original)).await;
            shared.open(entrance, WAITING).await;
            let port = program_ready(capture, namespaces, &plan.ready, &awaited.locals()).await?;
            shared.update(|status| HANDING_OVER.clone_into(&mut status.phase));
            let (since, name) = (Instant::now(), &original.name);
            let by = answered_by(capture, port).await;
            let port_told = awaited.told(port);
            shared
                .outlet
                .notice(&format!("{by} listens on {port_told}: leading {name}'s clients to it"))
                .await;
            hand_over(agent, capture, swap).await?;
            let by = answered_by(capture, port).await;
            let text = format!("{port_told} is answered by {by}; {name} scaled to 0");
            shared.outlet.done("handover", text, since).await;
        } else {
            let since = Instant::now();
            hand_over(agent, capture, swap).await?;
            let text = format!("{} scaled to 0 ({})", original.name, plan.handover_reason);
            shared.outlet.done("handover", text, since).await;
            shared.open(entrance, SWAPPED).await;
        }
        shared.update(|status| SWAPPED.clone_into(&mut status.phase));
        Ok(())
    };
    let serving = async {
        match serving.await {
            Ok(()) => match &plan.original {
                Some(original) => tell_rescaled(connection, original, shared).await,
                None => std::future::pending().await,
            },
            Err(failure) => failure,
        }
    };
    Err(tokio::select! {
        failure = serving => failure,
        failure = lost.recv() => failure.unwrap_or_else(|| Failure::new("DP-SESSION-ENDED", "the session has ended")),
    })
}

/// Says when somebody scales the original, which is at 0: their state wins, but who debugs must know.
async fn tell_rescaled(connection: &Connection, original: &Original, shared: &Shared) -> ! {
    let mut replicas = 0;
    loop {
        replicas = original_rescaled(connection, &original.name, replicas).await;
        shared.update(|status| status.rescaled = (replicas > 0).then_some(replicas));
        let name = &original.name;
        let now = match replicas {
            0 => "all clients are led here again",
            _ => "its pods answer a part of the clients, and stay when the session ends",
        };
        shared.outlet.notice(&format!("{name} was scaled to {replicas} by somebody else: {now}")).await;
    }
}

/// Declared ports open, then readiness, then the cluster's part.
async fn hand_over(agent: &AgentHandle, capture: &Capture, swap: &mut Swap) -> Result<(), Failure> {
    let mut ports = capture.pod_ports();
    let before = ports.borrow_and_update().clone();
    capture.set_handover(true);
    if !swap.plan().ports.is_empty() && *ports.borrow_and_update() == before {
        // The table follows within its next turn. Declared ports may also have been open before (undeclared rules).
        let _ = tokio::time::timeout(TABLE_LIMIT, ports.changed()).await;
    }
    let table = ports.borrow().clone();
    // A link that is lost in this moment is made again, and waited for: the original serves until then.
    while let Err(failure) = async {
        agent.listen(&table).await?;
        agent.ready().await
    }
    .await
    {
        tracing::info!(%failure, "handover");
        tokio::time::sleep(TABLE_LIMIT).await;
    }
    Ok(swap.handover().await?)
}

/// Looked up on another thread: it reads the descriptors of all processes, while the tunnel goes on.
async fn answered_by(capture: &Capture, port: u16) -> String {
    let listener = capture.listeners().borrow().on(control::Protocol::Tcp, port).next().cloned();
    spawn_blocking(move || awaited::who(listener.as_ref())).await.unwrap_or_default()
}

fn random_key() -> Result<SessionKey, Failure> {
    use std::io::Read;
    let mut bytes = [0; SessionKey::LEN];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|e| Failure::new("DP-RANDOM", format!("no random numbers from the system: {e}")))?;
    Ok(SessionKey::from_bytes(bytes))
}
