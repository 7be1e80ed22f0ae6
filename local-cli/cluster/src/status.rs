//! Who holds what: read from the Leases, and from the pods that carry an agent.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ClusterError, Connection,
    find::forbidden_or_missing,
    json::{name, text},
    lease::{self, Life},
    name::SESSION_LABEL,
    pod,
    record::{Phase, Record},
    resource::{Kind, Objects},
};

/// One session in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub session: String,
    /// Where.
    pub namespace: String,
    /// The Deployment whose place is taken; `None` for `devproxy shell`.
    pub deployment: Option<String>,
    /// Its replicas before.
    pub replicas: i64,
    /// Who.
    pub user: String,
    /// On which machine.
    pub host: String,
    /// Since when.
    pub since: Timestamp,
    /// Last sign of life.
    pub renewed: Option<Timestamp>,
    /// No sign of life for longer than the grace period.
    pub expired: bool,
    /// Whether somebody is left to end it.
    pub life: Life,
    /// How far it has come.
    pub phase: Phase,
    /// Name of the stand-in.
    pub stand_in: String,
    /// Its pod.
    pub agent: Option<AgentHealth>,
}

/// The pod that carries a session's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHealth {
    /// Its name.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// Reached through its Services.
    pub ready: bool,
    /// Its own words, when something is wrong.
    pub words: Option<String>,
}

/// The sessions of the connection's namespace, or of all. A Lease whose record cannot be read is left out with a
/// warning in the log.
pub async fn sessions(
    connection: &Connection,
    all_namespaces: bool,
) -> Result<Vec<SessionInfo>, ClusterError> {
    let of = |kind| {
        if all_namespaces { Objects::everywhere(connection, kind) } else { Objects::new(connection, kind) }
    };
    let (leases, pods) = (of(Kind::Lease), of(Kind::Pod));
    let (leases, pods) = futures::join!(leases.list(SESSION_LABEL), pods.list(SESSION_LABEL));
    let (leases, _) = match leases {
        Err(error) if !all_namespaces => forbidden_or_missing(connection, Err(error)).await?,
        leases => leases?,
    };
    let pods = match pods {
        Ok((pods, _)) => pods,
        Err(error) if error.is_forbidden() => Vec::new(),
        Err(error) => return Err(error),
    };
    let now = Timestamp::now();
    let mut sessions: Vec<SessionInfo> = leases
        .iter()
        .filter_map(|lease| match Record::of_lease(lease) {
            Ok(record) => Some(info(lease, record, &pods, now)),
            Err(error) => {
                tracing::warn!(lease = name(lease), %error, "a session's record cannot be read");
                None
            }
        })
        .collect();
    sessions.sort_by(|a, b| {
        (&a.namespace, &a.deployment, &a.session).cmp(&(&b.namespace, &b.deployment, &b.session))
    });
    Ok(sessions)
}

fn info(lease: &Value, record: Record, pods: &[Value], now: Timestamp) -> SessionInfo {
    let pod = pods.iter().find(|pod| {
        text(pod, "/metadata/namespace") == record.namespace && lease::session_of(pod) == record.session
    });
    let agent = pod.map(|pod| {
        let ready = pod::is_ready(pod);
        AgentHealth {
            pod: name(pod).to_owned(),
            node: text(pod, "/spec/nodeName").to_owned(),
            ready,
            words: if ready { None } else { pod::words_of_failure(pod) },
        }
    });
    let (deployment, replicas) = match record.original {
        Some(original) => (Some(original.name), original.replicas),
        None => (None, 0),
    };
    let life = Life::of(lease, &record.holder, now);
    SessionInfo {
        session: record.session,
        namespace: record.namespace,
        deployment,
        replicas,
        user: record.holder.user,
        host: record.holder.host,
        since: record.since,
        renewed: lease::renewed(lease),
        expired: lease::expired(lease, now),
        life,
        phase: record.phase,
        stand_in: record.stand_in,
        agent,
    }
}
