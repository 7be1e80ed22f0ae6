//! Which rights a session needs, checked before anything is changed.

use serde_json::{Value, json};

use crate::{
    ClusterError, Connection,
    json::list,
    resource::{Kind, Objects},
};

/// Group, resource, verb; in the order in which a session would miss them.
const NEEDED: &[(&str, &str, &str)] = &[
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

/// The first right that is missing. Some authorizers cannot list what is allowed; then nothing is said here, and the
/// step that needs the right tells.
pub(super) async fn missing(connection: &Connection) -> Result<Option<ClusterError>, ClusterError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": connection.namespace},
    });
    let answer = match Objects::everywhere(connection, Kind::SelfSubjectRulesReview).create(&review).await {
        Ok(answer) => answer,
        Err(error)
            if error.is_transient()
                || matches!(error, ClusterError::Login { .. } | ClusterError::Tls { .. }) =>
        {
            return Err(error);
        }
        Err(_) => return Ok(None),
    };
    Ok(first_missing(&answer).map(|(resource, verb)| ClusterError::Forbidden {
        user: connection.user.clone(),
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        namespace: connection.namespace.clone(),
    }))
}

fn first_missing(review: &Value) -> Option<(&'static str, &'static str)> {
    let rules = list(review, "/status/resourceRules");
    if rules.is_empty() || review.pointer("/status/incomplete") == Some(&Value::Bool(true)) {
        return None;
    }
    let has = |list: &[Value], wanted: &str| list.iter().any(|entry| entry == wanted || entry == "*");
    NEEDED
        .iter()
        .find(|(group, resource, verb)| {
            !rules.iter().any(|rule| {
                list(rule, "/resourceNames").is_empty()
                    && has(list(rule, "/apiGroups"), group)
                    && has(list(rule, "/resources"), resource)
                    && has(list(rule, "/verbs"), verb)
            })
        })
        .map(|(_, resource, verb)| (*resource, *verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(rules: &Value, incomplete: bool) -> Value {
        json!({"status": {"incomplete": incomplete, "resourceRules": rules}})
    }

    #[test]
    fn all_rights_are_enough_and_none_is_told() {
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        assert_eq!(first_missing(&review(&all, false)), None);
        let view = json!([{"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods", "deployments"]}]);
        assert_eq!(first_missing(&review(&view, false)), Some(("leases", "create")));
        assert_eq!(first_missing(&review(&view, true)), None);
    }

    #[test]
    fn a_right_on_one_name_is_not_the_right() {
        let rules = json!([
            {"verbs": ["*"], "apiGroups": ["apps", ""], "resources": ["*"]},
            {"verbs": ["create", "patch"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]},
            {"verbs": ["delete"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["x"]},
        ]);
        assert_eq!(first_missing(&review(&rules, false)), Some(("leases", "delete")));
    }
}
