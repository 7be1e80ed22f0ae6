//! A namespace before and after: every object of every kind but for what must differ (status, times, generations).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::namespace::Namespace;

/// Compared by number: pods by their template's hash, slices by their Service.
const COUNTED: &[(&str, &str)] =
    &[("pods", "pod-template-hash"), ("endpointslices.discovery.k8s.io", "kubernetes.io/service-name")];

/// Not compared: events are history (a session leaves two on its original, see `teammates.rs`), Endpoints are the older image of the slices.
const LEFT_OUT: &[&str] = &["events", "events.events.k8s.io", "endpoints", "pods.metrics.k8s.io"];

/// The objects of a namespace, by kind and name, without what changes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objects {
    objects: BTreeMap<String, Value>,
}

impl Objects {
    pub(crate) async fn of(namespace: &Namespace) -> Result<Self> {
        let kinds =
            namespace.kubectl(["api-resources", "--namespaced", "--verbs=list", "-o", "name"]).await?;
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !LEFT_OUT.contains(kind)).collect();
        let list = namespace.get([kinds.join(","), "--show-managed-fields".into()]).await?;
        let mut objects = BTreeMap::new();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for object in list["items"].as_array().into_iter().flatten() {
            if let Some(group) = counted(object) {
                *counts.entry(group).or_default() += 1;
            } else {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let kind = object["kind"].as_str().unwrap_or_default();
                objects.insert(format!("{kind} {name}"), lasting(object));
            }
        }
        objects.extend(counts.into_iter().map(|(group, count)| (group, json!(count))));
        Ok(Self { objects })
    }

    /// Without the object of this kind and name, such as `Pod client`.
    #[must_use]
    pub fn without(mut self, kind_and_name: &str) -> Self {
        self.objects.remove(kind_and_name);
        self
    }

    /// What differs, by object and field; nothing if equal.
    pub fn difference(&self, later: &Self) -> String {
        let mut said = String::new();
        let names: std::collections::BTreeSet<_> = self.objects.keys().chain(later.objects.keys()).collect();
        for name in names {
            match (self.objects.get(name), later.objects.get(name)) {
                (Some(_), None) => {
                    let _ = writeln!(said, "gone: {name}");
                }
                (None, Some(_)) => {
                    let _ = writeln!(said, "new: {name}");
                }
                (Some(before), Some(after)) => fields(&mut said, name, before, after),
                (None, None) => {}
            }
        }
        said
    }

    /// An error with the difference unless `later` is equal.
    pub fn require_same(&self, later: &Self) -> Result<()> {
        if self != later {
            bail!("the namespace is not as it was:\n{}", self.difference(later));
        }
        Ok(())
    }
}

/// The group in which it is counted, if it is.
fn counted(object: &Value) -> Option<String> {
    let kind = match object["kind"].as_str()? {
        "Pod" => "pods",
        "EndpointSlice" => "endpointslices.discovery.k8s.io",
        _ => return None,
    };
    let (_, label) = COUNTED.iter().find(|(counted, _)| *counted == kind)?;
    let labels = &object["metadata"]["labels"];
    let group = labels[*label].as_str().or(object["metadata"]["name"].as_str()).unwrap_or_default();
    Some(format!("number of {kind} of {group}"))
}

/// Spec, labels, annotations, owners, field ownership, data; the same object as before by its uid.
fn lasting(object: &Value) -> Value {
    let mut object = object.clone();
    let Some(fields) = object.as_object_mut() else { return object };
    fields.remove("status");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for changing in ["resourceVersion", "generation", "creationTimestamp"] {
            metadata.remove(changing);
        }
        if let Some(managers) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
            managers.retain(|manager| manager.get("subresource") != Some(&json!("status")));
            for manager in managers.iter_mut() {
                if let Some(manager) = manager.as_object_mut() {
                    manager.remove("time");
                }
            }
            managers.sort_by_key(ToString::to_string);
        }
    }
    object
}

fn fields(said: &mut String, path: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for name in names {
                let path = format!("{path}.{name}");
                fields(
                    said,
                    &path,
                    old.get(name).unwrap_or(&Value::Null),
                    new.get(name).unwrap_or(&Value::Null),
                );
            }
        }
        _ if before == after => {}
        _ => {
            let _ = writeln!(said, "{path}: {before} → {after}");
        }
    }
}
