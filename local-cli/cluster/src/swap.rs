//! Runs the steps of a plan: up to the running agent, then, when the session says so, the handover.
//!
//! Every step can be repeated, and whatever a failed step may have left behind is undone from the record: a request
//! whose answer was lost is no different from one that succeeded.
//!
//! - [`payload`]: loader, agent and key
//! - [`start`]: the start of the agent
//! - [`handover`]: the stand-in is reached, the original goes; [`drain`]: out of its Services first
//! - [`writes`]: requests that are not given up when their step is

mod drain;
mod handover;
mod payload;
mod start;
mod writes;

use std::{
    future::Future,
    net::IpAddr,
    pin::pin,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub use self::payload::{AgentFiles, Agents};
pub(crate) use self::{drain::given_back, handover::original_pods};
use self::{payload::Payload, writes::Writes};
use crate::{
    ClusterError, Connection,
    json::text,
    lease,
    name::SESSION_LABEL,
    patience::{Again, Patience},
    plan::{Plan, Step},
    pod::Placed,
    presence,
    record::{Phase, Record},
    resource::{Condition, Kind, Objects},
    restore::{Outcome, SpliceHook, restore},
    wait::Follow,
};

/// Longest wait for the stand-in's readiness after the agent opened its ready port; the probe runs every second.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Longest wait for EndpointSlices to follow.
pub(crate) const SLICES_LIMIT: Duration = Duration::from_mins(1);
/// From a change of the EndpointSlices until every node's kube-proxy follows. Measured: 0.5–1 s on one node.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// Status updates of a controller change the resourceVersion too: so often we look again.
pub(crate) const CONFLICTS: usize = 10;

/// What happens, for the progress lines. Sent with `try_send`: a full queue loses lines, never time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// A step began.
    Started(Step),
    /// A step is done, after so many milliseconds.
    Done(Step, u64),
    /// Something is being put back.
    Undoing(String),
    /// Worth a line: a pod's own words, a wait that ended without its event.
    Note(String),
}

/// A session's execution in the cluster.
pub struct Swap {
    connection: Connection,
    plan: Plan,
    record: Record,
    progress: mpsc::Sender<Progress>,
    writes: Writes,
    lock: Lock,
    /// Renews the Lease, from its acquisition on.
    heart: JoinSet<()>,
    /// Set when the Lease is lost.
    lost: watch::Sender<Option<String>>,
    placed: watch::Sender<Option<Placed>>,
    /// The runtime's words when the first agent was for the wrong processor.
    switched: Option<String>,
    /// The original's pods that are taken out of their Services, chosen once: a ReplicaSet makes others in their place.
    draining: Option<Vec<Value>>,
    /// Addresses of the original's pods that were seen.
    leaving: Vec<IpAddr>,
}

/// What is known of the Lease.
enum Lock {
    /// It is not ours, so nothing is.
    Free,
    /// Asked for, or the answer was lost: it may be there.
    Asked,
    /// Ours, with this uid.
    Held(String),
}

impl Swap {
    /// Nothing happens yet.
    pub fn begin(connection: &Connection, plan: Plan, progress: mpsc::Sender<Progress>) -> Self {
        Self {
            connection: connection.in_namespace(&plan.namespace),
            record: plan.record(),
            plan,
            progress,
            writes: Writes::default(),
            lock: Lock::Free,
            heart: JoinSet::new(),
            lost: watch::Sender::new(None),
            placed: watch::Sender::new(None),
            switched: None,
            draining: None,
            leaving: Vec::new(),
        }
    }

    /// The plan; its architecture may have been corrected.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The record as it stands.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where the agent can be asked for, while [`Swap::prepare`] waits for it.
    pub fn placed(&self) -> watch::Receiver<Option<Placed>> {
        self.placed.subscribe()
    }

    /// Resolves when the Lease vanished or became another session's: undo. It is renewed from its acquisition on, for
    /// as long as this lives. Cancel-safe.
    pub fn lease_lost(&self) -> impl Future<Output = ClusterError> + Send + use<> {
        let (mut lost, connection) = (self.lost.subscribe(), self.connection.clone());
        let (lease, stand_in) = (self.record.lease.clone(), self.record.stand_in.clone());
        async move {
            let reason = lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            let Some(reason) = reason else { return std::future::pending().await };
            let known = presence::ended(&connection, &stand_in, &lease).await;
            known.unwrap_or(ClusterError::LeaseLost { lease, reason })
        }
    }

