//! Requests on the objects of one kind in one namespace: JSON in, JSON out, each with a time limit and with its errors
//! in our words.

use std::{
    error::Error as _,
    io,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use kube::{
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams},
    core::{Request, params::GetParams},
};
use serde_json::{Value, json};

use crate::{
    ClusterError, Connection, Right,
    api::CONNECT_LIMIT,
    json::{list, name, text},
    name::MANAGER,
};

/// Longest wait for the answer to a read.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a write; the ConfigMap has up to 1.4 MB on the wire, which a slow uplink needs time
/// for.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Stands for a namespace in [`ClusterError::Forbidden`].
pub(crate) const EVERYWHERE: &str = "*";

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Patch,
    Delete,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    fn limit(self) -> Duration {
        if matches!(self, Self::Get | Self::List | Self::Watch) { READ_LIMIT } else { WRITE_LIMIT }
    }
}

/// The kinds that we touch or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Event,
    HorizontalPodAutoscaler,
    Lease,
    LimitRange,
    Namespace,
    Node,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ResourceQuota,
    Secret,
    SelfSubjectReview,
    SelfSubjectRulesReview,
    Service,
    ServiceAccount,
    StatefulSet,
}

impl Kind {
    /// Group and version, then the plural name.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::ConfigMap => ("v1", "configmaps"),
            Self::DaemonSet => ("apps/v1", "daemonsets"),
            Self::Deployment => ("apps/v1", "deployments"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "endpointslices"),
            Self::Event => ("v1", "events"),
            Self::HorizontalPodAutoscaler => ("autoscaling/v2", "horizontalpodautoscalers"),
            Self::Lease => ("coordination.k8s.io/v1", "leases"),
            Self::LimitRange => ("v1", "limitranges"),
            Self::Namespace => ("v1", "namespaces"),
            Self::Node => ("v1", "nodes"),
            Self::PersistentVolumeClaim => ("v1", "persistentvolumeclaims"),
            Self::Pod => ("v1", "pods"),
            Self::PodDisruptionBudget => ("policy/v1", "poddisruptionbudgets"),
            Self::ResourceQuota => ("v1", "resourcequotas"),
            Self::Secret => ("v1", "secrets"),
            Self::SelfSubjectReview => ("authentication.k8s.io/v1", "selfsubjectreviews"),
            Self::SelfSubjectRulesReview => ("authorization.k8s.io/v1", "selfsubjectrulesreviews"),
            Self::Service => ("v1", "services"),
            Self::ServiceAccount => ("v1", "serviceaccounts"),
            Self::StatefulSet => ("apps/v1", "statefulsets"),
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        self.place().1
    }

    /// Not in a namespace.
    fn is_of_cluster(self) -> bool {
        matches!(self, Self::Namespace | Self::Node | Self::SelfSubjectReview | Self::SelfSubjectRulesReview)
    }

    pub(crate) fn path(self, namespace: Option<&str>) -> String {
        let (version, plural) = self.place();
        let root = if version == "v1" { "/api" } else { "/apis" };
        match namespace {
            Some(namespace) if !self.is_of_cluster() => {
                format!("{root}/{version}/namespaces/{namespace}/{plural}")
            }
            _ => format!("{root}/{version}/{plural}"),
        }
    }
}

/// The objects of one kind, in the connection's namespace or in all.
#[derive(Clone)]
pub(crate) struct Objects<'a> {
    connection: &'a Connection,
    kind: Kind,
    path: String,
    everywhere: bool,
}

