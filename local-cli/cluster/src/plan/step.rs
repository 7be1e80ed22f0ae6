//! The steps of a session, in order, each with its undo, printable.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Create the Lease: lock, record and heartbeat in one.
    AcquireLease {
        /// Its name.
        lease: String,
    },
    /// Create the stand-in with no pod yet.
    CreateStandIn {
        /// Its name.
        stand_in: String,
    },
    /// Create the ConfigMap with loader and agent.
    CreateConfigMap {
        /// Its name.
        config_map: String,
    },
    /// Create the Secret with the session key.
    CreateSecret {
        /// Its name.
        secret: String,
    },
    /// Give the stand-in its one pod.
    StartStandIn {
        /// Its name.
        stand_in: String,
    },
    /// Wait until the agent runs.
    AwaitAgent {
        /// Name of the stand-in.
        stand_in: String,
    },
    /// Wait until the stand-in is ready and in the EndpointSlices of these Services.
    AwaitStandInReady {
        /// Name of the stand-in.
        stand_in: String,
        /// The Services.
        services: Vec<String>,
    },
    /// Take the labels off the original's pods by which Services and controllers find them.
    TakeLabelsOff {
        /// Name of the original.
        original: String,
        /// Keys of the labels.
        labels: Vec<String>,
    },
    /// Scale the original to 0.
    ScaleOriginal {
        /// Its name.
        original: String,
        /// From so many.
        replicas: i64,
    },
    /// Delete the pods without labels, once nobody comes any more.
    DeleteDrained {
        /// Name of the original.
        original: String,
    },
    /// Wait until no client is led to the original's pods any more.
    AwaitOriginalGone {
        /// Its name.
        original: String,
    },
}

impl Step {
    /// What is done about it when the session ends or a later step fails; `None` when there is nothing.
    pub fn undo(&self) -> Option<String> {
        Some(match self {
            Self::AcquireLease { lease } => format!("delete Lease {lease}, last"),
            Self::CreateStandIn { stand_in } => {
                format!("delete Deployment {stand_in} and wait for its pod to end")
            }
            Self::CreateConfigMap { config_map } => format!("delete ConfigMap {config_map}"),
            Self::CreateSecret { secret } => format!("delete Secret {secret}"),
            Self::TakeLabelsOff { original, .. } => {
                format!("give them back, or delete these pods once {original} serves again")
            }
            Self::ScaleOriginal { original, replicas } => {
                format!("scale Deployment {original} 0 → {replicas}, wait until it serves")
            }
            Self::StartStandIn { .. }
            | Self::AwaitAgent { .. }
            | Self::AwaitStandInReady { .. }
            | Self::DeleteDrained { .. }
            | Self::AwaitOriginalGone { .. } => return None,
        })
    }

    /// Whether it only creates something of ours, beside others of the kind: what they need of each other is their
    /// names, and these are known.
    pub fn is_creation(&self) -> bool {
        matches!(self, Self::CreateStandIn { .. } | Self::CreateConfigMap { .. } | Self::CreateSecret { .. })
    }

    /// Whether it belongs to the handover, after the shell is up.
    pub fn is_handover(&self) -> bool {
        matches!(
            self,
            Self::AwaitStandInReady { .. }
                | Self::TakeLabelsOff { .. }
                | Self::ScaleOriginal { .. }
                | Self::DeleteDrained { .. }
                | Self::AwaitOriginalGone { .. }
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcquireLease { lease } => write!(f, "create Lease {lease}"),
            Self::CreateStandIn { stand_in } => write!(f, "create Deployment {stand_in} with 0 replicas"),
            Self::CreateConfigMap { config_map } => write!(f, "create ConfigMap {config_map} with the agent"),
            Self::CreateSecret { secret } => write!(f, "create Secret {secret} with the session key"),
            Self::StartStandIn { stand_in } => write!(f, "scale Deployment {stand_in} 0 → 1"),
            Self::AwaitAgent { stand_in } => write!(f, "wait for the agent in {stand_in}"),
            Self::AwaitStandInReady { stand_in, services } if services.is_empty() => {
                write!(f, "wait until {stand_in} is ready")
            }
            Self::AwaitStandInReady { stand_in, services } => {
                write!(f, "wait until {stand_in} is ready and reached through {}", services.join(", "))
            }
            Self::TakeLabelsOff { original, labels } => {
                write!(f, "take the labels {} off the pods of {original}", labels.join(", "))
            }
            Self::ScaleOriginal { original, replicas } => {
                write!(f, "scale Deployment {original} {replicas} → 0")
            }
            Self::DeleteDrained { original } => write!(f, "delete these pods of {original} 5 s later"),
            Self::AwaitOriginalGone { original } => {
                write!(f, "wait until no client is led to the pods of {original}")
            }
        }
    }
}

pub(super) struct Names<'a> {
    pub(super) lease: &'a str,
    pub(super) stand_in: &'a str,
    pub(super) config_map: Option<&'a str>,
    pub(super) secret: &'a str,
    pub(super) original: &'a str,
    pub(super) replicas: i64,
    pub(super) services: &'a [String],
    pub(super) first: bool,
    /// To take off the original's pods before; none: they are left to their SIGTERM.
    pub(super) labels: &'a [String],
}

/// The lock first, the original last, unless it has to make room.
pub(super) fn of_swap(names: &Names<'_>) -> Vec<Step> {
    let scale = || Step::ScaleOriginal { original: names.original.to_owned(), replicas: names.replicas };
    let gone = || Step::AwaitOriginalGone { original: names.original.to_owned() };
    let mut steps = before_the_pod(names.lease, names.stand_in, names.config_map, names.secret);
    if names.first {
        steps.extend([scale(), gone()]);
    }
    steps.push(Step::StartStandIn { stand_in: names.stand_in.to_owned() });
    steps.push(Step::AwaitAgent { stand_in: names.stand_in.to_owned() });
    steps.push(Step::AwaitStandInReady {
        stand_in: names.stand_in.to_owned(),
        services: names.services.to_vec(),
    });
    if !names.first && names.replicas > 0 {
        let original = || names.original.to_owned();
        let drained = !names.labels.is_empty();
        steps.extend(
            drained.then(|| Step::TakeLabelsOff { original: original(), labels: names.labels.to_vec() }),
        );
        steps.push(scale());
        steps.extend(drained.then(|| Step::DeleteDrained { original: original() }));
        steps.push(gone());
    }
    steps
}

/// The steps of `devproxy shell`.
pub(crate) fn of_shell(lease: &str, stand_in: &str, config_map: Option<&str>, secret: &str) -> Vec<Step> {
    let mut steps = before_the_pod(lease, stand_in, config_map, secret);
    steps.push(Step::StartStandIn { stand_in: stand_in.to_owned() });
    steps.push(Step::AwaitAgent { stand_in: stand_in.to_owned() });
    steps
}

fn before_the_pod(lease: &str, stand_in: &str, config_map: Option<&str>, secret: &str) -> Vec<Step> {
    let mut steps = vec![
        Step::AcquireLease { lease: lease.to_owned() },
        Step::CreateStandIn { stand_in: stand_in.to_owned() },
    ];
    steps.extend(config_map.map(|config_map| Step::CreateConfigMap { config_map: config_map.to_owned() }));
    steps.push(Step::CreateSecret { secret: secret.to_owned() });
    steps
}
