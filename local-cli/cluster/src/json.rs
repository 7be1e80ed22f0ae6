//! Short ways into JSON objects, forgiving about what is absent.

use serde_json::Value;

/// The text at a JSON pointer, empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer.
pub(crate) fn number(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// The elements at a JSON pointer, none when it is no list.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(value: &Value) -> &str {
    text(value, "/metadata/name")
}

/// Whether every pair of `selector` (a plain map) is among `labels`; an empty selector selects nothing.
pub(crate) fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let Some(selector) = selector.and_then(Value::as_object).filter(|map| !map.is_empty()) else {
        return false;
    };
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether a `LabelSelector` (matchLabels and matchExpressions) selects `labels`.
pub(crate) fn label_selector_selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let Some(selector) = selector.filter(|selector| selector.is_object()) else { return false };
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let matched = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .is_none_or(|map| map.iter().all(|(key, value)| label(key) == value.as_str()));
    matched
        && list(selector, "/matchExpressions").iter().all(|expression| {
            let actual = label(text(expression, "/key"));
            let among = actual.is_some_and(|actual| list(expression, "/values").iter().any(|v| v == actual));
            match text(expression, "/operator") {
                "In" => among,
                "NotIn" => !among,
                "Exists" => actual.is_some(),
                "DoesNotExist" => actual.is_none(),
                _ => false,
            }
        })
}

/// A `LabelSelector` in the form of a query parameter.
pub(crate) fn selector_query(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut parts: Vec<String> = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in list(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let values: Vec<&str> = list(expression, "/values").iter().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_service_selector_selects_nothing() {
        assert!(!selects(Some(&json!({})), Some(&json!({"a": "b"}))));
        assert!(selects(Some(&json!({"a": "b"})), Some(&json!({"a": "b", "c": "d"}))));
        assert!(!selects(Some(&json!({"a": "b"})), None));
    }

    #[test]
    fn label_selectors_are_written_as_queries_and_matched_alike() {
        let selector = json!({
            "matchLabels": {"app": "cart"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        });
        assert_eq!(selector_query(Some(&selector)), "app=cart,tier in (a,b),!old");
        assert!(label_selector_selects(Some(&selector), Some(&json!({"app": "cart", "tier": "a"}))));
        assert!(!label_selector_selects(
            Some(&selector),
            Some(&json!({"app": "cart", "tier": "a", "old": "1"}))
        ));
        assert!(!label_selector_selects(Some(&selector), Some(&json!({"app": "cart"}))));
    }
}