/// Why a merge patch is sent: with which fields of the object as a condition.
pub(crate) enum Condition<'a> {
    /// None: the object is ours by its name.
    Always,
    /// Only this version of the object.
    Version(&'a str),
    /// Only this object, not another one of the same name.
    Uid(&'a str),
}

impl<'a> Objects<'a> {
    pub(crate) fn new(connection: &'a Connection, kind: Kind) -> Self {
        let path = kind.path(Some(&connection.namespace));
        Self { connection, kind, path, everywhere: false }
    }

    pub(crate) fn everywhere(connection: &'a Connection, kind: Kind) -> Self {
        Self { connection, kind, path: kind.path(None), everywhere: true }
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Value, ClusterError> {
        let request = Request::new(&self.path).get(name, &GetParams::default());
        self.send(Verb::Get, name, request).await
    }

    /// `None` when it does not exist.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Value>, ClusterError> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The items, and the version of the list, from which a watch continues.
    pub(crate) async fn list(&self, selector: &str) -> Result<(Vec<Value>, String), ClusterError> {
        let params =
            if selector.is_empty() { ListParams::default() } else { ListParams::default().labels(selector) };
        let mut list: Value = self.send(Verb::List, "", Request::new(&self.path).list(&params)).await?;
        let version = text(&list, "/metadata/resourceVersion").to_owned();
        let items = match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        Ok((items, version))
    }

    /// The names of at most `limit` objects, without their bodies.
    pub(crate) async fn names(&self, selector: &str, limit: u32) -> Result<Vec<String>, ClusterError> {
        let params = ListParams::default().labels(selector).limit(limit);
        let request = Request::new(&self.path).list_metadata(&params);
        let found: Value = self.send(Verb::List, "", request).await?;
        Ok(list(&found, "/items").iter().map(|object| name(object).to_owned()).collect())
    }

    /// The same for what is nice to know: without the right, or without the API, there is nothing.
    pub(crate) async fn list_if_allowed(&self) -> Result<Vec<Value>, ClusterError> {
        match self.list("").await {
            Ok((items, _)) => Ok(items),
            Err(error) if error.is_forbidden() || error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn create(&self, object: &Value) -> Result<Value, ClusterError> {
        let name = text(object, "/metadata/name");
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let request = Request::new(&self.path).create(&params, object.to_string().into_bytes());
        self.send(Verb::Create, name, request).await
    }

    /// A JSON merge patch.
    pub(crate) async fn merge(
        &self,
        name: &str,
        condition: Condition<'_>,
        mut patch: Value,
    ) -> Result<Value, ClusterError> {
        match condition {
            Condition::Always => {}
            Condition::Version(version) => patch["metadata"]["resourceVersion"] = json!(version),
            Condition::Uid(uid) => patch["metadata"]["uid"] = json!(uid),
        }
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(&self.path).patch(name, &params, &Patch::Merge(patch));
        self.send(Verb::Patch, name, request).await
    }

    /// Deletes in the background; what is already gone is fine. With `uid`, only that very object.
    pub(crate) async fn delete(&self, name: &str, uid: Option<&str>) -> Result<(), ClusterError> {
        let mut params = DeleteParams::background();
        if let Some(uid) = uid {
            params =
                params.preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        }
        match self.send(Verb::Delete, name, Request::new(&self.path).delete(name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The changes after `version`, for at most `seconds`.
    pub(crate) async fn watch(
        &self,
        selector: &str,
        version: &str,
        seconds: u32,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Value>, ClusterError>> + use<'a>, ClusterError> {
        let mut params = WatchParams::default().timeout(seconds);
        if !selector.is_empty() {
            params = params.labels(selector);
        }
        let request = Request::new(&self.path)
            .watch(&params, version)
            .map_err(|error| self.unsent(Verb::Watch, &error))?;
        let started = self.connection.client.request_events::<Value>(request);
        let (connection, kind) = (self.connection, self.kind);
        match tokio::time::timeout(READ_LIMIT, started).await {
            Ok(Ok(events)) => {
                let ours = move |error| translate(connection, kind, Verb::Watch, "", error);
                Ok(events.map(move |event| event.map_err(ours)))
            }
            Ok(Err(error)) => Err(translate(self.connection, self.kind, Verb::Watch, "", error)),
            Err(_) => Err(ClusterError::no_answer(&self.connection.cluster_url, Verb::Watch, READ_LIMIT)),
        }
    }

    async fn send(
        &self,
        verb: Verb,
        name: &str,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, ClusterError> {
        let request = request.map_err(|error| self.unsent(verb, &error))?;
        let since = Instant::now();
        let answer = tokio::time::timeout(verb.limit(), self.connection.client.request(request)).await;
        let milliseconds = since.elapsed().as_millis();
        tracing::debug!(verb = verb.name(), kind = self.kind.plural(), name, milliseconds, "request");
        match answer {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(match translate(self.connection, self.kind, verb, name, error) {
                ClusterError::Forbidden { user, rights, .. } if self.everywhere => {
                    let (namespace, nearest) = (EVERYWHERE.to_owned(), Vec::new());
                    ClusterError::Forbidden { user, rights, namespace, nearest }
                }
                error => error,
            }),
            Err(_) => Err(ClusterError::no_answer(&self.connection.cluster_url, verb, verb.limit())),
        }
    }

    fn unsent(&self, verb: Verb, error: &kube::core::request::Error) -> ClusterError {
        ClusterError::Api {
            verb: verb.name(),
            resource: self.kind.plural(),
            name: String::new(),
            status: 400,
            reason: "BadRequest".into(),
            message: error.to_string(),
        }
    }
}

/// kube's error in our words.
pub(crate) fn translate(
    connection: &Connection,
    kind: Kind,
    verb: Verb,
    name: &str,
    error: kube::Error,
) -> ClusterError {
    let status = match error {
        kube::Error::Api(status) => status,
        other => return connection_trouble(connection, &other),
    };
    let api = |status: Box<kube::core::Status>| ClusterError::Api {
        verb: verb.name(),
        resource: kind.plural(),
        name: name.to_owned(),
        status: status.code,
        reason: status.reason,
        message: status.message,
    };
    match status.code {
        401 => ClusterError::Login { message: status.message },
        // RBAC says `User "ann" cannot create resource "pods" in API group "" in the namespace "shop"`; quota, Pod
        // Security and other admission checks answer 403 as well, in other words.
        403 => match refused_right(&status.message) {
            Some((user, resource)) => ClusterError::Forbidden {
                user: user.unwrap_or(&connection.user).to_owned(),
                rights: vec![Right {
                    verb: verb.name().to_owned(),
                    resource: resource.unwrap_or_else(|| kind.plural()).to_owned(),
                }],
                namespace: connection.namespace.clone(),
                nearest: connection.similar_namespaces(),
            },
            None => ClusterError::Refused {
                resource: kind.plural().to_owned(),
                name: name.to_owned(),
                message: status.message,
            },
        },
        // Policies and webhooks choose their status themselves.
        _ if is_denial(&status.message) => ClusterError::Refused {
            resource: kind.plural().to_owned(),
            name: name.to_owned(),
            message: status.message,
        },
        _ => api(status),
    }
}

/// The words of the API server about a `ValidatingAdmissionPolicy`, and about a webhook.
fn is_denial(message: &str) -> bool {
    message.contains("denied request: ") || message.contains("denied the request")
}

/// User and resource in the words of the RBAC authorizer, `None` if they are not its words.
fn refused_right(message: &str) -> Option<(Option<&str>, Option<&str>)> {
    let quoted = |after: &str| {
        let rest = message.split_once(after)?.1;
        Some(rest.split_once('"')?.0)
    };
    message.contains("cannot ").then_some(())?;
    let resource = quoted("resource \"");
    resource.map(|resource| (quoted("User \""), Some(resource)))
}

/// No answer of the API at all: login plugin, TLS, or the connection.
fn connection_trouble(connection: &Connection, error: &kube::Error) -> ClusterError {
    let mut words = vec![error.to_string()];
    let mut login = matches!(error, kube::Error::Auth(_));
    // Also below TLS, whose words would speak of a handshake: a load balancer without a server behind it.
    let mut broken = false;
    let mut source = error.source();
    while let Some(inner) = source {
        login |= inner.is::<kube::client::AuthError>();
        broken |= inner.downcast_ref::<io::Error>().is_some_and(|error| {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
        });
        words.push(inner.to_string());
        source = inner.source();
    }
    let url = connection.cluster_url.clone();
    let message = words.last().cloned().unwrap_or_default().replace('\n', " ");
    let all = words.join(" ").to_lowercase();
    if login || all.contains("auth exec") || all.contains("exec-plugin") {
        return ClusterError::Login {
            message: words.into_iter().next().unwrap_or_default().replace('\n', " "),
        };
    }
    if !broken && (all.contains("certificate") || all.contains("tls") || all.contains("handshake")) {
        return ClusterError::Tls { url, message };
    }
    // The words of the connection's own limit, of which it tells nothing else.
    if message == "deadline has elapsed" {
        let message = format!("no connection within {} s", CONNECT_LIMIT.as_secs());
        return ClusterError::Unreachable { url, message };
    }
    ClusterError::Unreachable { url, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::answered;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(Kind::Pod.path(Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(Kind::Deployment.path(Some("shop")), "/apis/apps/v1/namespaces/shop/deployments");
        assert_eq!(Kind::Lease.path(None), "/apis/coordination.k8s.io/v1/leases");
        assert_eq!(Kind::Node.path(Some("shop")), "/api/v1/nodes");
    }

    #[tokio::test]
    async fn a_connection_that_ends_below_tls_is_no_trouble_with_a_certificate() {
        let connection = answered(|_, _, _| (200, Value::Null));
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        let bad = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate: Expired");
        for (error, code) in [(eof, "DP-UNREACHABLE"), (bad, "DP-TLS")] {
            let error = connection_trouble(&connection, &kube::Error::Service(error.into()));
            assert_eq!(error.code(), code);
        }
    }

    #[test]
    fn rbac_is_told_apart_from_admission() {
        let rbac = r#"leases.coordination.k8s.io is forbidden: User "ann" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "shop""#;
        assert_eq!(refused_right(rbac), Some((Some("ann"), Some("leases"))));
        let portforward = r#"pods "x" is forbidden: User "ann" cannot create resource "pods/portforward" in API group "" in the namespace "shop""#;
        assert_eq!(refused_right(portforward), Some((Some("ann"), Some("pods/portforward"))));
        assert_eq!(refused_right(r#"pods "x" is forbidden: exceeded quota: small, requested: pods=1"#), None);
        assert_eq!(refused_right(r#"pods "x" is forbidden: violates PodSecurity "restricted:latest""#), None);
    }

    #[test]
    fn a_policy_is_told_apart_from_a_mistake_of_ours() {
        let policy = r#"leases.coordination.k8s.io "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no"#;
        assert!(is_denial(policy));
        assert!(is_denial(r#"admission webhook "w.example.org" denied the request: no"#));
        assert!(!is_denial(r#"Deployment.apps "x" is invalid: spec.selector: Required value"#));
    }
}
