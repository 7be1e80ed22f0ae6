//! The one error of this crate: a stable code, one line of cause, a hint where there is one.
//!
//! - [`hint`]: what to do about it

mod hint;

use jiff::Timestamp;

use crate::{
    lease::Life,
    resource::{EVERYWHERE, Verb},
};

/// A verb on a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// `get`, `create` …
    pub verb: String,
    /// Plural name, with the subresource.
    pub resource: String,
}

/// Why something about the cluster could not be done.
///
/// The texts are for the person at the terminal; the codes ([`ClusterError::code`]) are stable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No kubeconfig, or one that cannot be read.
    #[error("the kubeconfig cannot be used: {message}")]
    Kubeconfig {
        /// What kube said.
        message: String,
    },
    /// The kubeconfig has no such context.
    #[error("the kubeconfig has no context `{context}`")]
    Context {
        /// What was asked for.
        context: String,
        /// Similar ones.
        nearest: Vec<String>,
    },
    /// No connection, or no answer in time.
    #[error("the API server at {url} cannot be reached: {message}")]
    Unreachable {
        /// Address from the kubeconfig.
        url: String,
        /// What the system said.
        message: String,
    },
    /// The server's certificate, or ours, was not accepted.
    #[error("no trusted connection to {url}: {message}")]
    Tls {
        /// Address from the kubeconfig.
        url: String,
        /// What TLS said.
        message: String,
    },
    /// The login was refused, or could not be renewed.
    #[error("the API server does not accept the login: {message}")]
    Login {
        /// What the server or the login plugin said.
        message: String,
    },
    /// RBAC.
    #[error("user `{user}` may not{}", refusal(rights, namespace))]
    Forbidden {
        /// Best effort: the name in the kubeconfig, or the one that the server gave.
        user: String,
        /// All that are known to be missing; those on one resource beside each other.
        rights: Vec<Right>,
        /// Where; `*` for all.
        namespace: String,
        /// Similar namespaces that the kubeconfig names.
        nearest: Vec<String>,
    },
    /// An admission check (quota, Pod Security, a policy) refused an object.
    #[error("the cluster refused {resource} `{name}`: {message}")]
    Refused {
        /// Plural name.
        resource: String,
        /// Name of the object.
        name: String,
        /// The check's own words.
        message: String,
    },
    /// Any other answer of the API.
    #[error("{verb} {resource} `{name}`: {message}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On which resource.
        resource: &'static str,
        /// On which object; may be empty.
        name: String,
        /// HTTP status, 0 when there was none.
        status: u16,
        /// Machine-readable reason.
        reason: String,
        /// The server's words.
        message: String,
    },
    /// `[NAMESPACE/]NAME` was expected.
    #[error("`{text}` is not the name of a Deployment")]
    Target {
        /// What was given.
        text: String,
    },
    /// A kind that cannot be swapped.
    #[error("`{name}` is a {kind}, and only Deployments can be swapped")]
    Kind {
        /// As Kubernetes calls it.
        kind: String,
        /// Its name.
        name: String,
    },
    /// No such Deployment.
    #[error("no Deployment `{name}` in namespace `{namespace}`")]
    NotFound {
        /// What was asked for.
        name: String,
        /// Where.
        namespace: String,
        /// Similar ones that exist.
        nearest: Vec<String>,
        /// How many Deployments the namespace has, if that could be read.
        known: Option<usize>,
    },
    /// The container has to be named.
    #[error("{deployment} has several containers: {}", containers.join(", "))]
    SeveralContainers {
        /// The Deployment.
        deployment: String,
        /// Their names.
        containers: Vec<String>,
    },
    /// No such container.
    #[error("{deployment} has no container `{container}`")]
    NoContainer {
        /// The Deployment.
        deployment: String,
        /// What was asked for.
        container: String,
        /// What there is.
        containers: Vec<String>,
    },
    /// What was named is itself part of a session, or cannot carry an agent.
    #[error("{name} cannot be swapped: {reason}")]
    Unsuitable {
        /// The Deployment.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Someone has it.
    #[error("{deployment} is swapped by {user} on {host} since {since} (session {session})")]
    Held {
        /// The Deployment.
        deployment: String,
        /// Who.
        user: String,
        /// On which machine.
        host: String,
        /// Since when.
        since: Timestamp,
        /// Id of the session.
        session: String,
        /// Whether somebody is left there.
        life: Life,
        /// It is the user's own, on this laptop.
        own: bool,
    },
    /// No such session.
    #[error("no session `{session}` in namespace `{namespace}`")]
    NoSession {
        /// What was asked for: a session's id or a Deployment's name.
        session: String,
        /// Where.
        namespace: String,
        /// Similar Deployments.
        nearest: Vec<String>,
    },
    /// No such namespace.
    #[error("there is no namespace `{namespace}`")]
    NoNamespace {
        /// What was asked for.
        namespace: String,
        /// Similar ones that exist.
        nearest: Vec<String>,
    },
    /// The Lease of this session vanished or belongs to another one.
    #[error("the session's Lease `{lease}` is gone: {reason}")]
    LeaseLost {
        /// Name of the Lease.
        lease: String,
        /// What was found instead.
        reason: String,
    },
    /// Somebody else put it back.
    #[error("the session was ended by {by}")]
    Ended {
        /// User and machine.
        by: String,
    },
    /// Somebody deleted the stand-in.
    #[error("the stand-in `{stand_in}` was deleted")]
    StandInLost {
        /// Its name.
        stand_in: String,
    },
    /// The record on a Lease cannot be read.
    #[error("the record on Lease `{lease}` cannot be read: {reason}")]
    Record {
        /// Name of the Lease.
        lease: String,
        /// Why.
        reason: String,
    },
    /// The stand-in's pod cannot be placed on a node, or is not created at all.
    #[error("the stand-in's pod cannot be started: {words}")]
    Schedule {
        /// The scheduler's or the controller's own words.
        words: String,
    },
    /// The image cannot be had.
    #[error("the image of the stand-in's pod cannot be used: {words}")]
    Image {
        /// The kubelet's own words.
        words: String,
    },
    /// The agent ended.
    #[error("the agent ended in its pod: {words}")]
    Agent {
        /// Its own last words.
        words: String,
    },
    /// The agent is built for another processor, and so is the other one.
    #[error("the agent does not run on the node's processor: {words}")]
    Processor {
        /// The runtime's own words.
        words: String,
    },
    /// A bounded wait ended.
    #[error("{what} did not happen within {seconds} s{}", if words.is_empty() { String::new() } else { format!(": {words}") })]
    Late {
        /// What was awaited.
        what: String,
        /// How long.
        seconds: u64,
        /// The pod's own words, if any.
        words: String,
    },
    /// Somebody changed the original between plan and handover.
    #[error("{deployment} was changed meanwhile: {change}")]
    Changed {
        /// The Deployment.
        deployment: String,
        /// What changed.
        change: String,
    },
    /// `devproxy shell` found no image that it could use.
    #[error("there is no running pod in namespace `{namespace}` whose image could carry the agent")]
    NoImage {
        /// Where.
        namespace: String,
    },
    /// Loader and agent do not fit.
    #[error("loader and agent have {bytes} bytes, a ConfigMap holds {limit}")]
    TooLarge {
        /// Together.
        bytes: usize,
        /// Limit of the API server.
        limit: usize,
    },
    /// Something of this machine, not of the cluster.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl ClusterError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Kubeconfig { .. } => "DP-KUBECONFIG",
            Self::Context { .. } => "DP-CONTEXT",
            Self::Unreachable { .. } => "DP-UNREACHABLE",
            Self::Tls { .. } => "DP-TLS",
            Self::Login { .. } => "DP-LOGIN",
            Self::Forbidden { .. } => "DP-FORBIDDEN",
            Self::Refused { .. } => "DP-REFUSED",
            Self::Api { .. } => "DP-API",
            Self::Target { .. } => "DP-TARGET",
            Self::Kind { .. } => "DP-KIND",
            Self::NotFound { .. } => "DP-NOT-FOUND",
            Self::SeveralContainers { .. } | Self::NoContainer { .. } => "DP-CONTAINER",
            Self::Unsuitable { .. } => "DP-UNSUITABLE",
            Self::Held { life: Life::Alive, .. } => "DP-HELD",
            Self::Held { .. } => "DP-STALE",
            Self::Ended { .. } => "DP-SESSION-ENDED",
            Self::NoSession { .. } => "DP-NO-SESSION",
            Self::NoNamespace { .. } => "DP-NO-NAMESPACE",
            Self::LeaseLost { .. } => "DP-LEASE-LOST",
            Self::StandInLost { .. } => "DP-STAND-IN-LOST",
            Self::Record { .. } => "DP-RECORD",
            Self::Schedule { .. } => "DP-SCHEDULE",
            Self::Image { .. } => "DP-IMAGE",
            Self::Agent { .. } => "DP-AGENT",
            Self::Processor { .. } => "DP-PROCESSOR",
            Self::Late { .. } => "DP-LATE",
            Self::Changed { .. } => "DP-CHANGED",
            Self::NoImage { .. } => "DP-NO-IMAGE",
            Self::TooLarge { .. } => "DP-TOO-LARGE",
            Self::Local { .. } => "DP-LOCAL",
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { status: 404, .. })
    }

    /// The right is missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// Worth another try: no answer, too many requests, or the server's own trouble.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Api { status: 0 | 429 | 500..=599, .. })
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { status: 409, reason, .. } if reason != "AlreadyExists")
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        matches!(self, Self::Api { reason, .. } if reason == "AlreadyExists")
    }

    pub(crate) fn late(
        what: impl Into<String>,
        limit: std::time::Duration,
        words: impl Into<String>,
    ) -> Self {
        Self::Late { what: what.into(), seconds: limit.as_secs(), words: words.into() }
    }

    pub(crate) fn no_answer(url: &str, verb: Verb, limit: std::time::Duration) -> Self {
        Self::Unreachable {
            url: url.to_owned(),
            message: format!("no answer to {} within {} s", verb.name(), limit.as_secs()),
        }
    }
}