    /// The steps up to the running agent, which is there when `answer` says so: it is awaited beside the pod, whose own
    /// words tell a failure. On an error, and when cancelled, call [`Swap::undo`].
    pub async fn prepare<T>(
        &mut self,
        agents: &Agents<'_>,
        key: &[u8],
        answer: impl Future<Output = T>,
    ) -> Result<T, ClusterError> {
        let payload = Payload { agents, key };
        let steps = self.plan.steps.clone();
        let agent = steps.iter().position(|step| matches!(step, Step::AwaitAgent { .. }));
        let (before, from) = steps.split_at(agent.unwrap_or(steps.len()));
        let (lock, rest) = before.split_at(1.min(before.len()));
        for step in lock {
            self.apply(step).await?;
        }
        // Looked at from now on: the news of the pod shall not wait for two more requests.
        let mut pods = Follow::begin(&self.connection, Kind::Pod, self.session_selector());
        for side_by_side in rest.chunk_by(|one, next| one.is_creation() && next.is_creation()) {
            match side_by_side {
                [step] if !step.is_creation() => self.apply(step).await?,
                creations => self.create_all(creations, payload).await?,
            }
        }
        if let Some(step) = from.first() {
            self.tell(Progress::Started(step.clone()));
        }
        let mut answer = pin!(answer);
        tokio::select! {
            answer = &mut answer => return Ok(answer),
            running = self.await_agent(&mut pods, agents) => running?,
        }
        Ok(answer.await)
    }

    /// The steps after the agent. The agent's readiness must have been opened: this waits for it. An API server that is
    /// away is waited for, as the tunnel waits: without it nothing could be undone either. On an error, call
    /// [`Swap::undo`].
    pub async fn handover(&mut self) -> Result<(), ClusterError> {
        let steps = self.plan.steps.clone();
        let steps = steps.iter().skip_while(|step| !matches!(step, Step::AwaitAgent { .. })).skip(1);
        for step in steps.map(Some).chain([None]) {
            let mut patience = Patience::default();
            loop {
                let done = match step {
                    Some(step) => self.apply(step).await,
                    None => self.note_phase(Phase::Swapped).await,
                };
                let Err(error) = done else { break };
                if !error.is_transient() {
                    return Err(error);
                }
                tracing::info!(%error, "handover");
                match patience.again(matches!(error, ClusterError::Unreachable { .. })) {
                    Again::No => return Err(error),
                    Again::Quietly => {}
                    Again::Tell(limit) => {
                        self.tell(Progress::Note(format!("{error}; trying again {limit}")));
                    }
                }
                patience.pause().await;
            }
        }
        Ok(())
    }

    /// Undoes everything, in the order of [`restore`](crate::restore()), from the record. Idempotent.
    pub async fn undo(&mut self, hook: Option<&mut dyn SpliceHook>) -> Result<Outcome, ClusterError> {
        while let Some(answer) = self.writes.unfinished().await {
            if matches!(self.lock, Lock::Asked) {
                // Whether it is ours is all that matters now.
                let _ = self.acquired(answer);
            }
        }
        if matches!(self.lock, Lock::Free) {
            return Ok(Outcome::nothing());
        }
        restore(&self.connection, &self.record, &self.record.holder, &self.progress, hook).await
    }

    async fn apply(&mut self, step: &Step) -> Result<(), ClusterError> {
        let start = Instant::now();
        self.tell(Progress::Started(step.clone()));
        match step {
            Step::AcquireLease { .. } => self.acquire().await?,
            Step::StartStandIn { .. } => self.start().await?,
            Step::AwaitStandInReady { .. } => self.await_ready().await?,
            Step::TakeLabelsOff { labels, .. } => self.take_labels_off(labels).await?,
            Step::ScaleOriginal { .. } => self.scale_original().await?,
            Step::DeleteDrained { .. } => self.delete_drained().await?,
            Step::AwaitOriginalGone { .. } => self.await_original_gone().await?,
            // By `prepare`, with what they need.
            Step::CreateStandIn { .. }
            | Step::CreateConfigMap { .. }
            | Step::CreateSecret { .. }
            | Step::AwaitAgent { .. } => {}
        }
        self.tell_done(step, start);
        Ok(())
    }

    async fn acquire(&mut self) -> Result<(), ClusterError> {
        self.record.since = crate::record::now();
        self.lock = Lock::Asked;
        let (connection, record) = (self.connection.clone(), self.record.clone());
        let answer = self.writes.send(async move { lease::acquire(&connection, &record).await }).await;
        self.acquired(answer)
    }

