//! `--drain=labels`: which labels lead clients and controllers to the original's pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Handover, Warning, read::Found};
use crate::json::{list, name, text};

/// The label that a Deployment gives to the pods of each of its ReplicaSets.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The keys of the labels to take off: those by which Services find the pods, and those by which their ReplicaSet does,
/// which otherwise would end them when it is scaled. The warning why it makes no sense, otherwise.
pub(super) fn labels(
    found: &Found,
    template: &Value,
    services: &[String],
    handover: Handover,
    replicas: i64,
) -> Result<Vec<String>, Warning> {
    let useless = |why: &str| {
        Err(Warning { code: "drain".into(), text: format!("--drain=labels does nothing here: {why}") })
    };
    if handover == Handover::OriginalFirst {
        return useless("the original has to leave before the stand-in can come");
    }
    if replicas == 0 {
        return useless("it has 0 replicas");
    }
    if services.is_empty() {
        return useless("no Service leads to its pods");
    }
    let selector = found.deployment.pointer("/spec/selector").unwrap_or(&Value::Null);
    let selected = found.services.iter().filter(|service| services.iter().any(|one| one == name(service)));
    let mut keys: BTreeSet<&str> = selected
        .filter_map(|service| service.pointer("/spec/selector"))
        .chain(selector.get("matchLabels"))
        .filter_map(Value::as_object)
        .flat_map(|labels| labels.keys().map(String::as_str))
        .collect();
    keys.insert(TEMPLATE_HASH);
    keys.extend(list(selector, "/matchExpressions").iter().map(|expression| text(expression, "/key")));
    let has = |key: &&str| {
        *key == TEMPLATE_HASH
            || template.pointer("/metadata/labels").is_some_and(|labels| labels.get(*key).is_some())
    };
    Ok(keys.into_iter().filter(has).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found() -> (Found, Value) {
        let found = Found {
            deployment: json!({"spec": {"selector": {
                "matchLabels": {"app": "cart"},
                "matchExpressions": [{"key": "tier", "operator": "Exists"}, {"key": "old", "operator": "DoesNotExist"}],
            }}}),
            services: vec![
                json!({"metadata": {"name": "cart"}, "spec": {"selector": {"app": "cart", "serves": "yes"}}}),
                json!({"metadata": {"name": "other"}, "spec": {"selector": {"colour": "blue"}}}),
            ],
            ..Found::default()
        };
        let labels = json!({"app": "cart", "tier": "shop", "serves": "yes", "colour": "red"});
        (found, json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn the_labels_are_those_by_which_services_and_controllers_find_the_pods() {
        let (found, template) = found();
        let keys = labels(&found, &template, &["cart".into()], Handover::OnListen, 1);
        assert_eq!(keys.unwrap(), ["app", "pod-template-hash", "serves", "tier"]);
    }

    #[test]
    fn where_it_does_nothing_the_plan_says_why() {
        let (found, template) = found();
        let why = |services: &[String], handover, replicas| {
            labels(&found, &template, services, handover, replicas).unwrap_err().text
        };
        assert!(why(&["cart".into()], Handover::OriginalFirst, 1).ends_with("before the stand-in can come"));
        assert!(why(&["cart".into()], Handover::AtOnce, 0).ends_with("0 replicas"));
        assert!(why(&[], Handover::AtOnce, 1).ends_with("no Service leads to its pods"));
    }
}