/// What follows on `may not`.
fn refusal(rights: &[Right], namespace: &str) -> String {
    let place = match namespace {
        EVERYWHERE => "in all namespaces".to_owned(),
        namespace => format!("in namespace `{namespace}`"),
    };
    let resources: Vec<String> = rights
        .chunk_by(|one, next| one.resource == next.resource)
        .map(|chunk| {
            let verbs: Vec<_> = chunk.iter().map(|right| right.verb.as_str()).collect();
            format!("{} {}", verbs.join(", "), chunk[0].resource)
        })
        .collect();
    match &rights {
        [_] => format!(" {} {place}", resources.concat()),
        _ => format!(", {place}: {}", resources.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_who_is_gone_leads_to_restore() {
        let held = |life| ClusterError::Held {
            deployment: "shop/cart".into(),
            user: "ann".into(),
            host: "box".into(),
            since: Timestamp::UNIX_EPOCH,
            session: "k7f2".into(),
            life,
            own: false,
        };
        assert_eq!(held(Life::Alive).code(), "DP-HELD");
        for gone in [Life::Expired, Life::Dead] {
            assert_eq!(held(gone).code(), "DP-STALE");
            assert!(held(gone).hint().is_some_and(|hint| hint.contains("`devproxy restore shop/cart`")));
        }
        assert!(held(Life::Alive).to_string().contains("ann on box since 1970"));
    }

    #[test]
    fn a_missing_right_names_verb_resource_and_the_remedy() {
        let error = |user: &str, rights: &[(&str, &str)]| ClusterError::Forbidden {
            user: user.into(),
            rights: rights
                .iter()
                .map(|(verb, resource)| Right { verb: (*verb).into(), resource: (*resource).into() })
                .collect(),
            namespace: "shop".into(),
            nearest: Vec::new(),
        };
        let one = error("ann@example.org", &[("create", "pods/portforward")]);
        assert_eq!(
            one.to_string(),
            "user `ann@example.org` may not create pods/portforward in namespace `shop`"
        );
        assert!(one.hint().is_some_and(|hint| hint.contains("--user=ann@example.org -n shop")));
        let rights = [("create", "leases"), ("patch", "leases"), ("create", "secrets")];
        let several = error("system:serviceaccount:ci:ann", &rights);
        assert_eq!(
            several.to_string(),
            "user `system:serviceaccount:ci:ann` may not, in namespace `shop`: create, patch leases; create secrets"
        );
        let hint = several.hint().unwrap();
        assert!(hint.contains("rolebinding devproxy-ann --clusterrole=edit --serviceaccount=ci:ann -n shop"));
    }
}
