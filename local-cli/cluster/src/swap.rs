//! Runs the steps of a plan: up to the running agent, then, when the session says so, the handover.
//!
//! Every step can be repeated, and whatever a failed step may have left behind is undone from the record: a request
//! whose answer was lost is no different from one that succeeded.

mod writes;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use self::writes::Writes;

use crate::{
    ClusterError, Connection,
    json::{list, number, selector_query, text},
    lease,
    name::SESSION_LABEL,
    ownership,
    plan::{Architecture, Handover, Plan, Step},
    pod::{self, AgentPod},
    record::{Original, Phase, Record},
    resource::{Condition, Kind, Objects},
    restore::{Outcome, SpliceHook, restore},
    slices, stand_in,
    wait::until,
};

/// What a ConfigMap may hold (`MaxSecretSize` of the API server), in bytes.
const CONFIG_MAP_LIMIT: usize = 1 << 20;
/// Longest wait for the stand-in's readiness after the agent opened its ready port; the probe runs every second.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Longest wait for EndpointSlices to follow.
pub(crate) const SLICES_LIMIT: Duration = Duration::from_mins(1);
/// From a change of the EndpointSlices until every node's kube-proxy follows. Measured: 0.5–1 s on one node.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// Longest wait for the original's pods to leave; their grace period is theirs to choose.
const LEAVE_LIMIT: Duration = Duration::from_mins(2);
/// Status updates of a controller change the resourceVersion too: so often we look again.
pub(crate) const CONFLICTS: usize = 10;

/// Loader and agent for one processor.
#[derive(Clone, Copy)]
pub struct AgentFiles<'a> {
    /// Started by the kubelet; unpacks and executes the agent.
    pub loader: &'a [u8],
    /// The agent, as the loader takes it.
    pub agent: &'a [u8],
}

/// The agent for both processors.
#[derive(Clone, Copy)]
pub struct Agents<'a> {
    /// x86-64
    pub amd64: AgentFiles<'a>,
    /// `AArch64`
    pub arm64: AgentFiles<'a>,
}

impl<'a> Agents<'a> {
    /// The one for this processor.
    pub fn of(&self, architecture: Architecture) -> AgentFiles<'a> {
        match architecture {
            Architecture::Amd64 => self.amd64,
            Architecture::Arm64 => self.arm64,
        }
    }
}

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
    stand_in_uid: String,
    /// The runtime's words when the first agent was for the wrong processor.
    switched: Option<String>,
    agent: Option<AgentPod>,
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

