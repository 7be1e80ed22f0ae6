//! Everything that a plan looks at, in two rounds of parallel reads: each round is waited for by a person.

use futures::join;
use serde_json::Value;

use super::{Architecture, Drain};
use crate::{
    ClusterError, Connection,
    find::require_namespace,
    json::{list, name, selector_query, text},
    name::{SESSION_LABEL, lease as lease_name},
    pod::is_ready,
    resource::{Kind, Objects},
    rights::Rights,
    target::nearest,
};

/// What was found; lists are empty where the right to read them is missing.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) deployment: Value,
    pub(super) services: Vec<Value>,
    /// The original's pods.
    pub(super) pods: Vec<Value>,
    pub(super) autoscalers: Vec<Value>,
    pub(super) budgets: Vec<Value>,
    pub(super) quotas: Vec<Value>,
    pub(super) limit_ranges: Vec<Value>,
    pub(super) claims: Vec<Value>,
    /// `kubernetes.io/arch` of the node of one of the pods.
    pub(super) node_architecture: Option<String>,
    /// The API server's own platform, `linux/amd64`.
    pub(super) platform: String,
    /// `automountServiceAccountToken` of the ServiceAccount.
    pub(super) automount: Option<bool>,
    /// Of the session that holds it.
    pub(super) lease: Option<Value>,
}

impl Found {
    pub(super) fn ready_pods(&self) -> i64 {
        i64::try_from(self.pods.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(i64::MAX)
    }

    /// A `LimitRange` that fills in what a container lacks: then our own values could only break its bounds.
    pub(super) fn limit_range_has_defaults(&self) -> bool {
        self.limit_ranges
            .iter()
            .flat_map(|range| list(range, "/spec/limits"))
            .any(|limit| text(limit, "/type") == "Container")
    }

    /// The template's own words, the node of a pod, the API server's: the nearest to the truth first.
    pub(super) fn architecture(&self, template: &Value) -> Architecture {
        let selected = text(template, "/spec/nodeSelector/kubernetes.io~1arch");
        let platform = self.platform.split_once('/').map_or("", |(_, architecture)| architecture);
        [selected, self.node_architecture.as_deref().unwrap_or_default(), platform]
            .into_iter()
            .find_map(Architecture::from_label)
            .unwrap_or(Architecture::Amd64)
    }
}

pub(super) async fn all(
    connection: &Connection,
    deployment: &str,
    drain: Drain,
) -> Result<Found, ClusterError> {
    let of = |kind| Objects::new(connection, kind);
    let deployments = of(Kind::Deployment);
    let leases = of(Kind::Lease);
    let lease = lease_name(deployment);
    let (services, autoscalers, budgets, quotas, limit_ranges, claims) = (
        of(Kind::Service),
        of(Kind::HorizontalPodAutoscaler),
        of(Kind::PodDisruptionBudget),
        of(Kind::ResourceQuota),
        of(Kind::LimitRange),
        of(Kind::PersistentVolumeClaim),
    );
    let (object, held_by, rights, services, autoscalers, budgets, quotas, limit_ranges, claims, platform) = join!(
        deployments.find(deployment),
        leases.find(&lease),
        Rights::to_swap(connection, drain == Drain::Labels),
        services.list_if_allowed(),
        autoscalers.list_if_allowed(),
        budgets.list_if_allowed(),
        quotas.list_if_allowed(),
        limit_ranges.list_if_allowed(),
        claims.list_if_allowed(),
        connection.client.apiserver_version(),
    );
    // The Deployment first: with an API that is away or a wrong name, its error is the one to tell.
    let Some(object) = object? else {
        return Err(not_found(connection, deployment).await);
    };
    let lease = match held_by {
        Ok(lease) => lease,
        Err(error) if error.is_forbidden() => None,
        Err(error) => return Err(error),
    };
    let rights = rights?;
    if let Some(missing) = rights.missing(connection).await {
        return Err(missing);
    }
    let selector = format!("{},!{SESSION_LABEL}", selector_query(object.pointer("/spec/selector")));
    let account = match text(&object, "/spec/template/spec/serviceAccountName") {
        "" => "default",
        account => account,
    };
    let (pods, service_accounts) = (of(Kind::Pod), of(Kind::ServiceAccount));
    let (pods, account) = join!(pods.list(&selector), service_accounts.get(account));
    let pods = match pods {
        Ok((pods, _)) => pods,
        Err(error) if error.is_forbidden() => Vec::new(),
        Err(error) => return Err(error),
    };
    let node = pods.iter().map(|pod| text(pod, "/spec/nodeName")).find(|node| !node.is_empty());
    let node_architecture = match node {
        Some(node) if rights.nodes => of(Kind::Node)
            .get(node)
            .await
            .ok()
            .map(|node| text(&node, "/metadata/labels/kubernetes.io~1arch").to_owned()),
        _ => None,
    };
    Ok(Found {
        deployment: object,
        services: services?,
        pods,
        autoscalers: autoscalers?,
        budgets: budgets?,
        quotas: quotas?,
        limit_ranges: limit_ranges?,
        claims: claims?,
        node_architecture,
        platform: platform.map(|version| version.platform).unwrap_or_default(),
        automount: account.ok().and_then(|account| account.get("automountServiceAccountToken")?.as_bool()),
        lease,
    })
}

/// What there is instead: another kind of this name, or similar names.
pub(crate) async fn not_found(connection: &Connection, wanted: &str) -> ClusterError {
    let (deployments, stateful, daemons) = (
        Objects::new(connection, Kind::Deployment),
        Objects::new(connection, Kind::StatefulSet),
        Objects::new(connection, Kind::DaemonSet),
    );
    let (deployments, stateful, daemons) =
        join!(deployments.list(""), stateful.find(wanted), daemons.find(wanted));
    for (found, kind) in [(stateful, "StatefulSet"), (daemons, "DaemonSet")] {
        if matches!(found, Ok(Some(_))) {
            return ClusterError::Kind { kind: kind.to_owned(), name: wanted.to_owned() };
        }
    }
    if let (Ok((all, _)), Err(missing)) = (&deployments, require_namespace(connection).await)
        && all.is_empty()
    {
        return missing;
    }
    let names: Option<Vec<String>> =
        deployments.ok().map(|(all, _)| all.iter().map(|deployment| name(deployment).to_owned()).collect());
    ClusterError::NotFound {
        name: wanted.to_owned(),
        namespace: connection.namespace.clone(),
        known: names.as_ref().map(Vec::len),
        nearest: nearest(wanted, names.unwrap_or_default()),
    }
}