    fn acquired(&mut self, answer: Result<Value, ClusterError>) -> Result<(), ClusterError> {
        match answer {
            Ok(lease) => {
                let uid = text(&lease, "/metadata/uid").to_owned();
                let (connection, name, lost) =
                    (self.connection.clone(), self.record.lease.clone(), self.lost.clone());
                self.lock = Lock::Held(uid.clone());
                self.heart.spawn(async move {
                    lost.send_replace(Some(lease::keep(&connection, &name, &uid).await));
                });
                Ok(())
            }
            Err(error) => {
                // When the answer was lost, the Lease may be there.
                if !error.is_transient() {
                    self.lock = Lock::Free;
                }
                Err(error)
            }
        }
    }

    async fn create_all(&mut self, steps: &[Step], payload: Payload<'_>) -> Result<(), ClusterError> {
        let start = Instant::now();
        let mut requests = Vec::new();
        for step in steps {
            if let Some((kind, object)) = self.object(step, payload)? {
                requests.push(create(self.connection.clone(), kind, object));
            }
        }
        for step in steps {
            self.tell(Progress::Started(step.clone()));
        }
        self.writes.send_all(requests).await?;
        for step in steps {
            self.tell_done(step, start);
        }
        Ok(())
    }

    /// What a step creates.
    fn object(&self, step: &Step, payload: Payload<'_>) -> Result<Option<(Kind, Value)>, ClusterError> {
        Ok(match step {
            Step::CreateStandIn { .. } => Some((Kind::Deployment, self.plan.stand_in.clone())),
            Step::CreateConfigMap { config_map } => {
                let mut object = self.owned("ConfigMap", config_map);
                object["binaryData"] = payload::binary_data(payload.agents.of(self.plan.architecture))?;
                Some((Kind::ConfigMap, object))
            }
            Step::CreateSecret { secret } => {
                let mut object = self.owned("Secret", secret);
                object["type"] = json!("Opaque");
                object["data"] = payload::key_data(payload.key);
                Some((Kind::Secret, object))
            }
            _ => None,
        })
    }

    /// Of the Lease: it is there before all others, so that they can be made side by side, and it leaves last.
    fn owned(&self, kind: &str, name: &str) -> Value {
        let uid = if let Lock::Held(uid) = &self.lock { uid.as_str() } else { "" };
        json!({
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {
                "name": name,
                "labels": self.plan.stand_in.pointer("/metadata/labels"),
                "ownerReferences": [{
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "name": self.plan.lease,
                    "uid": uid,
                }],
            },
        })
    }

    async fn start(&mut self) -> Result<(), ClusterError> {
        let (name, patch) = (self.plan.stand_in_name.clone(), json!({"spec": {"replicas": 1}}));
        self.merge(Kind::Deployment, &name, None, patch).await.map(drop)
    }

    async fn merge(
        &mut self,
        kind: Kind,
        name: &str,
        version: Option<String>,
        patch: Value,
    ) -> Result<Value, ClusterError> {
        let (connection, name) = (self.connection.clone(), name.to_owned());
        let request = async move {
            let condition = version.as_deref().map_or(Condition::Always, Condition::Version);
            Objects::new(&connection, kind).merge(&name, condition, patch).await
        };
        self.writes.send(request).await
    }

    async fn note_phase(&mut self, phase: Phase) -> Result<(), ClusterError> {
        let Lock::Held(uid) = &self.lock else { return Ok(()) };
        let (connection, uid, mut record) = (self.connection.clone(), uid.clone(), self.record.clone());
        let request = async move {
            lease::note_phase(&connection, &uid, &mut record, phase).await?;
            Ok(Value::Null)
        };
        self.writes.send(request).await?;
        self.record.phase = phase;
        Ok(())
    }

    fn deployments(&self) -> Objects<'_> {
        Objects::new(&self.connection, Kind::Deployment)
    }

    fn session_selector(&self) -> String {
        format!("{SESSION_LABEL}={}", self.plan.session)
    }

    fn tell(&self, progress: Progress) {
        let _ = self.progress.try_send(progress);
    }

    fn tell_done(&self, step: &Step, start: Instant) {
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(Progress::Done(step.clone(), millis));
    }
}

/// Names carry the session, so what is already there is from our own request whose answer was lost.
async fn create(connection: Connection, kind: Kind, object: Value) -> Result<Value, ClusterError> {
    let objects = Objects::new(&connection, kind);
    match objects.create(&object).await {
        Err(error) if error.is_already_exists() => objects.get(text(&object, "/metadata/name")).await,
        other => other,
    }
}

#[cfg(test)]
mod tests;