/// What the first half of the steps puts into the cluster.
struct Payload<'a> {
    agents: &'a Agents<'a>,
    key: &'a [u8],
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
            stand_in_uid: String::new(),
            switched: None,
            agent: None,
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

    /// The agent's pod, once it runs.
    pub fn agent(&self) -> Option<&AgentPod> {
        self.agent.as_ref()
    }

    /// Resolves when the Lease vanished or became another session's: undo. It is renewed from its acquisition on, for
    /// as long as this lives. Cancel-safe.
    pub fn lease_lost(&self) -> impl Future<Output = ClusterError> + Send + use<> {
        let (mut lost, lease) = (self.lost.subscribe(), self.record.lease.clone());
        async move {
            let reason = lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            match reason {
                Some(reason) => ClusterError::LeaseLost { lease, reason },
                None => std::future::pending().await,
            }
        }
    }

    /// The steps up to the running agent. On an error, and when cancelled, call [`Swap::undo`].
    pub async fn prepare(&mut self, agents: &Agents<'_>, key: &[u8]) -> Result<AgentPod, ClusterError> {
        let payload = Payload { agents, key };
        let steps: Vec<Step> = self.plan.steps.clone();
        let last =
            steps.iter().position(|step| matches!(step, Step::AwaitAgent { .. })).unwrap_or(steps.len());
        for step in steps.into_iter().take(last + 1) {
            self.apply(&step, Some(&payload)).await?;
        }
        self.agent.clone().ok_or_else(|| ClusterError::late("the start of the agent", pod::START_LIMIT, ""))
    }

    /// The steps after the agent. The agent's readiness must have been opened: this waits for it. On an error, call
    /// [`Swap::undo`].
    pub async fn handover(&mut self) -> Result<(), ClusterError> {
        let steps = self.plan.steps.clone();
        for step in steps.into_iter().skip_while(|step| !matches!(step, Step::AwaitAgent { .. })).skip(1) {
            self.apply(&step, None).await?;
        }
        self.note_phase(Phase::Swapped).await
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
        restore(&self.connection, &self.record, &self.progress, hook).await
    }

    async fn apply(&mut self, step: &Step, payload: Option<&Payload<'_>>) -> Result<(), ClusterError> {
        let start = Instant::now();
        self.tell(Progress::Started(step.clone()));
        match (step, payload) {
            (Step::AcquireLease { .. }, _) => self.acquire().await?,
            (Step::CreateStandIn { .. }, _) => self.create_stand_in().await?,
            (Step::CreateConfigMap { .. }, Some(payload)) => self.create_config_map(payload.agents).await?,
            (Step::CreateSecret { .. }, Some(payload)) => self.create_secret(payload.key).await?,
            (Step::StartStandIn { .. }, _) => self.start().await?,
            (Step::AwaitAgent { .. }, Some(payload)) => self.await_agent(payload.agents).await?,
            (Step::AwaitStandInReady { .. }, _) => self.await_ready().await?,
            (Step::ScaleOriginal { .. }, _) => self.scale_original().await?,
            (Step::AwaitOriginalGone { .. }, _) => self.await_original_gone().await?,
            // Steps that need the payload all come before the agent, in `prepare`.
            (Step::CreateConfigMap { .. } | Step::CreateSecret { .. } | Step::AwaitAgent { .. }, None) => {}
        }
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(Progress::Done(step.clone(), millis));
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

    async fn create_stand_in(&mut self) -> Result<(), ClusterError> {
        let created = self.create(Kind::Deployment, self.plan.stand_in.clone()).await?;
        text(&created, "/metadata/uid").clone_into(&mut self.stand_in_uid);
        Ok(())
    }

    async fn create_config_map(&mut self, agents: &Agents<'_>) -> Result<(), ClusterError> {
        let Some(name) = &self.plan.config_map else { return Ok(()) };
        let mut object = self.owned("ConfigMap", name);
        object["binaryData"] = binary_data(agents.of(self.plan.architecture))?;
        self.create(Kind::ConfigMap, object).await.map(drop)
    }

    async fn create_secret(&mut self, key: &[u8]) -> Result<(), ClusterError> {
        let mut object = self.owned("Secret", &self.plan.secret);
        object["type"] = json!("Opaque");
        object["data"] = json!({stand_in::KEY: ByteString(key.to_vec())});
        self.create(Kind::Secret, object).await.map(drop)
    }

    /// Names carry the session, so what is already there is from our own request whose answer was lost.
    async fn create(&mut self, kind: Kind, object: Value) -> Result<Value, ClusterError> {
        let connection = self.connection.clone();
        let request = async move {
            let objects = Objects::new(&connection, kind);
            match objects.create(&object).await {
                Err(error) if error.is_already_exists() => objects.get(text(&object, "/metadata/name")).await,
                other => other,
            }
        };
        self.writes.send(request).await
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

    fn owned(&self, kind: &str, name: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {
                "name": name,
                "labels": self.plan.stand_in.pointer("/metadata/labels"),
                "ownerReferences": [{
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": self.plan.stand_in_name,
                    "uid": self.stand_in_uid,
                }],
            },
        })
    }

    async fn start(&mut self) -> Result<(), ClusterError> {
        let (name, patch) = (self.plan.stand_in_name.clone(), json!({"spec": {"replicas": 1}}));
        self.merge(Kind::Deployment, &name, None, patch).await.map(drop)
    }

    async fn await_agent(&mut self, agents: &Agents<'_>) -> Result<(), ClusterError> {
        loop {
            let plan = &self.plan;
            let progress = &self.progress;
            let note = |words: String| {
                let _ = progress.try_send(Progress::Note(words));
            };
            let awaited =
                pod::await_agent(&self.connection, &plan.stand_in_name, &plan.session, &plan.container, note)
                    .await;
            match awaited {
                Ok(agent) => {
                    self.agent = Some(agent);
                    return Ok(());
                }
                Err(ClusterError::Processor { words })
                    if self.switched.is_none() && plan.config_map.is_some() =>
                {
                    self.switched = Some(words);
                    self.switch_processor(agents).await?;
                }
                // No node has the other processor: then the first words were about the program, not the node.
                Err(error @ ClusterError::Schedule { .. }) => match self.switched.take() {
                    Some(words) => return Err(ClusterError::Processor { words }),
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// The node's processor is the other one: bring the agent for it, and stay on such nodes.
    async fn switch_processor(&mut self, agents: &Agents<'_>) -> Result<(), ClusterError> {
        self.plan.architecture = self.plan.architecture.other();
        let architecture = self.plan.architecture;
        self.tell(Progress::Note(format!(
            "the node's processor is {}: changing the agent",
            architecture.label()
        )));
        if let Some(config_map) = self.plan.config_map.clone() {
            let patch = json!({"binaryData": binary_data(agents.of(architecture))?});
            self.merge(Kind::ConfigMap, &config_map, None, patch).await?;
        }
        let spec = self.plan.stand_in.pointer("/spec/template/spec").cloned().unwrap_or_default();
        let affinity = pinned_affinity(&spec, architecture);
        let selector = self.session_selector();
        let (before, _) = Objects::new(&self.connection, Kind::Pod).list(&selector).await?;
        let patch = json!({"spec": {"template": {"spec": {"affinity": affinity}}}});
        let stand_in = self.plan.stand_in_name.clone();
        self.merge(Kind::Deployment, &stand_in, None, patch).await?;
        let pods = Objects::new(&self.connection, Kind::Pod);
        let old: Vec<&str> = before.iter().map(|pod| text(pod, "/metadata/uid")).collect();
        let left = until(&pods, &selector, READY_LIMIT, |seen| {
            let stays = |uid: &&str| seen.get(*uid).is_some_and(|pod| !slices::is_leaving(pod));
            (!old.iter().any(stays)).then_some(())
        });
        left.await?.ok_or_else(|| ClusterError::late("the change of the agent", READY_LIMIT, ""))
    }

    async fn await_ready(&self) -> Result<(), ClusterError> {
        let pods = Objects::new(&self.connection, Kind::Pod);
        let mut words = None;
        let selector = self.session_selector();
        let ready = until(&pods, &selector, READY_LIMIT, |seen| {
            words = seen.values().find_map(pod::words_of_failure);
            seen.values().find(|pod| pod::is_ready(pod)).map(pod::addresses)
        });
        let addresses = ready.await?.ok_or_else(|| {
            ClusterError::late("readiness of the stand-in", READY_LIMIT, words.unwrap_or_default())
        })?;
        let services = &self.plan.services;
        if !slices::await_present(&self.connection, services, &[addresses], SLICES_LIMIT).await? {
            let what = format!("the stand-in's arrival in the EndpointSlices of {}", services.join(", "));
            return Err(ClusterError::late(what, SLICES_LIMIT, ""));
        }
        let original_follows = self.plan.handover != Handover::OriginalFirst
            && self.plan.original.as_ref().is_some_and(|original| original.replicas > 0);
        if original_follows && !services.is_empty() {
            sleep(SETTLE).await;
        }
        Ok(())
    }

    async fn scale_original(&mut self) -> Result<(), ClusterError> {
        let Some(planned) = self.plan.original.clone() else { return Ok(()) };
        let title = self.plan.title();
        let changed = |change: String| ClusterError::Changed { deployment: title.clone(), change };
        for _ in 0..CONFLICTS {
            let Some(current) = self.deployments().find(&planned.name).await? else {
                return Err(changed("it was deleted".into()));
            };
            if text(&current, "/metadata/uid") != planned.uid || slices::is_leaving(&current) {
                return Err(changed("it was deleted".into()));
            }
            let managed = list(&current, "/metadata/managedFields");
            let replicas = number(&current, "/spec/replicas").unwrap_or(1);
            if replicas == 0 && ownership::ours(managed) {
                return Ok(());
            }
            if replicas != planned.replicas {
                return Err(changed(format!("it has {replicas} replicas now, it had {}", planned.replicas)));
            }
            // In the record before in the cluster: whoever finds the one can undo the other.
            let replica_owners = ownership::owners_of_replicas(managed);
            self.record.original = Some(Original { replica_owners, ..planned.clone() });
            self.note_phase(Phase::HandingOver).await?;
            let version = Some(text(&current, "/metadata/resourceVersion").to_owned());
            let patch = json!({"spec": {"replicas": 0}});
            match self.merge(Kind::Deployment, &planned.name, version, patch).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(changed("it changes faster than it can be scaled".into()))
    }

    async fn await_original_gone(&self) -> Result<(), ClusterError> {
        let Some(original) = &self.plan.original else { return Ok(()) };
        let pods = Objects::new(&self.connection, Kind::Pod);
        let selector = original_pods(original);
        let first = self.plan.handover == Handover::OriginalFirst;
        let mut addresses = Vec::new();
        let left = until(&pods, &selector, LEAVE_LIMIT, |seen| {
            addresses.extend(seen.values().flat_map(pod::addresses));
            // A volume or a port is free when the pod is gone; traffic ends when it begins to leave.
            if first { seen.is_empty() } else { seen.values().all(slices::is_leaving) }.then_some(())
        });
        if left.await?.is_none() {
            if first {
                let what = format!("the end of the pods of {}", original.name);
                return Err(ClusterError::late(what, LEAVE_LIMIT, ""));
            }
            self.tell(Progress::Note(format!("pods of {} are slow to leave", original.name)));
        }
        addresses.sort_unstable();
        addresses.dedup();
        if !slices::await_absent(&self.connection, &self.plan.services, &addresses, SLICES_LIMIT).await? {
            self.tell(Progress::Note(format!("pods of {} are still in the EndpointSlices", original.name)));
        }
        Ok(())
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
}

/// The original's pods, without a stand-in's: it carries the same labels and one more.
pub(crate) fn original_pods(original: &Original) -> String {
    format!("{},!{SESSION_LABEL}", selector_query(Some(&original.selector)))
}

fn binary_data(files: AgentFiles<'_>) -> Result<Value, ClusterError> {
    let bytes = files.loader.len() + files.agent.len();
    if bytes > CONFIG_MAP_LIMIT {
        return Err(ClusterError::TooLarge { bytes, limit: CONFIG_MAP_LIMIT });
    }
    Ok(json!({
        stand_in::LOADER: ByteString(files.loader.to_vec()),
        stand_in::AGENT: ByteString(files.agent.to_vec()),
    }))
}

/// The template's own affinity and this processor. Terms are alternatives, so each of them gets the condition.
fn pinned_affinity(spec: &Value, architecture: Architecture) -> Value {
    let condition = json!({"key": "kubernetes.io/arch", "operator": "In", "values": [architecture.label()]});
    let mut affinity =
        spec.get("affinity").filter(|affinity| affinity.is_object()).cloned().unwrap_or(json!({}));
    let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    if let Some(terms) = affinity.pointer_mut(path).and_then(Value::as_array_mut) {
        for term in terms {
            match term.get_mut("matchExpressions").and_then(Value::as_array_mut) {
                Some(expressions) => expressions.push(condition.clone()),
                None => term["matchExpressions"] = json!([condition]),
            }
        }
    } else {
        if !affinity["nodeAffinity"].is_object() {
            affinity["nodeAffinity"] = json!({});
        }
        affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": [{"matchExpressions": [condition]}]});
    }
    affinity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alternative_of_an_affinity_is_pinned() {
        let spec = json!({"affinity": {
            "podAffinity": {"x": 1},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
                {"matchFields": []},
            ]}},
        }});
        let pinned = pinned_affinity(&spec, Architecture::Arm64);
        let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        for term in list(&pinned, path) {
            let last = list(term, "/matchExpressions").last().unwrap();
            assert_eq!((text(last, "/key"), text(last, "/values/0")), ("kubernetes.io/arch", "arm64"));
        }
        assert_eq!(pinned["podAffinity"], json!({"x": 1}));
        assert_eq!(list(&pinned_affinity(&Value::Null, Architecture::Amd64), path).len(), 1);
    }

    #[test]
    fn an_agent_over_the_limit_is_refused_before_the_server_does() {
        let half = vec![0; CONFIG_MAP_LIMIT / 2 + 1];
        let error = binary_data(AgentFiles { loader: &half, agent: &half }).unwrap_err();
        assert_eq!(error.code(), "DP-TOO-LARGE");
    }
}
