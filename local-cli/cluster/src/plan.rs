//! The plan of a session: what was found, what will be done, and how each step is undone. Making it reads only.
//!
//! A plan is data: `--dry-run` prints it, the session process gets it as JSON, [`Swap`](crate::Swap) runs it.

mod drain;
mod files;
mod findings;
mod ports;
mod read;
mod step;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use files::{FileKind, FileRoot, WritableVolume, file_roots_of_pod};
pub(crate) use ports::own_ports;
pub(crate) use read::not_found;
pub use step::Step;
pub(crate) use step::of_shell as shell_steps;

pub use crate::record::{Holder, Original};
use crate::{
    ClusterError, Connection,
    find::forbidden_or_missing,
    json::{list, name as name_of, number, text},
    lease::held,
    name,
    ownership::owners_of_replicas,
    record::{Phase, Record, SCHEMA},
    stand_in::{self, Agent},
    target::Target,
};

/// When the traffic goes over, as the user said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandoverMode {
    /// By what is found.
    #[default]
    Auto,
    /// When the local program listens.
    Listen,
    /// At once.
    Now,
}

/// When the traffic goes over, as it is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    /// At the first listen; the original serves until then.
    OnListen,
    /// As soon as the shell is up.
    AtOnce,
    /// The original leaves before the stand-in's pod is started: both cannot be there at once.
    OriginalFirst,
}

/// How the original's pods are left by their clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drain {
    /// They get SIGTERM and serve on until nobody comes any more.
    #[default]
    Signal,
    /// Their Services are led away from them first: they die at once on SIGTERM.
    Labels,
}

/// What counts as the local program being ready, before the handover. Never looked at afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyMode {
    /// It listens.
    #[default]
    Listen,
    /// It answers this path with 2xx or 3xx.
    Http(String),
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Processor of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64
    Amd64,
    /// `AArch64`
    Arm64,
}

impl Architecture {
    /// As in the label `kubernetes.io/arch`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The one that is tried when this one does not run.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Amd64 => Self::Arm64,
            Self::Arm64 => Self::Amd64,
        }
    }

    /// Reads `amd64`, `arm64`.
    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Amd64, Self::Arm64].into_iter().find(|architecture| architecture.label() == label)
    }
}

/// `--port POD:LOCAL`: the program listens elsewhere than the pod, or on a port that nobody declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Port in the pod.
    pub pod: u16,
    /// Port of the local program.
    pub local: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapSettings {
    /// `[NAMESPACE/]NAME`, also `deploy/NAME`.
    pub target: String,
    /// Which container, when there are several.
    pub container: Option<String>,
    /// When the traffic goes over.
    pub handover: HandoverMode,
    /// How the original's pods are left by their clients.
    pub drain: Drain,
    /// What counts as ready.
    pub ready: ReadyMode,
    /// Leave out init containers that run to an end.
    pub skip_init: bool,
    /// Additional or moved ports.
    pub ports: Vec<PortMapping>,
    /// An image with the agent, instead of the original's image with the agent mounted.
    pub agent_image: Option<String>,
    /// Who asks.
    pub holder: Holder,
}

/// A port of the pod that the local program is expected to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port in the pod.
    pub port: u16,
    /// Port of the local program; mostly the same.
    pub local: u16,
    /// Its name in the container.
    pub name: Option<String>,
    /// The first Service that leads to it.
    pub service: Option<String>,
    /// Whether the user named it.
    pub mapped: bool,
}

/// Something the user should know before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable word: `hpa`, `pdb`, `gitops` …
    pub code: String,
    /// One line.
    pub text: String,
}

