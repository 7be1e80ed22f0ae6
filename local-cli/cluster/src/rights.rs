//! Which rights a session and its restore need, checked before anything is changed.

use serde_json::{Value, json};

use crate::{
    ClusterError, Connection, Right,
    find::forbidden_or_missing,
    json::{list, text},
    resource::{Kind, Objects},
};

/// Group, resource, verb; in the order in which they would be missed.
type Needed = [(&'static str, &'static str, &'static str)];

/// Those of a session.
const SWAP: &Needed = &[
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "patch"),
    ("coordination.k8s.io", "leases", "delete"),
    ("apps", "deployments", "create"),
    ("apps", "deployments", "patch"),
    ("apps", "deployments", "delete"),
    ("", "configmaps", "create"),
    ("", "configmaps", "delete"),
    ("", "secrets", "create"),
    ("", "secrets", "delete"),
    ("", "pods", "list"),
    ("", "pods/portforward", "create"),
];

/// Those that `--drain=labels` needs as well.
const DRAIN: &Needed = &[("", "pods", "patch"), ("", "pods", "delete")];

/// Those of a restore from the record.
const RESTORE: &Needed = &[
    ("coordination.k8s.io", "leases", "get"),
    ("coordination.k8s.io", "leases", "list"),
    ("coordination.k8s.io", "leases", "patch"),
    ("coordination.k8s.io", "leases", "delete"),
    ("apps", "deployments", "get"),
    ("apps", "deployments", "patch"),
    ("apps", "deployments", "delete"),
    ("", "configmaps", "delete"),
    ("", "secrets", "delete"),
    ("", "pods", "list"),
];

/// `found`, if all that it needs to be put back is allowed; otherwise all that is missing, not only what would be met
/// first, with half of the restore behind it.
pub async fn restorable<T>(
    connection: &Connection,
    found: Result<T, ClusterError>,
) -> Result<T, ClusterError> {
    let found = forbidden_or_missing(connection, found).await;
    if found.as_ref().is_err_and(|error| !error.is_forbidden()) {
        return found;
    }
    let rights = Rights::of(connection, RESTORE).await?;
    match rights.missing(connection).await {
        Some(missing) => Err(missing),
        None => found,
    }
}

/// What the API server says about our rights.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// All that would be missed: resource and verb.
    missing: Vec<(&'static str, &'static str)>,
    /// Whether nodes may be read, by which a guess gets better.
    pub(crate) nodes: bool,
}

impl Rights {
    /// Those that a session needs.
    pub(crate) async fn to_swap(connection: &Connection, drains: bool) -> Result<Self, ClusterError> {
        let needed = if drains { [SWAP, DRAIN].concat() } else { SWAP.to_vec() };
        Self::of(connection, &needed).await
    }

    /// Some authorizers cannot list what is allowed; then nothing is missing here, and the step that needs the right
    /// tells.
    async fn of(connection: &Connection, needed: &Needed) -> Result<Self, ClusterError> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": connection.namespace},
        });
        match Objects::everywhere(connection, Kind::SelfSubjectRulesReview).create(&review).await {
            Ok(answer) => Ok(Self::told(&answer, needed)),
            Err(error)
                if error.is_transient()
                    || matches!(error, ClusterError::Login { .. } | ClusterError::Tls { .. }) =>
            {
                Err(error)
            }
            Err(_) => Ok(Self { missing: Vec::new(), nodes: true }),
        }
    }

    /// The error about what is missing.
    pub(crate) async fn missing(&self, connection: &Connection) -> Option<ClusterError> {
        if self.missing.is_empty() {
            return None;
        }
        let right =
            |(resource, verb): &(&str, &str)| Right { verb: (*verb).into(), resource: (*resource).into() };
        Some(ClusterError::Forbidden {
            user: own_name(connection).await.unwrap_or_else(|| connection.user.clone()),
            rights: self.missing.iter().map(right).collect(),
            namespace: connection.namespace.clone(),
            nearest: connection.similar_namespaces(),
        })
    }

    fn told(review: &Value, needed: &Needed) -> Self {
        let rules = list(review, "/status/resourceRules");
        if rules.is_empty() || review.pointer("/status/incomplete") == Some(&Value::Bool(true)) {
            return Self { missing: Vec::new(), nodes: true };
        }
        let has = |list: &[Value], wanted: &str| list.iter().any(|entry| entry == wanted || entry == "*");
        let may = |(group, resource, verb): &(&str, &str, &str)| {
            rules.iter().any(|rule| {
                list(rule, "/resourceNames").is_empty()
                    && has(list(rule, "/apiGroups"), group)
                    && has(list(rule, "/resources"), resource)
                    && has(list(rule, "/verbs"), verb)
            })
        };
        let missing = needed.iter().filter(|right| !may(right));
        Self {
            missing: missing.map(|(_, resource, verb)| (*resource, *verb)).collect(),
            nodes: may(&("", "nodes", "get")),
        }
    }
}

/// As the server calls us, which the name in the kubeconfig need not be: a right is granted to the server's name.
async fn own_name(connection: &Connection) -> Option<String> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = Objects::everywhere(connection, Kind::SelfSubjectReview).create(&review).await.ok()?;
    Some(text(&answer, "/status/userInfo/username").to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(rules: &Value, incomplete: bool) -> Value {
        json!({"status": {"incomplete": incomplete, "resourceRules": rules}})
    }

    fn missing(review: &Value) -> Vec<(&'static str, &'static str)> {
        Rights::told(review, SWAP).missing
    }

    #[test]
    fn all_rights_are_enough_and_all_that_are_missing_are_told() {
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        assert_eq!(missing(&review(&all, false)), []);
        let some = json!([
            {"verbs": ["*"], "apiGroups": ["", "apps"], "resources": ["pods", "deployments", "configmaps"]},
            {"verbs": ["create", "delete"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]},
        ]);
        assert_eq!(
            missing(&review(&some, false)),
            [
                ("leases", "patch"),
                ("secrets", "create"),
                ("secrets", "delete"),
                ("pods/portforward", "create")
            ]
        );
        assert_eq!(missing(&review(&some, true)), []);
    }

    #[test]
    fn a_right_on_one_name_is_not_the_right() {
        let rules = json!([
            {"verbs": ["*"], "apiGroups": ["apps", ""], "resources": ["*"]},
            {"verbs": ["create", "patch"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]},
            {"verbs": ["delete"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["x"]},
        ]);
        assert_eq!(missing(&review(&rules, false)), [("leases", "delete")]);
    }

    #[test]
    fn taking_labels_off_needs_more() {
        let rules = json!([
            {"verbs": ["*"], "apiGroups": ["apps", "coordination.k8s.io"], "resources": ["*"]},
            {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps", "secrets", "pods/portforward"]},
            {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]},
        ]);
        let told = |needed: &Needed| Rights::told(&review(&rules, false), needed).missing;
        assert_eq!(told(SWAP), []);
        assert_eq!(told(&[SWAP, DRAIN].concat()), [("pods", "patch"), ("pods", "delete")]);
    }

    #[test]
    fn nodes_are_asked_for_only_where_they_may_be_read() {
        let nodes = |resources: Value, incomplete| {
            let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": resources}]);
            Rights::told(&review(&rules, incomplete), SWAP).nodes
        };
        assert!(nodes(json!(["nodes"]), false) && !nodes(json!(["pods"]), false));
        assert!(nodes(json!(["pods"]), true), "an authorizer that does not tell all");
    }
}
