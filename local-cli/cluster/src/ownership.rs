//! Who owns `spec.replicas` of the original (`metadata.managedFields`).
//!
//! Scaling it makes us the owner, and a later `kubectl apply --server-side` would conflict with us. So the record keeps
//! the owners as they were, and restore writes them back. The server takes `managedFields` from a request when they are
//! not empty, then adds what the same request changed: replicas and ownership must be two requests.

use serde_json::{Value, json};

use crate::{json::text, name::MANAGER};

/// The entries that own `spec.replicas`, ours left out, each reduced to that field.
pub(crate) fn owners_of_replicas(managed: &[Value]) -> Vec<Value> {
    managed
        .iter()
        .filter(|entry| text(entry, "/manager") != MANAGER && owns_replicas(entry))
        .map(|entry| {
            let mut entry = entry.clone();
            entry["fieldsV1"] = json!({"f:spec": {"f:replicas": {}}});
            entry
        })
        .collect()
}

/// Whether we own `spec.replicas`.
pub(crate) fn ours(managed: &[Value]) -> bool {
    managed.iter().any(|entry| text(entry, "/manager") == MANAGER && owns_replicas(entry))
}

/// `managedFields` without us, with `spec.replicas` given back to `before`; `None` when there is nothing to give.
///
/// Whoever else has taken the field meanwhile keeps it.
pub(crate) fn given_back(managed: &[Value], before: &[Value]) -> Option<Vec<Value>> {
    if !ours(managed) {
        return None;
    }
    let taken = managed.iter().any(|entry| text(entry, "/manager") != MANAGER && owns_replicas(entry));
    let mut after: Vec<Value> = managed
        .iter()
        .filter_map(|entry| {
            if text(entry, "/manager") == MANAGER { without_replicas(entry) } else { Some(entry.clone()) }
        })
        .collect();
    if !taken {
        for owner in before {
            match after.iter_mut().find(|entry| same_owner(entry, owner)) {
                Some(entry) => {
                    // `entry["a"]["b"] = …` on an entry without these maps makes them.
                    if !entry["fieldsV1"].is_object() {
                        entry["fieldsV1"] = json!({});
                    }
                    if !entry["fieldsV1"]["f:spec"].is_object() {
                        entry["fieldsV1"]["f:spec"] = json!({});
                    }
                    entry["fieldsV1"]["f:spec"]["f:replicas"] = json!({});
                }
                None => after.push(owner.clone()),
            }
        }
    }
    if after.is_empty() {
        // An empty list means "as it is" to the server; one empty entry means "none" (KEP-555).
        after.push(json!({}));
    }
    Some(after)
}

fn owns_replicas(entry: &Value) -> bool {
    entry.pointer("/fieldsV1/f:spec/f:replicas").is_some()
}

fn same_owner(one: &Value, other: &Value) -> bool {
    ["/manager", "/operation", "/subresource", "/apiVersion"]
        .iter()
        .all(|pointer| text(one, pointer) == text(other, pointer))
}

fn without_replicas(entry: &Value) -> Option<Value> {
    let mut entry = entry.clone();
    if let Some(spec) = entry.pointer_mut("/fieldsV1/f:spec").and_then(Value::as_object_mut) {
        spec.remove("f:replicas");
        if spec.keys().all(|key| key == ".") {
            entry["fieldsV1"].as_object_mut()?.remove("f:spec");
        }
    }
    let left = entry.get("fieldsV1").and_then(Value::as_object).is_some_and(|fields| !fields.is_empty());
    left.then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
               "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    fn replicas() -> Value {
        json!({"f:spec": {"f:replicas": {}}})
    }

    fn before_swap_and_back(before: &[Value], during: &[Value]) -> Vec<Value> {
        given_back(during, &owners_of_replicas(before)).unwrap()
    }

    #[test]
    fn an_owner_with_more_fields_gets_the_field_back() {
        let whole = json!({"f:spec": {"f:replicas": {}, "f:template": {}}});
        let rest = json!({"f:spec": {"f:template": {}}});
        for (manager, operation) in [("kubectl-client-side-apply", "Update"), ("kubectl", "Apply")] {
            let before = [entry(manager, operation, &whole)];
            let during = [entry(manager, operation, &rest), entry(MANAGER, "Update", &replicas())];
            assert_eq!(before_swap_and_back(&before, &during), before);
        }
    }

    #[test]
    fn an_owner_of_this_field_alone_comes_back() {
        let mut scale = entry("kubectl", "Update", &replicas());
        scale["subresource"] = json!("scale");
        let apply = entry("kubectl", "Apply", &json!({"f:spec": {"f:template": {}}}));
        let during = [apply.clone(), entry(MANAGER, "Update", &replicas())];
        assert_eq!(before_swap_and_back(&[apply.clone(), scale.clone()], &during), [apply, scale]);
    }

    #[test]
    fn a_field_that_nobody_owned_is_owned_by_nobody() {
        let apply = entry("kubectl", "Apply", &json!({"f:spec": {"f:template": {}}}));
        let during = [apply.clone(), entry(MANAGER, "Update", &replicas())];
        assert_eq!(before_swap_and_back(std::slice::from_ref(&apply), &during), [apply]);
    }

    #[test]
    fn who_took_the_field_meanwhile_keeps_it() {
        let apply = entry("kubectl", "Apply", &replicas());
        let other = entry("helm", "Update", &replicas());
        // Server-side apply of an equal value shares the field with us.
        let during = [other.clone(), entry(MANAGER, "Update", &replicas())];
        assert_eq!(before_swap_and_back(&[apply], &during), [other]);
    }

    #[test]
    fn without_our_entry_there_is_nothing_to_do() {
        let apply = entry("kubectl", "Apply", &replicas());
        assert_eq!(given_back(std::slice::from_ref(&apply), std::slice::from_ref(&apply)), None);
    }

    #[test]
    fn the_last_entry_is_cleared_in_the_servers_own_way() {
        assert_eq!(given_back(&[entry(MANAGER, "Update", &replicas())], &[]), Some(vec![json!({})]));
    }
}