/// All that a session will do, and what it knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Id of the session.
    pub session: String,
    /// Where everything is.
    pub namespace: String,
    /// The Deployment whose place is taken; `None` for `devproxy shell`.
    pub original: Option<Original>,
    /// `metadata.resourceVersion` of the original when the plan was made.
    pub resource_version: String,
    /// The container that the agent replaces.
    pub container: String,
    /// Name of the stand-in.
    pub stand_in_name: String,
    /// Name of the Lease.
    pub lease: String,
    /// Name of the ConfigMap with the agent; `None` with an agent image.
    pub config_map: Option<String>,
    /// Name of the Secret with the session key.
    pub secret: String,
    /// Where the agent listens for carriers, on the pod's loopback.
    pub tunnel_port: u16,
    /// Where it listens while the stand-in is ready.
    pub ready_port: u16,
    /// A guess; corrected once if the agent does not run.
    pub architecture: Architecture,
    /// The agent comes in an image of its own.
    pub agent_image: Option<String>,
    /// What the local program is expected to serve.
    pub ports: Vec<DeclaredPort>,
    /// The Services that select the pods.
    pub services: Vec<String>,
    /// Files to show at their true paths.
    pub file_roots: Vec<FileRoot>,
    /// Volumes that the program may write to.
    pub writable_volumes: Vec<WritableVolume>,
    /// Init containers that will run again.
    pub init_containers: Vec<String>,
    /// The pod has the node's network.
    pub host_network: bool,
    /// When the traffic goes over.
    pub handover: Handover,
    /// Why then.
    pub handover_reason: String,
    /// What counts as ready before the handover.
    pub ready: ReadyMode,
    /// Who asks.
    pub holder: Holder,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// In order.
    pub steps: Vec<Step>,
    /// The whole object, as it will be created.
    pub stand_in: Value,
}

impl Plan {
    /// The name for messages: `namespace/deployment`, or the shell's.
    pub fn title(&self) -> String {
        let name =
            self.original.as_ref().map_or(self.stand_in_name.as_str(), |original| original.name.as_str());
        format!("{}/{name}", self.namespace)
    }

    /// The record that the Lease will carry.
    pub(crate) fn record(&self) -> Record {
        Record {
            schema: SCHEMA,
            session: self.session.clone(),
            namespace: self.namespace.clone(),
            lease: self.lease.clone(),
            original: self.original.clone(),
            stand_in: self.stand_in_name.clone(),
            config_map: self.config_map.clone(),
            secret: self.secret.clone(),
            services: self.services.clone(),
            original_first: self.handover == Handover::OriginalFirst,
            phase: Phase::Prepared,
            holder: self.holder.clone(),
            since: crate::record::now(),
        }
    }
}

/// Looks at the Deployment and what is around it, and plans the swap. Reads only; reads that are forbidden are left
/// out, except the Deployment itself. [`ClusterError::Held`] means that nothing else is in the way.
pub async fn plan(connection: &Connection, settings: &SwapSettings) -> Result<Plan, ClusterError> {
    let target = Target::parse(&settings.target)?;
    let namespace = target.namespace.as_deref().unwrap_or(&connection.namespace);
    let connection = connection.in_namespace(namespace);
    let found = Box::pin(read::all(&connection, &target.name, settings.drain)).await;
    let found = forbidden_or_missing(&connection, found).await?;
    let session = new_session()?;
    let plan = assemble(namespace, session, settings, &found)?;
    // At last: whoever takes it over must not end somebody's session for a plan that cannot be done.
    match &found.lease {
        Some(lease) => Err(held(lease, &plan.title())),
        None => Ok(plan),
    }
}

pub(crate) fn new_session() -> Result<String, ClusterError> {
    name::session_id()
        .map_err(|source| ClusterError::Local { what: "no random numbers from the system".into(), source })
}

/// The pure part: from what was read to the plan.
fn assemble(
    namespace: &str,
    session: String,
    settings: &SwapSettings,
    found: &read::Found,
) -> Result<Plan, ClusterError> {
    let deployment = &found.deployment;
    let name = name_of(deployment).to_owned();
    findings::suitable(deployment)?;
    let template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    let container = container(&name, &template, settings.container.as_deref())?;
    let (ports, services) = ports::of(&template, &container, &found.services, &settings.ports);
    let replicas = number(deployment, "/spec/replicas").unwrap_or(1);
    let original = Original {
        name: name.clone(),
        uid: text(deployment, "/metadata/uid").to_owned(),
        replicas,
        ready: found.ready_pods(),
        selector: deployment.pointer("/spec/selector").cloned().unwrap_or_default(),
        replica_owners: owners_of_replicas(list(deployment, "/metadata/managedFields")),
    };
    let handover = findings::handover(settings.handover, found, &template, &ports, replicas);
    let of_handover = findings::warning_of_handover(&name, &handover);
    let (handover, handover_reason) = handover;
    let stand_in_name = name::stand_in(&name, &session);
    let (tunnel_port, ready_port) = ports::own(&session, &template, &ports);
    let config_map = settings.agent_image.is_none().then(|| name::config_map(&stand_in_name));
    let secret = name::secret(&stand_in_name);
    let agent = Agent {
        session: &session,
        name: &stand_in_name,
        container: &container,
        config_map: config_map.as_deref(),
        image: settings.agent_image.as_deref(),
        secret: &secret,
        tunnel_port,
        ready_port,
        skip_init: settings.skip_init,
        fill_resources: !found.limit_range_has_defaults(),
    };
    let stand_in = stand_in::of_deployment(&agent, deployment);
    let lease = name::lease(&name);
    let mut warnings = findings::warnings(found, &template, &container, &stand_in, &original);
    warnings.extend(of_handover);
    let (named, _) = ports::of(&template, &container, &found.services, &[]);
    warnings.extend(settings.ports.iter().filter_map(|mapping| {
        let leads = |protocol, port| ports::behind(&template, &found.services, &named, protocol, port);
        findings::warning_of_mapping(&name, &named, *mapping, leads)
    }));
    let mut labels = Vec::new();
    if settings.drain == Drain::Labels {
        match drain::labels(found, &template, &services, handover, replicas) {
            Ok(found) => labels = found,
            Err(warning) => warnings.push(warning),
        }
    }
    let steps = step::of_swap(&step::Names {
        lease: &lease,
        stand_in: &stand_in_name,
        config_map: config_map.as_deref(),
        secret: &secret,
        original: &name,
        replicas,
        services: &services,
        first: handover == Handover::OriginalFirst,
        labels: &labels,
    });
    Ok(Plan {
        file_roots: files::roots(&template, &container, found.automount),
        writable_volumes: files::writable(&template, &container),
        init_containers: stand_in::init_containers(&stand_in),
        host_network: template.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)),
        architecture: found.architecture(&template),
        warnings,
        namespace: namespace.to_owned(),
        resource_version: text(deployment, "/metadata/resourceVersion").to_owned(),
        original: Some(original),
        agent_image: settings.agent_image.clone(),
        ready: settings.ready.clone(),
        holder: settings.holder.clone(),
        session,
        container,
        stand_in_name,
        lease,
        config_map,
        secret,
        tunnel_port,
        ready_port,
        ports,
        services,
        handover,
        handover_reason,
        steps,
        stand_in,
    })
}

/// The container to replace: the one named, the only one, or the template's own default for kubectl.
fn container(deployment: &str, template: &Value, wanted: Option<&str>) -> Result<String, ClusterError> {
    let containers: Vec<String> = list(template, "/spec/containers")
        .iter()
        .map(|container| text(container, "/name").to_owned())
        .collect();
    let default = text(template, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
    match wanted {
        Some(wanted) if containers.iter().any(|container| container == wanted) => Ok(wanted.to_owned()),
        Some(wanted) => Err(ClusterError::NoContainer {
            deployment: deployment.to_owned(),
            container: wanted.to_owned(),
            containers,
        }),
        None if containers.len() == 1 => Ok(containers[0].clone()),
        None if containers.iter().any(|container| container == default) => Ok(default.to_owned()),
        None => Err(ClusterError::SeveralContainers { deployment: deployment.to_owned(), containers }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
